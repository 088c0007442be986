// Asks for the cache line of an address that will be written soon; does nothing where the compiler has no such request.
#pragma once

#if defined(__GNUC__)
#define NGRAM_PREFETCH(address) __builtin_prefetch(address, 1)
#else
#define NGRAM_PREFETCH(address) (void)(address)
#endif
