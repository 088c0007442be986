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

inline constexpr int kMostHashed = 37;
inline constexpr int kMostMatches = 3;
inline constexpr int kDirect = 4;

// Hashes of what came before, one for each table.
struct Contexts {
  std::array<std::uint64_t, kMostHashed> hashed;  // by what each adds to those before it
  std::array<std::uint64_t, kDirect> direct;      // nothing, one token, two, the word so far
  // For the choice of weights.
  std::uint64_t token, word;
  std::uint64_t bytes;   // the last ones
  std::uint64_t column;  // bytes since the line began
};

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  a ^= b * 0x9E3779B97F4A7C15u;
  a ^= a >> 29;
  a *= 0xBF58476D1CE4E5B9u;
  return a ^ a >> 32;
}

// A place where the last tokens came before, followed for as long as it predicts well: past a failure, too.
struct Match {
  bool found = false;
  std::uint64_t place = 0;  // of the token that it says comes next
  int length = 0;           // tokens that were alike without a break
  int missed = 0;           // predictions that failed
};

// What tokens have spelt: the last bytes, words, lines.
struct Text {
  static constexpr std::uint64_t kKept = 1 << 12;  // bytes

  void add(unsigned char byte);
  std::uint64_t column() const { return size - line; }
  // The byte of the line above that is `k` to the right of the next one; 256 where there is none.
  std::uint64_t above(std::uint64_t k) const;

  std::uint64_t bytes = 0;                                                 // the last eight
  std::uint64_t word = 0, last_word = 0, word_before = 0, two_before = 0;  // the one under way, or 0; those before it
  bool is_capital = false;                                                 // the one under way
  std::uint64_t letters = 0;                                               // in it
  std::array<std::uint64_t, 3> kinds{};  // guesses at what kinds of words the last ones were, the newest first
  std::uint64_t long_word = 0;           // the last one of five letters or more
  std::uint64_t capital = 0;             // the last word that began with a capital
  std::uint64_t between = 0;             // the bytes since the last word, or before this
  std::uint64_t indent = 0, first = 0;   // of the line: blanks, and the byte after them or 0
  std::uint64_t first_word = 0, first_word_above = 0;  // of the line, and of the one above
  std::uint64_t size = 0, line = 0, length_above = 0;  // where the line begins

 private:
  std::array<unsigned char, kKept> kept_{};
};

class MixerContexts {
 public:
  static constexpr std::array<int, kMostMatches> kMatch = {4, 7, 14};  // tokens that must have been alike, rising
  static constexpr int kLongest = 32;          // tokens that are compared when a match is sought
  static constexpr int kRemembered = 1 << 22;  // tokens in which one is sought
  static constexpr int kMostMissed = 8;        // failures after which a match is given up
  static constexpr int kTrusted = 16;          // tokens after which failures are forgotten

  MixerContexts(const Spelling& spelling, int hashed, int matches);

  void push(std::uint32_t token);
  // Asks for what the push of `token`, which comes next, will touch.
  void prefetch(std::uint32_t token);
  const Contexts& now() const { return now_; }
  std::uint64_t size() const { return size_; }
  const Match& match(int m) const { return matches_[m]; }
  std::uint32_t expected(int m) const { return at(matches_[m].place); }  // what it says comes next

 private:
  static constexpr int kPlaceBits = 20, kAfterBits = 18;
  static constexpr int kHashedBesides = 18;  // contexts besides those of `mixer-max` alone

  std::uint32_t at(std::uint64_t position) const { return tokens_.data()[position & (kRemembered - 1)]; }
  std::uint64_t back(std::uint64_t k) const { return k <= size_ ? at(size_ - k) + std::uint64_t{1} : 0; }
  std::array<std::uint64_t, kMostMatches> places_of(std::uint64_t newest, int k) const;
  void match(int m, std::uint64_t& place);
  std::uint64_t expectation(int m) const;
  void look();

  const Spelling& spelling_;
  int hashed_;                       // contexts in use
  ZeroPages<std::uint32_t> tokens_;  // a ring of the last kRemembered
  std::uint64_t size_ = 0;
  Text text_;
  std::vector<std::uint32_t> after_one_, after_two_,
      after_words_;                                            // the last two tokens that followed, 16 bits of each
  int in_use_;                                                 // matches
  std::array<ZeroPages<std::uint64_t>, kMostMatches> places_;  // by the last kMatch tokens: the position after them
  std::array<Match, kMostMatches> matches_{};
  Contexts now_{};
};

}  // namespace ngram
