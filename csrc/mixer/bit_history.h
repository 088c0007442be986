// What happened so far where a context met a decision, in a byte: counts of both outcomes and which came last.
// `ngram_eval/scorers/mixer/reference.py` is the specification; the idea is Mahoney's (PAQ6, 2004), the states are ours.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace ngram {

struct BitHistory {
  std::uint8_t zeros, ones, last;    // `last` only where both outcomes were seen
  std::array<std::uint8_t, 2> next;  // the state after a 0, after a 1
  constexpr int total() const { return zeros + ones; }
};

struct BitHistories {
  std::array<BitHistory, 256> state{};  // 0: nothing seen
  int size = 0;
};

// Counts stay small where the other outcome was seen too: what a byte can hold, and what is remembered of a past that no
// longer predicts.
inline constexpr std::array<int, 6> kMostBesides = {40, 30, 16, 9, 6, 5};  // of one outcome, by the count of the rarer

constexpr bool is_history(int zeros, int ones) {
  const int rare = std::min(zeros, ones), often = std::max(zeros, ones);
  return rare < static_cast<int>(kMostBesides.size()) && often <= kMostBesides[rare];
}

// The other outcome's count after an outcome: surprises are believed.
constexpr int discounted(int count) {
  return count > 25 ? 6 : count > 12 ? 5 : count > 5 ? 4 : count > 3 ? 3 : std::min(count, 2);
}

// All states that the empty history leads to, in the order in which they are reached.
constexpr BitHistories bit_histories() {
  BitHistories all;
  const auto find = [&all](int zeros, int ones, int last) {
    for (int i = 0; i < all.size; ++i) {
      const BitHistory& s = all.state[i];
      if (s.zeros == zeros && s.ones == ones && s.last == last) return i;
    }
    all.state[all.size] = {
        static_cast<std::uint8_t>(zeros), static_cast<std::uint8_t>(ones), static_cast<std::uint8_t>(last), {}};
    return all.size++;
  };
  find(0, 0, 0);
  for (int i = 0; i < all.size; ++i) {
    for (int bit = 0; bit < 2; ++bit) {
      int zeros = all.state[i].zeros, ones = all.state[i].ones;
      (bit ? ones : zeros) += 1;
      int& other = bit ? zeros : ones;
      other = discounted(other);
      while (!is_history(zeros, ones)) (zeros > ones || (zeros == ones && !bit) ? zeros : ones) -= 1;
      const int last = zeros > 0 && ones > 0 ? bit : 0;
      all.state[i].next[bit] = static_cast<std::uint8_t>(find(zeros, ones, last));
    }
  }
  return all;
}

// The same as tables, for loops.
struct BitHistoryTables {
  std::array<std::array<std::uint8_t, 256>, 2> next{};  // by outcome, state
  std::array<std::uint8_t, 256> total{};
};

constexpr BitHistoryTables tables_of(const BitHistories& histories) {
  BitHistoryTables tables;
  for (int i = 0; i < histories.size; ++i) {
    for (int bit = 0; bit < 2; ++bit) tables.next[bit][i] = histories.state[i].next[bit];
    tables.total[i] = static_cast<std::uint8_t>(histories.state[i].total());
  }
  return tables;
}

}  // namespace ngram
