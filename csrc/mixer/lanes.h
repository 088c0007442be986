// Eight numbers that are worked on at once, and what the mixer does with them. Sums are taken in one order everywhere.
#pragma once

#include <cstdint>

#include "common/clones.h"

namespace ngram {

inline constexpr int kLanes = 8;

typedef float Lanes __attribute__((vector_size(32), aligned(4)));
typedef std::int32_t Integers __attribute__((vector_size(32), aligned(4)));
typedef std::uint32_t Bits __attribute__((vector_size(32), aligned(4)));

NGRAM_INLINE Lanes& lanes(float* at) { return *reinterpret_cast<Lanes*>(at); }
NGRAM_INLINE const Lanes& lanes(const float* at) { return *reinterpret_cast<const Lanes*>(at); }

// The sum of products in eight columns, then of the columns; n is a multiple of eight.
NGRAM_INLINE float dot(const float* a, const float* b, int n) {
  Lanes sum = {};
  for (int i = 0; i < n; i += kLanes) sum += lanes(a + i) * lanes(b + i);
  return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

NGRAM_INLINE void move(float* weights, const float* inputs, float by, int n) {
  const Lanes step = {by, by, by, by, by, by, by, by};
  for (int i = 0; i < n; i += kLanes) lanes(weights + i) += step * lanes(inputs + i);
}

}  // namespace ngram
