// An adaptive probability: 22 bits of it over 10 bits of a count, in integers, so that every machine agrees.
#pragma once

#include <cstdint>

#include "mixer/lanes.h"

namespace ngram {

// In memory with the highest bit turned, so that zeroed memory holds 1/2, never seen.
struct Estimate {
  static constexpr int kSteps = 1 << 12;
  static constexpr std::uint32_t kOne = 1u << 22;
  static constexpr std::uint32_t kHalf = 0x80000000u;
  static constexpr std::uint32_t kCount = 1023;

  constexpr Estimate() = default;
  constexpr explicit Estimate(double p) : bits(static_cast<std::uint32_t>(p * (kOne - 1)) << 10 ^ kHalf) {}

  std::uint32_t step() const { return bits >> 20; }  // the upper bits, as they are in memory
  bool seen() const { return bits & kCount; }

  std::uint32_t bits = 0;
};

// The bits of eight estimates after their outcomes (0 or -1 in all bits): each moves towards its outcome by
// 1 / (count + 1.6) of the way, in 65,536ths, towards minus infinity; the count stops at `limit`, at most 1023.
NGRAM_INLINE Bits moved(Bits bits, Integers outcomes, int limit) {
  const Bits value = bits ^ Estimate::kHalf;
  const Integers count = (Integers)(value & Estimate::kCount), p = (Integers)(value >> 10);
  const Integers share = __builtin_convertvector(65536.0f / (__builtin_convertvector(count, Lanes) + 1.6f), Integers);
  const Integers way = (outcomes & static_cast<std::int32_t>(Estimate::kOne - 1)) - p;
  // The product has 39 bits: its upper and its lower 8 apart.
  const Integers by = ((way >> 8) * share + ((way & 255) * share >> 8)) >> 8;
  return ((Bits)(p + by) << 10 | (Bits)(count - (count < limit))) ^ Estimate::kHalf;
}

}  // namespace ngram
