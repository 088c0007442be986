// When an order may be the best match of a position; the highest one that may is.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace ngram {

// `min_full` is 1 where an order without the target backs off to the next lower one, else 0.
NGRAM_HOST_DEVICE constexpr bool matches(std::uint32_t context, std::uint32_t full, std::uint32_t min_context,
                                         std::uint32_t min_full) {
  return (context >= min_context) & (full >= min_full);
}

}  // namespace ngram
