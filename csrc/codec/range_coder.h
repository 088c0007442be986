// A range coder in 64 bits without carries (Martin, 1979; Subbotin, 1999): writes what has a share of 2^32 in about
// -log2(share / 2^32) bits. `ngram_eval/codec/range_coder.py` is the specification; every byte equals it.
//
// What is left of the interval is [low, low + range). Its leading bytes are written as soon as they are settled. Where it
// lies across a border of 2^56 and gets shorter than 2^40, it is cut at a border of 2^40 (once in 2^16 bytes or so), which
// costs a few bits and spares a carry.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ngram {

inline constexpr std::uint64_t kWhole = std::uint64_t{1} << 32;

// A share of the whole.
struct Share {
  std::uint64_t low, size;
};

// That of a decision's outcome: 1 has the first `one` of the whole, at least 1 and not all.
inline Share share_of(int bit, double one) {
  const auto ones = static_cast<std::uint64_t>(one * static_cast<double>(kWhole));
  const std::uint64_t border = std::clamp<std::uint64_t>(ones, 1, kWhole - 1);
  return bit ? Share{0, border} : Share{border, kWhole - border};
}

// Shares of symbols, each at least 1: borders of what sums from the left come to.
class Shares {
 public:
  // Of V probabilities, to rounding.
  void set(const double* p, std::size_t vocab_size) {
    sums_.resize(vocab_size);
    double sum = 0.0;
    for (std::size_t i = 0; i < vocab_size; ++i) sums_[i] = sum += p[i];
    spare_ = static_cast<double>(kWhole - vocab_size);
    scale_ = spare_ / sum;
  }

  Share of(std::size_t symbol) const { return {border(symbol), border(symbol + 1) - border(symbol)}; }

  // The symbol whose share holds `at`, below 2^32.
  std::size_t at(std::uint64_t at) const {
    std::size_t low = 0, high = sums_.size();
    while (high - low > 1) {
      const std::size_t mid = (low + high) / 2;
      (border(mid) <= at ? low : high) = mid;
    }
    return low;
  }

 private:
  // Where the share of a symbol begins.
  std::uint64_t border(std::size_t symbol) const {
    if (symbol == 0) return 0;
    if (symbol == sums_.size()) return kWhole;
    return symbol + static_cast<std::uint64_t>(std::min(sums_[symbol - 1] * scale_, spare_));
  }

  std::vector<double> sums_;
  double spare_ = 0.0, scale_ = 0.0;
};

// What writer and reader have in common.
class Interval {
 protected:
  static constexpr std::uint64_t kTop = std::uint64_t{1} << 56, kShortest = std::uint64_t{1} << 40;

  void narrow(Share share) {
    range_ >>= 32;
    low_ += share.low * range_;
    range_ *= share.size;
  }

  // Whether the leading byte is settled, or made so; the next byte is then the leading one.
  bool next_byte() {
    if ((low_ ^ (low_ + range_)) >= kTop) {
      if (range_ >= kShortest) return false;
      range_ = -low_ & (kShortest - 1);
    }
    return true;
  }

  void shift() {
    low_ <<= 8;
    range_ <<= 8;
  }

  std::uint64_t low_ = 0, range_ = ~std::uint64_t{0};
};

class RangeEncoder : Interval {
 public:
  void code(Share share) {
    narrow(share);
    while (next_byte()) {
      bytes_.push_back(static_cast<char>(low_ >> 56));
      shift();
    }
  }

  // All bytes: as few more as say, whatever follows them, that the end is within the interval. Nothing is coded after.
  const std::string& finish() {
    int bits = 64;
    std::uint64_t end = low_;
    do {
      bits -= 8;
      const std::uint64_t rest = (std::uint64_t{1} << bits) - 1;
      end = (low_ + rest) & ~rest;
      if (end >= low_ && end - low_ <= range_ && range_ - (end - low_) > rest) break;
    } while (bits > 0);
    for (int shift = 56; shift >= bits; shift -= 8) bytes_.push_back(static_cast<char>(end >> shift));
    return bytes_;
  }

 private:
  std::string bytes_;
};

class RangeDecoder : Interval {
 public:
  explicit RangeDecoder(std::string bytes) : bytes_(std::move(bytes)) {
    for (int i = 0; i < 8; ++i) read();
  }

  int bit(double one) {
    const Share ones = share_of(1, one);
    const int bit = code_ - low_ < ones.size * (range_ >> 32);
    take(share_of(bit, one));
    return bit;
  }

  std::size_t symbol(const Shares& shares) {
    const std::size_t found = shares.at(std::min((code_ - low_) / (range_ >> 32), kWhole - 1));
    take(shares.of(found));
    return found;
  }

  // Bytes that were read beyond the end; more than 7 were never written.
  std::size_t beyond() const { return at_ - std::min(at_, bytes_.size()); }

 private:
  void take(Share share) {
    narrow(share);
    while (next_byte()) {
      read();
      shift();
    }
  }

  void read() {
    code_ = code_ << 8 | (at_ < bytes_.size() ? static_cast<std::uint8_t>(bytes_[at_]) : 0);
    ++at_;
  }

  std::string bytes_;
  std::size_t at_ = 0;
  std::uint64_t code_ = 0;
};

}  // namespace ngram
