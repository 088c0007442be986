// Marks functions that host and device share.
#pragma once

#ifdef __CUDACC__
#define NGRAM_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define NGRAM_HOST_DEVICE inline
#endif
