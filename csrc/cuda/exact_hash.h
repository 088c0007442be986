// The hash of exact counts on the device. Keys are compared: it decides where an n-gram is looked for, and no number.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "exact/evidence.h"

namespace ngram {

// Of an n-gram in the tree: the node that it extends, and its newest token.
NGRAM_HOST_DEVICE std::uint64_t child_hash(std::uint32_t parent, std::uint32_t token) {
  std::uint64_t h = (std::uint64_t{parent} << kTokenBits | token) * 0x9E3779B97F4A7C15u;
  h = (h ^ (h >> 29)) * 0xBF58476D1CE4E5B9u;
  return h ^ (h >> 32);
}

}  // namespace ngram
