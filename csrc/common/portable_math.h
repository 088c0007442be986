// Exponential and logistic function from +, -, x, / alone: with contraction off (setup.py) the same bits on every IEEE machine.
#pragma once

#include <cstdint>

#include "common/clones.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // how vectors are passed: functions of them become a part of their callers
#endif

namespace ngram {

// Four floats that are worked on at once.
typedef float Four __attribute__((vector_size(16)));
typedef std::uint32_t FourBits __attribute__((vector_size(16)));

inline Four four(float x) { return Four{x, x, x, x}; }

inline constexpr float kLogisticLimit = 14.0f;  // arguments are clamped to it: results stay away from 0 and 1

// e^z, relative error below 4e-6, of floats in lanes from -87 to 87; Words are as many unsigned integers.
template <class Floats, class Words>
NGRAM_INLINE Floats exponential(Floats z) {
  const Floats t = z * 1.44269504f;
  const Floats magic = Floats{} + 12582912.0f;  // 1.5 x 2^23: once added, the low bits hold t, rounded
  const Floats shifted = t + magic;
  const Floats f = t - (shifted - magic);
  Floats power = Floats{} + 0.0013334f;
  for (const float coefficient : {0.0096181f, 0.0555041f, 0.2402265f, 0.6931472f, 1.0f}) {
    power = coefficient + f * power;
  }
  const Words scale = ((Words)shifted - (Words)magic + 127u) << 23;
  return power * (Floats)scale;
}

// 1 / (1 + e^-z), as exact.
template <class Floats, class Words>
NGRAM_INLINE Floats logistic(Floats z) {
  const Floats low = Floats{} - kLogisticLimit, high = Floats{} + kLogisticLimit;
  z = z < low ? low : z;
  z = z > high ? high : z;
  return 1.0f / (1.0f + exponential<Floats, Words>(-z));
}

NGRAM_INLINE Four logistic(Four z) { return logistic<Four, FourBits>(z); }

}  // namespace ngram
