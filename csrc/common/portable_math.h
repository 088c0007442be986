// The logistic function from +, -, x, / alone: with contraction off (setup.py) the same bits on every IEEE machine.
#pragma once

#include <bit>
#include <cstdint>

namespace ngram {

// Four floats that are worked on at once.
typedef float Four __attribute__((vector_size(16)));
typedef std::uint32_t FourBits __attribute__((vector_size(16)));

inline Four four(float x) { return Four{x, x, x, x}; }

inline constexpr float kLogisticLimit = 14.0f;  // arguments are clamped to it: results stay away from 0 and 1

// 1 / (1 + e^-z), relative error below 4e-6.
inline Four logistic(Four z) {
  const Four low = four(-kLogisticLimit), high = four(kLogisticLimit);
  z = z < low ? low : z;
  z = z > high ? high : z;
  const Four t = z * four(-1.44269504f);
  const Four magic = four(12582912.0f);  // 1.5 x 2^23: once added, the low bits hold t, rounded
  const Four shifted = t + magic;
  const Four f = t - (shifted - magic);
  Four power = four(0.0013334f);
  for (const float coefficient : {0.0096181f, 0.0555041f, 0.2402265f, 0.6931472f, 1.0f}) {
    power = four(coefficient) + f * power;
  }
  const FourBits scale = (std::bit_cast<FourBits>(shifted) - std::bit_cast<FourBits>(magic) + 127u) << 23;
  return four(1.0f) / (four(1.0f) + power * std::bit_cast<Four>(scale));
}

}  // namespace ngram
