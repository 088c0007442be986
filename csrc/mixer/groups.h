// Bit histories of up to 15 nodes by hash, four groups of them a cache line.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/clones.h"
#include "common/prefetch.h"
#include "common/zero_pages.h"
#include "mixer/bit_history.h"

namespace ngram {

inline constexpr BitHistories kHistories = bit_histories();
inline constexpr BitHistoryTables kTables = tables_of(kHistories);

// A line: a check byte of each group, 0 where there is none; then their histories.
class Groups {
 public:
  static constexpr int kBytes = 16, kInLine = 4, kNodes = kBytes - 1;

  // Where a group was found; `at` holds the history of place p, from 1 to 15, in byte p: zeros where there is none.
  struct Found {
    const std::uint8_t* at;
    int slot;  // in the line; kInLine where there is none
  };

  explicit Groups(std::uint64_t groups) : bytes_(groups * kBytes), mask_(groups / kInLine - 1) {}

  void prefetch(std::uint64_t hash) const { NGRAM_PREFETCH(line(hash)); }

  // The first group of its line whose check byte is the hash's low byte, 0 standing for 1.
  NGRAM_INLINE Found find(std::uint64_t hash) const {
    const std::uint8_t* const here = line(hash);
    const int slot = find(here, check(hash));
    const std::uint8_t* const places[2] = {group(here, slot), kEmpty.data()};
    return {places[slot / kInLine], slot};
  }

  // The same to write into: where there is none, the one of its line that was used least at its first node, emptied.
  NGRAM_INLINE std::uint8_t* take(std::uint64_t hash, int slot) {
    std::uint8_t* const here = bytes_.data() + (hash >> 8 & mask_) * kBytes * kInLine;
    const std::uint8_t wanted = check(hash);
    if (slot == kInLine || here[slot] != wanted) {  // it was not there, or was taken away since
      slot = find(here, wanted);
      if (slot == kInLine) slot = replace(here, wanted);
    }
    return group(here, slot);
  }

 private:
  static constexpr std::array<std::uint8_t, kBytes> kEmpty{};

  static std::uint8_t check(std::uint64_t hash) { return static_cast<std::uint8_t>((hash & 255) + !(hash & 255)); }

  template <class Byte>
  static Byte* group(Byte* line, int slot) {
    return line + (kInLine - 1) + slot * kNodes;
  }

  const std::uint8_t* line(std::uint64_t hash) const {
    return bytes_.data() + (hash >> 8 & mask_) * kBytes * kInLine;
  }

  // All four at once: of the bytes' differences, the lowest that is zero is the lowest that borrows.
  static int find(const std::uint8_t* line, std::uint8_t check) {
    const std::uint32_t checks = line[0] | line[1] << 8 | line[2] << 16 | std::uint32_t{line[3]} << 24;
    const std::uint32_t differences = checks ^ check * 0x01010101u;
    return std::countr_zero((differences - 0x01010101u) & ~differences & 0x80808080u) / 8;  // 32 where there is none
  }

  static int replace(std::uint8_t* line, std::uint8_t check) {
    int least = INT32_MAX;
    for (int slot = 0; slot < kInLine; ++slot) {
      const int used = (line[slot] != 0) + kTables.total[group(line, slot)[1]];
      least = std::min(least, used * kInLine + slot);
    }
    const int slot = least % kInLine;
    line[slot] = check;
    std::memset(group(line, slot) + 1, 0, kNodes);
    return slot;
  }

  ZeroPages<std::uint8_t> bytes_;
  std::uint64_t mask_;
};

}  // namespace ngram
