// The stream so far, and the contexts that it makes for the next token. `ngram_eval/scorers/mixer/reference.py` is
// the specification of every hash.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "common/zero_pages.h"

namespace ngram {

// What the tokens of a vocabulary spell, and their order by it.
struct Spelling {
  std::vector<std::uint32_t> rank;     // of each token among all
  std::vector<std::uint32_t> offsets;  // of its bytes, V + 1
  std::string bytes;
};

inline constexpr int kMostHashed = 48;
inline constexpr int kMostMatches = 3;
inline constexpr int kDirect = 4;

// Hashes of what came before, one for each table.
struct Contexts {
  std::array<std::uint64_t, kMostHashed> hashed;  // by what each adds to those before it
  std::array<std::uint64_t, kDirect> direct;      // nothing, one token, two, the word so far
  std::uint64_t token, word;                      // for the choice of weights
  std::uint32_t column;
  std::uint32_t above;
  std::uint32_t last, indent, first;
};

// A place where the last tokens came before, followed as long as it goes on to predict well.
struct Match {
  std::uint64_t place = 0;  // of what it says comes next
  int length = 0;           // tokens that it got right in a row, or that were compared; 0 at first and after a failure
  int missed = 0;           // of the last predictions
  bool found = false;
};

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  a ^= b * 0x9E3779B97F4A7C15u;
  a ^= a >> 29;
  a *= 0xBF58476D1CE4E5B9u;
  return a ^ a >> 32;
}

class MixerContexts {
 public:
  static constexpr std::array<int, kMostMatches> kMatch = {7, 4, 14};  // tokens that a repetition must have
  static constexpr int kLongest = 32;          // tokens that are compared when one is found
  static constexpr int kRemembered = 1 << 22;  // tokens in which one is looked for

  explicit MixerContexts(const Spelling& spelling, std::uint64_t use);

  void push(std::uint32_t token);
  // Asks for what the push of `token`, which comes next, will touch.
  void prefetch(std::uint32_t token);
  const Contexts& now() const { return now_; }
  std::uint64_t size() const { return size_; }
  const Match& match(int m) const { return matches_[m]; }
  std::uint32_t expected(int m) const { return at(matches_[m].place); }  // what it says comes next

 private:
  static constexpr int kPlaceBits = 20;

  std::uint32_t at(std::uint64_t position) const { return tokens_.data()[position & (kRemembered - 1)]; }
  std::uint64_t back(std::uint64_t k) const { return k <= size_ ? at(size_ - k) + std::uint64_t{1} : 0; }
  void spell(std::uint32_t token);
  std::uint64_t place_of(std::uint64_t newest, int k, int m) const;
  void match(int m, std::uint32_t token);
  void look();

  const Spelling& spelling_;
  std::uint64_t use_;
  ZeroPages<std::uint32_t> tokens_;  // a ring of the last kRemembered
  std::uint64_t size_ = 0;
  std::uint64_t bytes_ = 0;  // the last eight
  std::uint64_t word_ = 0, last_word_ = 0, word_before_ = 0;
  std::vector<std::uint32_t> after_one_, after_two_, after_word_;  // the last two tokens that followed, 16 bits of each
  std::array<ZeroPages<std::uint64_t>, kMostMatches> places_;  // by the last kMatch tokens: the position after them
  std::array<Match, kMostMatches> matches_{};
  // Lines.
  std::uint32_t letter(std::uint64_t at) const { return text_[at & (kText - 1)]; }
  static constexpr std::uint64_t kText = 1 << 12;
  std::array<std::uint8_t, kText> text_{};
  std::uint64_t bytes_seen_ = 0, line_ = 0, line_above_ = 0, length_above_ = 0;
  std::uint32_t indent_ = 0, first_ = 0, indent_above_ = 0;
  std::uint64_t punctuation_ = 0, word_before2_ = 0, initial_ = 0, initial_before_ = 0, initial_now_ = 0, words_ = 0, capital_ = 0, first_word_ = 0, first_word_above_ = 0;
  bool capital_now_ = false;
  Contexts now_{};
};

}  // namespace ngram
