#include "mixer/contexts.h"

#include <algorithm>
#include <initializer_list>

#include "common/prefetch.h"

namespace ngram {
namespace {

// Letters, digits, apostrophes and whatever is not ASCII.
bool in_word(unsigned char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') || byte == '\'' ||
         byte >= 128;
}

}  // namespace

void Text::add(unsigned char byte) {
  bytes = bytes << 8 | byte;
  kept_[size++ & (kKept - 1)] = byte;
  if (in_word(byte)) {
    if (word == 0) is_capital = byte >= 'A' && byte <= 'Z', letters = 0;
    word = mix(word + 1, byte | 32);  // capitals as small letters
    ++letters;
  } else {
    between = word != 0 ? byte : between << 8 | byte;
    if (word != 0) {
      if (first_word == 0) first_word = word;
      if (is_capital) capital = word;
      const std::uint64_t ending = bytes >> 8 & 0x1F1F;  // the last two letters, small or capital
      kinds = {letters <= 4 ? word : mix(letters > 6, ending), kinds[0], kinds[1]};
      if (letters > 4) long_word = word;
      two_before = word_before, word_before = last_word, last_word = word, word = 0;
    }
  }
  if (byte == '\n') {
    length_above = column() - 1, line = size;
    first_word_above = first_word, first_word = indent = first = 0;
  } else if (first == 0) {
    byte == ' ' || byte == '\t' ? indent += 1 : first = byte;
  }
}

std::uint64_t Text::above(std::uint64_t k) const {
  const bool is_there = column() + k <= length_above && length_above < kKept / 2;
  return is_there ? kept_[(size - length_above - 1 + k) & (kKept - 1)] : 256;
}

MixerContexts::MixerContexts(const Spelling& spelling, int hashed, int matches)
    : spelling_(spelling),
      hashed_(hashed),
      tokens_(kRemembered),
      after_one_(std::size_t{1} << kAfterBits),
      after_two_(std::size_t{1} << kAfterBits),
      after_words_(std::size_t{1} << kAfterBits),
      in_use_(matches),
      places_{ZeroPages<std::uint64_t>(1 << kPlaceBits), ZeroPages<std::uint64_t>(1 << kPlaceBits),
              ZeroPages<std::uint64_t>(1 << kPlaceBits)} {
  look();
}

void MixerContexts::push(std::uint32_t token) {
  const std::uint64_t one = mix(1, back(1)), two = mix(one, back(2)), words = mix(text_.word, text_.last_word);
  const auto followed = [token](std::uint32_t& last) { last = last << 16 | (token & 0xFFFF); };
  followed(after_one_[one >> (64 - kAfterBits)]);
  followed(after_two_[two >> (64 - kAfterBits)]);
  if (hashed_ > kHashedBesides) followed(after_words_[words >> (64 - kAfterBits)]);
  for (int m = 0; m < in_use_; ++m) {
    Match& match = matches_[m];
    if (!match.found) continue;
    const bool right = at(match.place++) == token;
    match.length = right ? match.length + 1 : 0;
    match.missed = match.length >= kTrusted ? 0 : match.missed + !right;
    match.found = match.missed <= kMostMissed;
  }
  tokens_.data()[size_++ & (kRemembered - 1)] = token;
  const auto places = places_of(back(1), 2);
  for (int m = 0; m < in_use_; ++m) match(m, places_[m].data()[places[m]]);
  for (std::uint32_t i = spelling_.offsets[token]; i < spelling_.offsets[token + 1]; ++i) {
    text_.add(static_cast<unsigned char>(spelling_.bytes[i]));
  }
  look();
}

void MixerContexts::prefetch(std::uint32_t token) {
  const std::uint64_t t1 = token + std::uint64_t{1}, one = mix(1, t1), two = mix(one, back(1));
  NGRAM_PREFETCH(&after_one_[one >> (64 - kAfterBits)]);
  NGRAM_PREFETCH(&after_two_[two >> (64 - kAfterBits)]);
  const auto places = places_of(t1, 1);
  for (int m = 0; m < in_use_; ++m) NGRAM_PREFETCH(places_[m].data() + places[m]);
}

// Where `places_` has the last tokens: `newest`, and those before it from the k-th last on.
std::array<std::uint64_t, kMostMatches> MixerContexts::places_of(std::uint64_t newest, int k) const {
  std::array<std::uint64_t, kMostMatches> places{};
  std::uint64_t hash = mix(0, newest);
  int tokens = 1;
  for (int m = 0; m < in_use_; ++m) {
    for (; tokens < kMatch[m]; ++tokens) hash = mix(hash, back(k++));
    places[m] = hash >> (64 - kPlaceBits);
  }
  return places;
}

// Looks for a match where none is under way, or one that has just failed.
void MixerContexts::match(int m, std::uint64_t& place) {
  if (size_ < static_cast<std::uint64_t>(kMatch[m])) return;
  Match& match = matches_[m];
  if ((!match.found || match.length < kMatch[m]) && place > 0 && size_ - place < kRemembered - kLongest) {
    const auto most = static_cast<int>(std::min<std::uint64_t>(kLongest, place));
    int same = 0;
    while (same < most && at(place - 1 - same) == at(size_ - 1 - same)) ++same;
    if (same >= kMatch[m]) match = {true, place, same, 0};
  }
  place = size_;
}

// What a match says comes next, and how long it is; 0 without one.
std::uint64_t MixerContexts::expectation(int m) const {
  const Match& match = matches_[m];
  return match.found ? (expected(m) + std::uint64_t{1}) << 8 | std::min(match.length, 24) : 0;
}

void MixerContexts::look() {
  const std::uint64_t t1 = back(1), t2 = back(2), t3 = back(3), t4 = back(4);
  const std::uint64_t one = mix(1, t1), two = mix(one, t2), three = mix(two, t3), four = mix(three, t4);
  const Text& text = text_;
  const std::uint64_t words = mix(text.word, text.last_word);
  const std::uint64_t above = text.above(0), above_two = above << 9 | text.above(1);
  const auto last = [&text](int n) { return text.bytes & ((std::uint64_t{1} << 8 * n) - 1); };
  int known = 0;
  const auto add = [&](std::initializer_list<std::uint64_t> contexts) {
    for (const std::uint64_t context : contexts) now_.hashed[known] = mix(known + 1, context), ++known;
  };
  add({
      // those of `mixer-fast`
      two,
      words,
      three,
      text.word,
      last(5),
      mix(mix(four, back(5)), back(6)),
      mix(after_one_[one >> (64 - kAfterBits)], t1),
      mix(text.indent, text.first),
      mix(above, text.column()),
  });
  if (hashed_ > known) {
    add({
        // and of `mixer`
        mix(after_two_[two >> (64 - kAfterBits)], t1),
        last(2),
        mix(text.indent, last(1)),
        0,
        t2,
        last(3),
        mix(above_two, last(1)),
        mix(text.word, text.between),
        mix(text.word, text.capital),
    });
  }
  if (hashed_ > kHashedBesides) {
    add({
        // and of `mixer-max`
        mix(t3, t4),
        mix(text.last_word, text.word_before),
        expectation(0),
        mix(expectation(1), last(1)),
        mix(text.word, text.word_before),
        mix(text.first, text.word),
        mix(text.last_word, t1),
        mix(after_words_[words >> (64 - kAfterBits)], t1),
        mix(mix(text.first_word_above, std::min<std::uint64_t>(text.column(), 30)), t1),
        mix(text.column(), last(1)),
        mix(text.length_above, text.column()),
        text.bytes >> 8 & 0xFFFF,
        text.bytes >> 16 & 0xFFFF,
        mix(text.word, text.two_before),
        mix(text.word, text.indent),
        mix(t2, t3),
        mix(t1, t3),
        mix(text.word, text.long_word),
        mix(mix(text.word, text.kinds[1]), text.kinds[2]),
    });
  }
  now_.direct = {mix(101, 0), mix(102, t1), mix(103, two), mix(104, text.word)};
  now_.token = mix(105, t1);
  now_.word = mix(106, text.word);
  now_.bytes = text.bytes;
  now_.column = text.column();
}

}  // namespace ngram
