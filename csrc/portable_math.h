// The logistic function from +, -, x, / alone: with contraction off (setup.py) the same bits on every IEEE machine.
#pragma once

#include <bit>
#include <cstdint>

namespace ngram {

inline constexpr float kLogisticLimit = 14.0f;  // arguments are clamped to it: results stay away from 0 and 1

// 1 / (1 + e^-z), relative error below 2e-6.
inline float logistic(float z) {
  const float clamped = z < -kLogisticLimit ? -kLogisticLimit : z > kLogisticLimit ? kLogisticLimit : z;
  const float t = clamped * -1.44269504f;
  const float shifted = t + 12582912.0f;  // 1.5 x 2^23: the low bits now hold t, rounded
  const float f = t - (shifted - 12582912.0f);
  const float power = 1.0f + f * (0.6931472f + f * (0.2402265f + f * (0.0555041f + f * (0.0096181f + f * 0.0013334f))));
  const auto scale = (std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(12582912.0f) + 127u) << 23;
  return 1.0f / (1.0f + power * std::bit_cast<float>(scale));
}

}  // namespace ngram
