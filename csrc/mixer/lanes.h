// Eight numbers that are worked on at once, and what the mixer does with them. Sums are taken in one order everywhere.
#pragma once

#include <array>
#include <cstdint>

#include "common/lanes.h"
#include "common/portable_math.h"

namespace ngram {

inline constexpr int kLanes = 8;

typedef float Lanes __attribute__((vector_size(32)));
typedef std::int32_t Integers __attribute__((vector_size(32)));
typedef std::uint32_t Bits __attribute__((vector_size(32)));
typedef double Doubles __attribute__((vector_size(32)));
typedef std::uint64_t Words __attribute__((vector_size(32)));

// f(0) to f(n - 1), four in a turn, so that each of four finds what it needs at a fixed distance.
template <class F>
NGRAM_INLINE void by_four(std::size_t n, F f) {
  std::size_t k = 0;
  for (; k + 4 <= n; k += 4) f(k), f(k + 1), f(k + 2), f(k + 3);
  for (; k < n; ++k) f(k);
}

// The sum over lanes: of four pairs, of two pairs of those, of these.
NGRAM_INLINE float across(Lanes x) { return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7])); }

NGRAM_INLINE Four halves(Lanes a) { return Four{a[0], a[1], a[2], a[3]} + Four{a[4], a[5], a[6], a[7]}; }
NGRAM_INLINE Four pairs(Four a, Four b) { return Four{a[0], a[2], b[0], b[2]} + Four{a[1], a[3], b[1], b[3]}; }

// The same of four at once.
NGRAM_INLINE Four across(const Lanes* x) {
  return pairs(pairs(halves(x[0]), halves(x[1])), pairs(halves(x[2]), halves(x[3])));
}

// The same of eight at once.
NGRAM_INLINE Lanes across(const std::array<Lanes, kLanes>& x) {
  const Four low = across(x.data()), high = across(x.data() + 4);
  return Lanes{low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]};
}

NGRAM_INLINE Lanes exponential(Lanes z) { return exponential<Lanes, Bits>(z); }
NGRAM_INLINE Lanes logistic(Lanes z) { return logistic<Lanes, Bits>(z); }

inline constexpr float kLogitLimit = 11.99f;

NGRAM_INLINE Lanes clipped(Lanes z) {
  const Lanes low = Lanes{} - kLogitLimit, high = Lanes{} + kLogitLimit;
  z = z > low ? z : low;
  return z < high ? z : high;
}

// ln(p / (1 - p)) from +, -, x, / alone, to 1e-9, within the limit.
NGRAM_INLINE Doubles logit(Doubles p) {
  constexpr std::uint64_t kExponent = std::uint64_t{2047} << 52, kHalf = std::uint64_t{1022} << 52;
  constexpr std::uint64_t kInteger = std::uint64_t{1075} << 52;  // 2^52, whose low bits count ones
  const Doubles odds = p / (1.0 - p);
  const Words bits = (Words)odds;
  Doubles m = (Doubles)((bits & ~kExponent) | kHalf);  // in [1/2, 1)
  Doubles exponent = (Doubles)(bits >> 52 | kInteger) - (0x1p52 + 1022.0);
  const auto small = m < 0.70710678118654752;
  m = small ? m * 2.0 : m;
  exponent = small ? exponent - 1.0 : exponent;
  const Doubles s = (m - 1.0) / (m + 1.0), square = s * s;
  Doubles series = Doubles{} + 1.0 / 13.0;
  for (const double divisor : {11.0, 9.0, 7.0, 5.0, 3.0, 1.0}) series = 1.0 / divisor + square * series;
  const Doubles high = Doubles{} + double{kLogitLimit}, logits = exponent * 0.69314718055994531 + 2.0 * s * series;
  return odds > 6.2e-6 ? odds > 1.6e5 ? high : logits : -high;
}

// Weights by a step times their inputs, so many vectors of them.
template <class Vectors>
NGRAM_INLINE void move(float* weights, const float* inputs, float step, Vectors vectors) {
  for (int i = 0; i < vectors * kLanes; i += kLanes) {
    store(weights + i, load<Lanes>(weights + i) + step * load<Lanes>(inputs + i));
  }
}

}  // namespace ngram
