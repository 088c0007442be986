// The machine's limit that benchmarks compare with: random increments, nothing else.
#pragma once

#include <cstdint>

namespace ngram {

// Makes `increments` pseudo-random increments over all `size` (a power of two) counts, each line requested `ahead`
// increments before it is used. No hashing, no windows, no lookups: what is left is the memory.
void random_increments(std::uint32_t* counts, std::uint64_t size, std::uint64_t increments, std::uint64_t ahead);

}  // namespace ngram
