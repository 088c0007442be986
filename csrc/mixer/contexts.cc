#include "mixer/contexts.h"

#include <algorithm>

#include "common/prefetch.h"

namespace ngram {
namespace {

constexpr int kAfterBits = 18, kMostMissed = 8;

// Letters, digits, apostrophes and whatever is not ASCII.
bool in_word(unsigned char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') || byte == '\'' ||
         byte >= 128;
}

}  // namespace

MixerContexts::MixerContexts(const Spelling& spelling, std::uint64_t use)
    : spelling_(spelling), use_(use),
      tokens_(kRemembered),
      after_one_(std::size_t{1} << kAfterBits),
      after_two_(std::size_t{1} << kAfterBits), after_word_(std::size_t{1} << kAfterBits),
      places_{ZeroPages<std::uint64_t>(std::size_t{1} << kPlaceBits), ZeroPages<std::uint64_t>(std::size_t{1} << kPlaceBits),ZeroPages<std::uint64_t>(std::size_t{1} << kPlaceBits)} {
  look();
}

void MixerContexts::push(std::uint32_t token) {
  const std::uint64_t one = mix(1, back(1)), two = mix(one, back(2));
  auto& fw = after_word_[mix(word_, last_word_) >> (64 - kAfterBits)];
  fw = fw << 16 | (token & 0xFFFF);
  for (auto* followed : {&after_one_[one >> (64 - kAfterBits)], &after_two_[two >> (64 - kAfterBits)]}) {
    *followed = *followed << 16 | (token & 0xFFFF);
  }
  const std::uint64_t now = size_;
  for (Match& m : matches_) {
    if (!m.found) continue;
    if (at(m.place) == token) {
      ++m.length;
      m.missed = m.length >= 16 ? 0 : m.missed;
    } else {
      m.length = 0;
      m.found = ++m.missed <= kMostMissed;
    }
    ++m.place;
  }
  (void)now;
  tokens_.data()[size_++ & (kRemembered - 1)] = token;
  for (int m = 0; m < kMostMatches; ++m) match(m, token);
  spell(token);
  look();
}

void MixerContexts::prefetch(std::uint32_t token) {
  const std::uint64_t t1 = token + std::uint64_t{1}, one = mix(1, t1), two = mix(one, back(1));
  NGRAM_PREFETCH(&after_one_[one >> (64 - kAfterBits)]);
  NGRAM_PREFETCH(&after_two_[two >> (64 - kAfterBits)]);
  for (int m = 0; m < kMostMatches; ++m) NGRAM_PREFETCH(places_[m].data() + place_of(t1, 1, m));
}

// Where `places_` has the last tokens: `newest`, and those before it from the k-th last on.
std::uint64_t MixerContexts::place_of(std::uint64_t newest, int k, int m) const {
  std::uint64_t hash = mix(0, newest);
  for (const int stop = k + kMatch[m] - 1; k < stop; ++k) hash = mix(hash, back(k));
  return hash >> (64 - kPlaceBits);
}

// Looks for a repetition where none is under way.
void MixerContexts::match(int m, std::uint32_t) {
  if (size_ < static_cast<std::uint64_t>(kMatch[m])) return;
  std::uint64_t& place = places_[m].data()[place_of(back(1), 2, m)];
  Match& match = matches_[m];
  if ((!match.found || match.length < kMatch[m]) && place > 0 && size_ - place < kRemembered - kLongest) {
    const auto most = static_cast<int>(std::min<std::uint64_t>(kLongest, place));
    int same = 0;
    while (same < most && at(place - 1 - same) == at(size_ - 1 - same)) ++same;
    if (same >= kMatch[m]) match = {place, same, 0, true};
  }
  place = size_;
}

void MixerContexts::spell(std::uint32_t token) {
  for (std::uint32_t i = spelling_.offsets[token]; i < spelling_.offsets[token + 1]; ++i) {
    const auto byte = static_cast<unsigned char>(spelling_.bytes[i]);
    bytes_ = bytes_ << 8 | byte;
    text_[bytes_seen_++ & (kText - 1)] = byte;
    if (byte == '\n') {
      length_above_ = bytes_seen_ - 1 - line_;
      line_above_ = line_;
      line_ = bytes_seen_;
      indent_above_ = indent_;
      first_word_above_ = first_word_, first_word_ = 0;
      indent_ = first_ = 0;
    } else if (first_ == 0) {
      byte == ' ' || byte == '\t' ? ++indent_ : first_ = byte;
    }
    if (in_word(byte)) {
      if (word_ == 0) initial_now_ = byte | 32, capital_now_ = byte >= 'A' && byte <= 'Z';
    } else {
      if (byte == '.' || byte == ';' || byte == ':' || byte == '\n') words_ = 0;
      punctuation_ = word_ != 0 ? byte : (punctuation_ << 8 | byte);
    }
    if (in_word(byte)) {
      word_ = mix(word_ + 1, byte | 32);  // capitals as small letters
    } else if (word_ != 0) {
      if (first_word_ == 0) first_word_ = word_;
      if (capital_now_) capital_ = word_;
      ++words_;
      capital_now_ = false;
      initial_before_ = initial_, initial_ = initial_now_;
      word_before2_ = word_before_, word_before_ = last_word_, last_word_ = word_, word_ = 0;
    }
  }
}

void MixerContexts::look() {
  const std::uint64_t t1 = back(1), t2 = back(2), t3 = back(3), t4 = back(4);
  const std::uint64_t one = mix(1, t1), two = mix(one, t2), three = mix(two, t3), four = mix(three, t4);
  const auto last = [this](int n) { return bytes_ & ((std::uint64_t{1} << 8 * n) - 1); };
  const std::uint64_t column = bytes_seen_ - line_;
  const auto up = [&](std::uint64_t k) { return column + k < length_above_ + 1 && length_above_ < kText / 2 ? letter(line_above_ + column + k) : 256u; };
  const std::uint64_t above = up(0), above2 = above << 9 | up(1);
  const std::uint64_t expect = matches_[0].found ? (expected(0) + 1) << 8 | std::min(matches_[0].length, 24) : 0;
  const std::uint64_t expect1 = matches_[1].found ? (expected(1) + 1) << 8 | std::min(matches_[1].length, 24) : 0;
  const std::array<std::uint64_t, kMostHashed> contexts = {
      two,
      mix(word_, last_word_),
      three,
      word_,
      last(5),
      mix(mix(four, back(5)), back(6)),
      mix(mix(word_, word_before_), 1),
      mix(after_one_[one >> (64 - kAfterBits)], t1),
      mix(mix(t1, t3), 2),
      // The fast model ends here.
      mix(mix(after_two_[two >> (64 - kAfterBits)], t1), 3),
      last(3),
      last(4),
      last(6),
      mix(mix(word_, last_word_), word_before_),
      four,
      t2,
      mix(t2, t3),
      mix(mix(last_word_, t1), 4),
      last(2),
      one,
      // 20
      mix(mix(column, last(1)), 5),             // 20
      mix(mix(above2, last(1)), 6),             // 21
      mix(mix(indent_, last(1)), 7),            // 22
      mix(mix(indent_, first_), 8),             // 23
      mix(bytes_ >> 8 & 0xFFFF, 9),             // 24
      mix(last(7), 10),                         // 25
      mix(mix(word_, punctuation_), 11),        // 26
      mix(expect, 12),                          // 27
      mix(mix(expect1, last(1)), 13),           // 28
      mix(mix(above, column), 14),              // 29
      mix(mix(word_, indent_), 15),             // 30
      mix(bytes_ >> 16 & 0xFFFF, 16),           // 31
      mix(mix(bytes_ >> 8 & 0xFFFFFF, 1), 17),  // 32
      mix(mix(first_, word_), 18),              // 33
      mix(mix(length_above_, column), 19),      // 34
      mix(mix(above2, word_), 20),              // 35
      mix(mix(word_, word_before2_), 21),       // 36
      mix(mix(last_word_, word_before_), 22),   // 37
      mix(mix(mix(t2, t3), t4), 23),            // 38
      mix(mix(t3, t4), 24),                     // 39
      mix(mix(after_word_[mix(word_, last_word_) >> (64 - kAfterBits)], t1), 25),  // 40
      mix(mix(mix(word_, initial_), initial_before_), 26),  // 41
      mix(mix(four, back(5)), 27),              // 42
      mix(mix(mix(mix(mix(four, back(5)), back(6)), back(7)), back(8)), 28),  // 43
      mix(bytes_, 29),                          // 44
      mix(mix(t1, words_), 30),                 // 45
      mix(mix(word_, capital_), 31),            // 46
      mix(mix(mix(first_word_above_, std::min<std::uint64_t>(column, 30)), t1), 32),  // 47
  };
  for (int k = 0, to = 0; k < kMostHashed; ++k) if (use_ >> k & 1) now_.hashed[to++] = mix(k + 1, contexts[k]);
  now_.direct = {mix(101, 0), mix(102, t1), mix(103, two), mix(104, word_)};
  now_.token = mix(105, t1);
  now_.word = mix(106, word_);
  now_.column = static_cast<std::uint32_t>(std::min<std::uint64_t>(column, 127));
  now_.above = static_cast<std::uint32_t>(above);
  now_.last = static_cast<std::uint32_t>(bytes_), now_.indent = indent_, now_.first = first_;
}

}  // namespace ngram
