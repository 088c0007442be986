// The machine's limit that hashed and exact counts are compared with: random increments, nothing else.
#include <bit>
#include <cstdint>

#include "common/prefetch.h"

// Makes `increments` pseudo-random increments over all `size` (a power of two) counts, each line requested `ahead`
// increments before it is used. No hashing, no windows, no lookups: what is left is the memory.
extern "C" void random_increments(std::uint32_t* counts, std::uint64_t size, std::uint64_t increments,
                                  std::uint64_t ahead) {
  // Multiply, fold, multiply: enough mixing for places without a pattern, in registers, cheap beside a cache miss.
  const int bits = std::countr_zero(size);
  const auto place = [bits](std::uint64_t i) {
    std::uint64_t z = i * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 32)) * 0xD6E8FEB86659FD93u;
    return (z >> 1) >> (63 - bits);
  };
  for (std::uint64_t i = 0; i < ahead; ++i) NGRAM_PREFETCH(counts + place(i));
  for (std::uint64_t i = 0; i < increments; ++i) {
    NGRAM_PREFETCH(counts + place(i + ahead));
    ++counts[place(i)];
  }
}
