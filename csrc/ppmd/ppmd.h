// A language model mixed byte by byte with a byte-level PPM-D. `ngram_eval/scorers/ppmd/reference.py` is the
// specification; every number equals its, bit for bit.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace ngram {

inline constexpr int kMostByteOrder = 7;  // contexts of up to 6 bytes: with the next byte 7, so that ~0 is no key

// Open addressing, a power of two of slots; a slot whose key is ~0 is free.
template <class Value>
class ByteTable {
 public:
  Value find(std::uint64_t key) const {
    const Slot& slot = slots_[place(key)];
    return slot.key == key ? slot.value : Value{};
  }

  Value& get(std::uint64_t key) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[place(key)];
    if (slot.key != key) slot = {key, Value{}}, ++size_;
    return slot.value;
  }

 private:
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = kFree;
    Value value{};
  };

  std::size_t place(std::uint64_t key) const {
    std::uint64_t hash = key * 0x9E3779B97F4A7C15u;
    std::size_t at = (hash ^ hash >> 32) & (slots_.size() - 1);
    while (slots_[at].key != key && slots_[at].key != kFree) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.key != kFree) slots_[place(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_ = std::vector<Slot>(16);
  std::size_t size_ = 0;
};

// What has followed a context.
struct Followers {
  std::uint32_t total = 0, distinct = 0, most = 0;  // `most`: the largest count of one byte
};

struct PpmdConfig {
  int max_order;     // contexts of max_order - 1 bytes, and all shorter ones
  bool target_gate;  // confidence is what PPM-D says of the byte that came, not of the likeliest
  bool marginal;     // the model's share of a byte: by sums over tokens, not by the token's root
  double sure_above;
  double weight, weight_sure;  // of the model
};

// A vocabulary's bytes, sorted.
struct ByteSpelling {
  explicit ByteSpelling(std::vector<std::string> of);

  std::vector<std::string> surfaces;
  std::vector<std::uint32_t> sorted, rank;  // tokens by their bytes, then by number; the place of each
  std::vector<std::uint32_t> shared;        // bytes that sorted[i] begins with as sorted[i - 1] does
};

// Probability of the tokens that begin with some bytes, and of those that go on after them.
struct Mass {
  double all, longer;
};

// A byte of a token that is looked at.
struct ByteStep {
  double ppm, weight;  // PPM-D's value, and the model's weight
  int longest, used;   // orders: of the longest context with data, and of the one that had the byte; 0: none
  Mass mass;           // of the bytes up to it; only with `marginal`
};

class Ppmd {
 public:
  Ppmd(const PpmdConfig& config, std::vector<std::string> surfaces, std::vector<std::string> bare);

  const PpmdConfig& config() const { return config_; }
  std::uint32_t vocab_size() const { return static_cast<std::uint32_t>(spelled_.surfaces.size()); }

  // Counts a token's bytes.
  void append(std::uint32_t token);
  // Charges a token and counts its bytes: the value, the order, the n-grams' mean weight. `row`: with `marginal`.
  double score(std::uint32_t token, double p, const double* row, std::uint8_t* order, double* weight);
  // What each token would be charged; `target`, if there is one, chooses all weights. (V,) each.
  void distribution(const double* row, const std::uint32_t* target, double* values) const;
  // Of each order for the token's first byte: occurrences, different bytes, the byte's. Shares of the whole token, first of no order.
  void evidence(std::uint32_t token, std::int64_t* occurred, std::int64_t* distinct, std::int64_t* followed,
                double* shares) const;

 private:
  // The bytes so far and those that are only supposed.
  struct Past {
    std::uint64_t bytes, length;
    std::uint64_t context(int order) const { return bytes & ((std::uint64_t{1} << 8 * (order - 1)) - 1); }
    int orders(int most) const {
      return length < static_cast<std::uint64_t>(most) ? static_cast<int>(length) + 1 : most;
    }
    Past with(std::uint8_t byte) const { return {bytes << 8 | byte, length + 1}; }
  };
  // A byte that is supposed to have come after a past.
  struct Supposed {
    Past after;
    std::uint8_t byte;
  };

  const ByteSpelling& spelling() const { return silent_ ? bare_ : spelled_; }
  std::uint32_t count(int order, std::uint64_t context, std::uint8_t byte, const Supposed* path, std::size_t n) const;
  Followers followers(int order, std::uint64_t context, const Supposed* path, std::size_t n) const;
  ByteStep look(const Past& past, std::uint8_t byte, const Supposed* path, std::size_t n) const;
  std::vector<ByteStep> steps(std::uint32_t token) const;
  Mass mass(const double* row, std::uint32_t place, std::size_t depth) const;
  double value(double p, const std::vector<ByteStep>& steps, const Mass& root) const;
  void push(std::uint8_t byte);

  PpmdConfig config_;
  ByteSpelling spelled_, bare_;  // bare: after a token that spells nothing
  std::array<ByteTable<Followers>, kMostByteOrder> contexts_;
  std::array<ByteTable<std::uint32_t>, kMostByteOrder> counts_;  // by the context and the byte after it
  Past past_{0, 0};
  bool silent_ = false;  // the last token spelled nothing
};

}  // namespace ngram
