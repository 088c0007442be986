#include "increment_limit.h"

#include <bit>

#include "prefetch.h"

namespace ngram {

void random_increments(std::uint32_t* counts, std::uint64_t size, std::uint64_t increments, std::uint64_t ahead) {
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

}  // namespace ngram
