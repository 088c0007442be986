// Eight numbers that are worked on at once, and what the mixer does with them. Sums are taken in one order everywhere.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "common/clones.h"
#include "common/portable_math.h"

namespace ngram {

inline constexpr int kLanes = 8;

typedef float Lanes __attribute__((vector_size(32)));
typedef std::int32_t Integers __attribute__((vector_size(32)));
typedef std::uint32_t Bits __attribute__((vector_size(32)));

template <class Vector, class Number>
NGRAM_INLINE Vector load(const Number* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class Number, class Vector>
NGRAM_INLINE void store(Number* to, Vector vector) {
  std::memcpy(to, &vector, sizeof vector);
}

// The sum over lanes: of four pairs, of two pairs of those, of these.
NGRAM_INLINE float across(Lanes x) { return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7])); }

// The same of four at once.
NGRAM_INLINE Four across(const Lanes* x) {
  const auto halves = [](Lanes a) { return Four{a[0], a[1], a[2], a[3]} + Four{a[4], a[5], a[6], a[7]}; };
  const auto pairs = [](Four a, Four b) { return Four{a[0], a[2], b[0], b[2]} + Four{a[1], a[3], b[1], b[3]}; };
  return pairs(pairs(halves(x[0]), halves(x[1])), pairs(halves(x[2]), halves(x[3])));
}

// The same of eight at once.
NGRAM_INLINE Lanes across(const std::array<Lanes, kLanes>& x) {
  const Four low = across(x.data()), high = across(x.data() + 4);
  return Lanes{low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]};
}

NGRAM_INLINE Lanes logistic(Lanes z) { return logistic<Lanes, Bits>(z); }

// Weights by a step times their inputs.
template <int kVectors>
NGRAM_INLINE void move(float* weights, const float* inputs, float step) {
  for (int i = 0; i < kVectors * kLanes; i += kLanes) {
    store(weights + i, load<Lanes>(weights + i) + step * load<Lanes>(inputs + i));
  }
}

}  // namespace ngram
