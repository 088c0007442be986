// Bit histories of up to 15 nodes by hash, four groups of them a cache line.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/clones.h"
#include "common/zero_pages.h"
#include "mixer/bit_history.h"

namespace ngram {

inline constexpr BitHistories kHistories = bit_histories();
inline constexpr BitHistoryTables kTables = tables_of(kHistories);

// A line: a check byte of each group, 0 where there is none; then their histories.
class Groups {
 public:
  static constexpr int kBytes = 16, kInLine = 4, kNodes = kBytes - 1, kLineBytes = kBytes * kInLine;

  // Where a group was found: the history of place p, from 1 to 15, is at[p]. Zeros where there is none.
  struct Found {
    std::uint8_t* at;
    const std::uint8_t* check;
  };

  explicit Groups(std::uint64_t groups)
      : bytes_(kLineBytes + groups * kBytes), mask_((groups / kInLine - 1) * kLineBytes) {}

  // A hash whose low byte is none of an empty place.
  static std::uint64_t key(std::uint64_t hash) { return hash + !(hash & 255); }

  std::uint8_t* line(std::uint64_t key) { return bytes_.data() + at(key); }

  // The first group of its line whose check byte is the key's low byte.
  NGRAM_INLINE Found find(std::uint64_t key) {
    const std::uint64_t here = at(key), slot = find(bytes_.data() + here, static_cast<std::uint8_t>(key));
    const std::uint64_t there = slot / kInLine - 1;  // a mask: no branch could be foreseen
    return {bytes_.data() + ((here + group(slot)) & there), bytes_.data() + ((here + slot) & there)};
  }

  // The same to write into: where there is none, the one of its line that was used least at its first node, emptied.
  NGRAM_INLINE std::uint8_t* take(std::uint64_t key, Found found) {
    if (*found.check == static_cast<std::uint8_t>(key)) return found.at;
    return take_anew(key);  // it was not there, or was taken away since
  }

 private:
  std::uint64_t at(std::uint64_t key) const { return kLineBytes + (key >> 2 & mask_); }
  static std::uint64_t group(std::uint64_t slot) { return kInLine - 1 + slot * kNodes; }

  // The first group with this check byte, all four at once: of the bytes' differences, the lowest that is zero is the lowest that borrows.
  NGRAM_INLINE static int find(const std::uint8_t* line, std::uint8_t check) {
    const std::uint32_t checks = line[0] | line[1] << 8 | line[2] << 16 | std::uint32_t{line[3]} << 24;
    const std::uint32_t differences = checks ^ check * 0x01010101u;
    const std::uint64_t zeros = (differences - 0x01010101u) & ~differences & 0x80808080u;
    return std::countr_zero(zeros | std::uint64_t{1} << 32) / 8;  // 4 where there is none, without a branch
  }

  std::uint8_t* take_anew(std::uint64_t key) {
    std::uint8_t* const here = line(key);
    const auto check = static_cast<std::uint8_t>(key);
    int slot = find(here, check);
    if (slot < kInLine) return here + group(slot);
    slot = find(here, 0);
    if (slot == kInLine) {
      int least = INT32_MAX;
      for (int i = 0; i < kInLine; ++i) least = std::min(least, kTables.total[here[group(i) + 1]] * kInLine + i);
      slot = least % kInLine;
      std::memset(here + group(slot) + 1, 0, kNodes);
    }
    here[slot] = check;
    return here + group(slot);
  }

  ZeroPages<std::uint8_t> bytes_;  // the first line stays empty: where nothing was found
  std::uint64_t mask_;             // of a line's first byte
};

}  // namespace ngram
