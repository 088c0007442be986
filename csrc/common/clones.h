// Compiles a function once per instruction set; the processor chooses when the library is loaded, where compiler and C
// library can do that. Sanitizers are not ready so early. Results are the same bits: contraction is off (setup.py).
//
// One list for all: where tables fit into the cache, the integer loops of hashed/counts.cc gain by x86-64-v4, and the
// floats of mixer/mixer.cc lose nothing by it.
#pragma once

#include <cstdlib>  // __GLIBC__

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__has_attribute) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if __has_attribute(target_clones)
#define NGRAM_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#define NGRAM_CLONED
#endif
#endif
#ifndef NGRAM_CLONES
#define NGRAM_CLONES
#endif

// What such a function calls must become a part of it.
#if defined(__GNUC__)
#define NGRAM_INLINE inline __attribute__((always_inline))
#else
#define NGRAM_INLINE inline
#endif
