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

inline constexpr int kMostHashed = 20;
inline constexpr int kDirect = 4;

// Hashes of what came before, one for each table.
struct Contexts {
  std::array<std::uint64_t, kMostHashed> hashed;  // by what each adds to those before it
  std::array<std::uint64_t, kDirect> direct;      // nothing, one token, two, the word so far
  std::uint64_t token, word;                      // for the choice of weights
};

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  a ^= b * 0x9E3779B97F4A7C15u;
  a ^= a >> 29;
  a *= 0xBF58476D1CE4E5B9u;
  return a ^ a >> 32;
}

class MixerContexts {
 public:
  static constexpr int kMatch = 7;             // tokens that a repetition must have
  static constexpr int kLongest = 32;          // tokens that are compared when one is found
  static constexpr int kRemembered = 1 << 22;  // tokens in which one is looked for

  explicit MixerContexts(const Spelling& spelling);

  void push(std::uint32_t token);
  // Asks for what the push of `token`, which comes next, will touch.
  void prefetch(std::uint32_t token);
  const Contexts& now() const { return now_; }
  std::uint64_t size() const { return size_; }
  int matched() const { return matched_; }               // tokens of the repetition under way, or 0
  std::uint32_t expected() const { return at(place_); }  // what it says comes next

 private:
  static constexpr int kPlaceBits = 20;

  std::uint32_t at(std::uint64_t position) const { return tokens_.data()[position & (kRemembered - 1)]; }
  std::uint64_t back(std::uint64_t k) const { return k <= size_ ? at(size_ - k) + std::uint64_t{1} : 0; }
  void spell(std::uint32_t token);
  std::uint64_t place_of(std::uint64_t newest, int k) const;
  void match();
  void look();

  const Spelling& spelling_;
  ZeroPages<std::uint32_t> tokens_;  // a ring of the last kRemembered
  std::uint64_t size_ = 0;
  std::uint64_t bytes_ = 0;  // the last eight
  std::uint64_t word_ = 0, last_word_ = 0, word_before_ = 0;
  std::vector<std::uint32_t> after_one_, after_two_;  // the last two tokens that followed, 16 bits of each
  ZeroPages<std::uint64_t> places_;                   // by the last kMatch tokens: the position after them
  std::uint64_t place_ = 0;
  int matched_ = 0;
  Contexts now_{};
};

}  // namespace ngram
