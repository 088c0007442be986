// Where the children of a node are found by their token: an open hash table that keeps whole keys in 8 bytes an entry.
//
// A key is a parent and a token, 51 bits. It is scrambled one to one; the first b of the scrambled bits name the place
// where it is sought in a table of 2^b entries, so an entry holds only the other 51 - b, how many places further it had
// to go (11 bits) and the child (b + 2 bits). Equal entries mean equal keys: no node is read to compare them, and a table
// twice as large is filled from the old one in order, without a random access.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "common/zero_pages.h"
#include "exact/evidence.h"

namespace ngram {

class ChildIndex {
 public:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  explicit ChildIndex(int bits = 12)
      : bits_(bits), entries_(std::make_unique<ZeroPages<std::uint64_t>>(std::size_t{1} << bits)) {}

  ChildIndex(const ChildIndex& other)
      : bits_(other.bits_), used_(other.used_), entries_(std::make_unique<ZeroPages<std::uint64_t>>(*other.entries_)) {}
  ChildIndex(ChildIndex&&) = default;
  ChildIndex& operator=(ChildIndex&&) = default;

  // Where the search for a child begins, to be requested ahead of it.
  const void* home(std::uint32_t parent, std::uint32_t token) const {
    return entries_->data() + (scrambled(parent, token) >> (64 - bits_));
  }

  std::uint32_t find(std::uint32_t parent, std::uint32_t token) const {
    const std::uint64_t key = scrambled(parent, token);
    const std::uint64_t home = key >> (64 - bits_), id_mask = (std::uint64_t{4} << bits_) - 1;
    std::uint64_t tag = tag_of(key);
    for (std::uint64_t further = 0;; ++further, ++tag) {
      const std::uint64_t entry = entries_->data()[place(home, further)];
      if (entry == 0) return kNone;
      if (entry >> (bits_ + 2) == tag) return static_cast<std::uint32_t>(entry & id_mask);
    }
  }

  // Of a key that is not there; `id` is not 0.
  void insert(std::uint32_t parent, std::uint32_t token, std::uint32_t id) {
    // At most half full: most look-ups are of n-grams that are new.
    while (used_ * 2 >= entries_->size() || id >> 2 >= entries_->size()) grow();
    while (!put(scrambled(parent, token), id)) grow();
  }

  // Makes room for `more` children at once: growing on the way costs as much as half of them.
  void reserve(std::uint64_t more) {
    while ((used_ + more) * 2 >= entries_->size()) grow();
  }

  std::uint64_t bytes() const { return entries_->size() * sizeof(std::uint64_t); }

 private:
  static constexpr std::uint64_t kInLine = 7;  // entries of a cache line, less one
  static constexpr int kFurtherBits = 11;
  static constexpr int kUnused = 64 - 32 - kTokenBits;  // bits of 64 that a key leaves
  static_assert(kUnused == kFurtherBits + 2);           // an entry leaves none

  // A permutation of the keys: both steps can be undone. The key's bits are the upper ones.
  static std::uint64_t scrambled(std::uint32_t parent, std::uint32_t token) {
    std::uint64_t key = (std::uint64_t{parent} << kTokenBits | token) << kUnused;
    key *= 0x9E3779B97F4A7C15u;
    key = (key ^ key >> 29) >> kUnused << kUnused;
    return key * 0xBF58476D1CE4E5B9u;
  }

  // What an entry holds above its child, if it lies at home.
  std::uint64_t tag_of(std::uint64_t key) const { return key << bits_ >> (bits_ + kUnused) << kFurtherBits; }

  // The entries of home's cache line are tried first, then those of the next line.
  std::uint64_t place(std::uint64_t home, std::uint64_t further) const {
    return ((home & ~kInLine) + (further & ~kInLine) + ((home + further) & kInLine)) & (entries_->size() - 1);
  }

  // False if the key would lie too far from home.
  bool put(std::uint64_t key, std::uint32_t id) {
    const std::uint64_t home = key >> (64 - bits_);
    std::uint64_t further = 0;
    while (entries_->data()[place(home, further)] != 0) ++further;
    if (further >> kFurtherBits) return false;
    entries_->data()[place(home, further)] = (tag_of(key) | further) << (bits_ + 2) | id;
    ++used_;
    return true;
  }

  // Puts everything that is here into `larger`; false if something would lie too far from home there.
  bool moved_to(ChildIndex& larger) const {
    for (std::uint64_t at = 0; at < entries_->size(); ++at) {
      const std::uint64_t entry = entries_->data()[at];
      if (entry == 0) continue;
      const std::uint64_t further = entry >> (bits_ + 2) & ((1 << kFurtherBits) - 1);
      const std::uint64_t home = ((at & ~kInLine) - (further & ~kInLine) + ((at - further) & kInLine));
      const std::uint64_t rest = entry >> (bits_ + 2 + kFurtherBits) << kUnused;
      const auto id = static_cast<std::uint32_t>(entry & ((std::uint64_t{4} << bits_) - 1));
      if (!larger.put(home << (64 - bits_) | rest, id)) return false;
    }
    return true;
  }

  void grow() {
    for (int bits = bits_ + 1;; ++bits) {
      ChildIndex larger(bits);
      if (!moved_to(larger)) continue;
      *this = std::move(larger);
      return;
    }
  }

  int bits_;
  std::uint64_t used_ = 0;
  std::unique_ptr<ZeroPages<std::uint64_t>> entries_;
};

}  // namespace ngram
