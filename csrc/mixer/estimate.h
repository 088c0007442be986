// An adaptive probability: 22 bits of it over 10 bits of a count, in integers, so that every machine agrees.
#pragma once

#include <array>
#include <cstdint>

namespace ngram {

class Estimate {
 public:
  static constexpr std::uint32_t kOne = 1u << 22;

  constexpr Estimate() = default;
  constexpr explicit Estimate(double p) : bits_(static_cast<std::uint32_t>(p * (kOne - 1)) << 10 ^ kHalf) {}

  std::uint32_t twelve_bits() const { return (bits_ ^ kHalf) >> 20; }  // of the probability of a 1
  bool seen() const { return bits_ & kCount; }

  // Moves towards the outcome by 1 / (count + 1.6) of the way; the count stops at `limit`, at most 1023.
  void update(int bit, std::uint32_t limit) {
    const std::uint32_t value = bits_ ^ kHalf, count = value & kCount;
    const auto p = static_cast<std::int32_t>(value >> 10), target = -bit & static_cast<std::int32_t>(kOne - 1);
    const auto moved = static_cast<std::int64_t>(target - p) * kShare[count] >> 16;  // towards minus infinity
    bits_ = (static_cast<std::uint32_t>(p + moved) << 10 | (count + (count < limit))) ^ kHalf;
  }

 private:
  static constexpr std::uint32_t kHalf = 0x80000000u;  // so that zeroed memory holds 1/2, never seen
  static constexpr std::uint32_t kCount = 1023;
  static constexpr std::array<std::int32_t, 1024> kShare = [] {
    std::array<std::int32_t, 1024> share{};
    for (int n = 0; n < 1024; ++n) share[n] = static_cast<std::int32_t>(65536 / (n + 1.6));
    return share;
  }();

  std::uint32_t bits_ = 0;
};

}  // namespace ngram
