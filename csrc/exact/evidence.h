// What exact counts know of a position: the same for the tables of the host (`exact/counts.h`) and those of the device
// (`cuda/exact.h`), which is all that the model (`exact/model.h`) is given.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace ngram {

inline constexpr int kMaxLevels = 32;
inline constexpr int kTokenBits = 19;
inline constexpr std::uint32_t kVocabularyLimit = (1u << kTokenBits) - 1;  // so that `distinct` takes no more bits

// A context, as it stood before a position.
struct Context {
  std::uint64_t total;
  std::uint64_t novel_total;  // sum of `novel` over its successors
  std::uint32_t distinct;
  std::uint32_t run;  // stops counting at kRunLimit
};
inline constexpr std::uint32_t kRunLimit = 8191;

// A successor in a context; all zero if it never followed.
struct Successor {
  std::uint32_t count;
  std::uint32_t novel;
  std::uint32_t recent;  // stays 0 in the empty context
};

struct Evidence {
  Context context;
  Successor target;
};

// `recent` as it is `age` occurrences of its context later.
NGRAM_HOST_DEVICE std::uint32_t aged(std::uint32_t recent, std::uint64_t age) { return age < 32 ? recent >> age : 0; }

// Sum of `recent` over the successors of a context that occurred `total` times.
NGRAM_HOST_DEVICE std::uint32_t recent_total(std::uint64_t total) {
  return total >= 32 ? ~std::uint32_t{0} : ~(~std::uint32_t{0} >> total);
}

}  // namespace ngram
