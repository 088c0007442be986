// The n-gram hash of PR #890: the one definition for every native backend. `ngram_eval/scorers/hashed/hashing.py` is its
// specification.
//
// The specification hashes in 64 bits and keeps the low bits, at most 32 of them (a table has at most 2^32 buckets).
// Products and XORs never carry downwards, so 32-bit arithmetic gives the same low 32 bits with twice the vector lanes.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace ngram {

inline constexpr int kMaxOrder = 9;

// Multiplier of place k; place 0 holds the oldest token of the context, the target takes the place after it.
NGRAM_HOST_DEVICE constexpr std::uint32_t prime(int k) {
  constexpr std::uint32_t primes[kMaxOrder] = {36313, 27191, 51647, 81929, 131071, 174763, 233017, 299993, 350377};
  return primes[k];
}

// Low 32 bits of the hash of the `Width` tokens from `oldest` on.
template <int Width, class Token>
NGRAM_HOST_DEVICE std::uint32_t context_hash(const Token* oldest) {
  std::uint32_t h = 0;
  for (int k = 0; k < Width; ++k) h ^= static_cast<std::uint32_t>(oldest[k]) * prime(k);
  return h;
}

// The context hash extended by the target.
template <int Width>
NGRAM_HOST_DEVICE std::uint32_t full_hash(std::uint32_t context, std::uint32_t target) {
  return context ^ target * prime(Width);
}

}  // namespace ngram
