#include "mixer/contexts.h"

#include <algorithm>

#include "common/prefetch.h"

namespace ngram {
namespace {

constexpr int kAfterBits = 18;

// Letters, digits, apostrophes and whatever is not ASCII.
bool in_word(unsigned char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') || byte == '\'' ||
         byte >= 128;
}

}  // namespace

MixerContexts::MixerContexts(const Spelling& spelling)
    : spelling_(spelling),
      tokens_(kRemembered),
      after_one_(std::size_t{1} << kAfterBits),
      after_two_(std::size_t{1} << kAfterBits),
      places_(std::size_t{1} << kPlaceBits) {
  look();
}

void MixerContexts::push(std::uint32_t token) {
  const std::uint64_t one = mix(1, back(1)), two = mix(one, back(2));
  for (auto* followed : {&after_one_[one >> (64 - kAfterBits)], &after_two_[two >> (64 - kAfterBits)]}) {
    *followed = *followed << 16 | (token & 0xFFFF);
  }
  matched_ = matched_ > 0 && expected() == token ? matched_ + 1 : 0;
  ++place_;
  tokens_.data()[size_++ & (kRemembered - 1)] = token;
  match();
  spell(token);
  look();
}

void MixerContexts::prefetch(std::uint32_t token) {
  const std::uint64_t t1 = token + std::uint64_t{1}, one = mix(1, t1), two = mix(one, back(1));
  NGRAM_PREFETCH(&after_one_[one >> (64 - kAfterBits)]);
  NGRAM_PREFETCH(&after_two_[two >> (64 - kAfterBits)]);
  NGRAM_PREFETCH(places_.data() + place_of(t1, 1));
}

// Where `places_` has the last tokens: `newest`, and those before it from the k-th last on.
std::uint64_t MixerContexts::place_of(std::uint64_t newest, int k) const {
  std::uint64_t hash = mix(0, newest);
  for (const int stop = k + kMatch - 1; k < stop; ++k) hash = mix(hash, back(k));
  return hash >> (64 - kPlaceBits);
}

// Looks for a repetition where none is under way.
void MixerContexts::match() {
  if (size_ < kMatch) return;
  std::uint64_t& place = places_.data()[place_of(back(1), 2)];
  if (matched_ == 0 && place > 0 && size_ - place < kRemembered - kLongest) {
    const auto most = static_cast<int>(std::min<std::uint64_t>(kLongest, place));
    int same = 0;
    while (same < most && at(place - 1 - same) == at(size_ - 1 - same)) ++same;
    if (same >= kMatch) matched_ = same, place_ = place;
  }
  place = size_;
}

void MixerContexts::spell(std::uint32_t token) {
  for (std::uint32_t i = spelling_.offsets[token]; i < spelling_.offsets[token + 1]; ++i) {
    const auto byte = static_cast<unsigned char>(spelling_.bytes[i]);
    bytes_ = bytes_ << 8 | byte;
    if (in_word(byte)) {
      word_ = mix(word_ + 1, byte | 32);  // capitals as small letters
    } else if (word_ != 0) {
      word_before_ = last_word_, last_word_ = word_, word_ = 0;
    }
  }
}

void MixerContexts::look() {
  const std::uint64_t t1 = back(1), t2 = back(2), t3 = back(3), t4 = back(4);
  const std::uint64_t one = mix(1, t1), two = mix(one, t2), three = mix(two, t3), four = mix(three, t4);
  const auto last = [this](int n) { return bytes_ & ((std::uint64_t{1} << 8 * n) - 1); };
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
  };
  for (int k = 0; k < kMostHashed; ++k) now_.hashed[k] = mix(k + 1, contexts[k]);
  now_.direct = {mix(101, 0), mix(102, t1), mix(103, two), mix(104, word_)};
  now_.token = mix(105, t1);
  now_.word = mix(106, word_);
}

}  // namespace ngram
