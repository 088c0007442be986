#include "mixer/mixer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/clones.h"
#include "common/portable_math.h"
#include "common/prefetch.h"

namespace ngram {
namespace {

constexpr BitHistories kHistories = bit_histories();
constexpr BitHistoryTables kTables = tables_of(kHistories);

constexpr float kConstantInput = 0.3f;
constexpr float kRate = 0.006f, kFirstRate = 0.02f, kRateTokens = 20000.0f;  // of the first layer, falling
constexpr float kLastRate = 0.0005f, kMapRate = 0.02f;
constexpr float kLogitLimit = 11.99f;
constexpr float kLeastMixed = 1.0f / 65536;
constexpr double kLeast = 1.0 / (1 << 22);
constexpr std::uint32_t kStateLimit = 255, kDirectLimit = 250, kRepetitionLimit = 1000;

// ln(p / (1 - p)) from +, -, x, / alone, to 1e-9, within the limit.
double logit(double p) {
  const double odds = p / (1.0 - p);
  if (!(odds > 6.2e-6)) return -kLogitLimit;
  if (odds > 1.6e5) return kLogitLimit;
  const auto bits = std::bit_cast<std::uint64_t>(odds);
  int exponent = static_cast<int>(bits >> 52) - 1022;
  double m = std::bit_cast<double>((bits & ~(std::uint64_t{2047} << 52)) | std::uint64_t{1022} << 52);  // in [1/2, 1)
  if (m < 0.70710678118654752) m *= 2.0, --exponent;
  const double s = (m - 1.0) / (m + 1.0), square = s * s;
  double series = 1.0 / 13.0;
  for (const double divisor : {11.0, 9.0, 7.0, 5.0, 3.0, 1.0}) series = 1.0 / divisor + square * series;
  return exponent * 0.69314718055994531 + 2.0 * s * series;
}

const std::array<float, 4096> kLogits = [] {
  std::array<float, 4096> logits{};
  for (int i = 0; i < 4096; ++i) logits[i] = static_cast<float>(logit((i + 0.5) / 4096));
  return logits;
}();

typedef float Lanes __attribute__((vector_size(32), aligned(4)));

NGRAM_INLINE float clipped(float z) { return std::min(kLogitLimit, std::max(-kLogitLimit, z)); }

// The sum of products in eight columns, then of the columns.
NGRAM_INLINE float dot(const float* a, const float* b, int n) {
  Lanes sum = {};
  for (int i = 0; i < n; i += 8) sum += *reinterpret_cast<const Lanes*>(a + i) * *reinterpret_cast<const Lanes*>(b + i);
  return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

NGRAM_INLINE void move(float* weights, const float* inputs, float by, int n) {
  const Lanes step = {by, by, by, by, by, by, by, by};
  for (int i = 0; i < n; i += 8) {
    *reinterpret_cast<Lanes*>(weights + i) += step * *reinterpret_cast<const Lanes*>(inputs + i);
  }
}

NGRAM_INLINE void squash(const float* logits, float* p) {
  Four z;
  std::memcpy(&z, logits, sizeof z);
  const Four result = logistic(z);
  std::memcpy(p, &result, sizeof result);
}

std::vector<float> untouched_map(std::size_t rows, int cells) {
  std::vector<float> map(rows * cells);
  for (int cell = 0; cell < cells; ++cell) {
    const float z[4] = {static_cast<float>(cell - cells / 2) * 0.5f};
    float p[4];
    squash(z, p);
    for (std::size_t row = 0; row < rows; ++row) map[row * cells + cell] = p[0];
  }
  return map;
}

}  // namespace

Mixer::Mixer(const MixerConfig& config, Spelling spelling)
    : config_(config),
      spelling_(std::move(spelling)),
      by_rank_(spelling_.rank.size()),
      past_(spelling_),
      width_((kFirstHashed + config.hashed + kLanes - 1) / kLanes * kLanes),
      groups_(config.groups * kGroupBytes),
      line_mask_(config.groups / (kLineBytes / kGroupBytes) - 1),
      direct_(std::max<std::uint64_t>(config.groups / 16, 1) * kGroupBytes),
      direct_mask_(std::max<std::uint64_t>(config.groups / 16, 1) - 1),
      maps_(std::size_t{256} * config.hashed),
      below_(spelling_.rank.size() + 1) {
  const std::size_t vocab = by_rank_.size();
  for (std::size_t token = 0; token < vocab; ++token) {
    by_rank_[spelling_.rank[token]] = static_cast<std::uint32_t>(token);
  }
  for (int k = 0; k < config.hashed; ++k) {
    for (int s = 0; s < kHistories.size; ++s) {
      const BitHistory& history = kHistories.state[s];
      maps_[k * 256 + s] = Estimate((history.ones + 0.4) / (history.total() + 0.8));
    }
  }
  for (int i = 0; i < 32 * 2; ++i) {
    repetitions_.emplace_back(0.1);
    repetitions_.emplace_back(0.9);
  }
  const std::array<std::size_t, kMostSets> rows = {vocab, std::size_t{1} << kHashedSets, std::size_t{1} << kHashedSets,
                                                   768, 16 * 5 * 4};
  for (int m = 0; m < config.sets; ++m) {
    weights_[m].assign(rows[m] * width_, 0.0f);
    for (std::size_t row = 0; row < rows[m]; ++row) {
      float* const w = weights_[m].data() + row * width_;
      std::fill(w + kConstant, w + kFirstHashed + config.hashed, config.weight);
      w[kNeural] = 1.0f;
    }
  }
  last_weights_.assign(vocab * kLanes, 0.0f);
  for (std::size_t row = 0; row < vocab; ++row) {
    std::fill_n(last_weights_.data() + row * kLanes, config.sets, 1.0f / static_cast<float>(config.sets));
  }
  last_maps_[0] = untouched_map(vocab, kCells);
  last_maps_[1] = untouched_map(std::size_t{1} << kHashedMaps, kCells);
}

Mixer::Hashes Mixer::hashes(std::uint32_t mid) const {
  const Contexts& contexts = past_.now();
  Hashes found;
  for (int k = 0; k < config_.hashed; ++k) found[k] = mix(contexts.hashed[k], mid);
  for (int k = 0; k < kDirect; ++k) found[kMostHashed + k] = mix(contexts.direct[k], mid);
  return found;
}

// The group whose first byte is the hash's low byte, 0 standing for 1; an empty one where there is none.
const std::uint8_t* Mixer::find(std::uint64_t hash) const {
  static constexpr std::array<std::uint8_t, kGroupBytes> empty{};
  const std::uint8_t* const here = line(hash);
  const auto check = static_cast<std::uint8_t>(std::max<std::uint64_t>(hash & 255, 1));
  for (int i = 0; i < kLineBytes; i += kGroupBytes) {
    if (here[i] == check) return here + i;
  }
  return empty.data();
}

// The same to write into: where there is none, the one of its line that was used least at its first node, emptied.
std::uint8_t* Mixer::take(std::uint64_t hash) {
  std::uint8_t* const here = groups_.data() + (hash >> 8 & line_mask_) * kLineBytes;
  const auto check = static_cast<std::uint8_t>(std::max<std::uint64_t>(hash & 255, 1));
  for (int i = 0; i < kLineBytes; i += kGroupBytes) {
    if (here[i] == check) return here + i;
  }
  int chosen = 0, least = 256;
  for (int i = 0; i < kLineBytes; i += kGroupBytes) {
    const int used = here[i] == 0 ? -1 : kTables.total[here[i + 1]];
    if (used < least) least = used, chosen = i;
  }
  std::memset(here + chosen, 0, kGroupBytes);
  here[chosen] = check;
  return here + chosen;
}

NGRAM_INLINE Mixer::Group Mixer::group(const Hashes& hashes) {
  Group found;
  for (int k = 0; k < config_.hashed; ++k) found.hashed[k] = find(hashes[k]);
  for (int k = 0; k < kDirect; ++k) found.direct[k] = direct_line(hashes[kMostHashed + k]);
  return found;
}

// Finds what the contexts hold below a node, where a group begins.
NGRAM_INLINE void Mixer::open(const Node& node, bool prefetched) {
  if (!node.starts_group()) return;
  Hashes& wanted = hashes_[node.depth / kLevels];
  if (!prefetched) wanted = hashes(node.mid());
  group_ = group(wanted);
}

void Mixer::sum_up(const double* row) {
  double sum = 0.0;
  for (std::size_t rank = 0; rank < by_rank_.size(); ++rank) below_[rank + 1] = sum += row[by_rank_[rank]];
}

// Asks for what the decisions of `token`, which comes next, will touch.
void Mixer::prefetch(std::uint32_t token) {
  const std::uint32_t leaf = spelling_.rank[token];
  Node node{0, vocab_size(), 0, 1};
  while (node.high - node.low > 1) {
    const std::uint32_t mid = node.mid();
    if (node.starts_group()) {
      const Hashes& wanted = hashes_[node.depth / kLevels] = hashes(mid);
      for (int k = 0; k < config_.hashed; ++k) NGRAM_PREFETCH(line(wanted[k]));
      for (int k = 0; k < kDirect; ++k) NGRAM_PREFETCH(direct_line(wanted[kMostHashed + k]));
    }
    const float* const map = last_maps_[1].data() + token_map(mid) * kCells;
    for (int i = 0; i < kCells; i += 16) NGRAM_PREFETCH(map + i);
    const std::size_t selected[2] = {word_set(node.depth), token_set(node.depth)};
    for (int m = 1; m < std::min(3, config_.sets); ++m) {
      const float* const weights = weights_[m].data() + selected[m - 1] * width_;
      for (int i = 0; i < width_; i += 16) NGRAM_PREFETCH(weights + i);
    }
    node.descend(leaf >= mid);
  }
}

// Before the first decision's outcome is known.
int Mixer::order() const {
  if (past_.size() == 0) return 0;
  constexpr std::array<std::pair<int, int>, 4> contexts = {{{5, 7}, {14, 5}, {2, 4}, {0, 3}}};  // (hashed, order)
  const Decision& first = decisions_[0];
  for (const auto& [k, order] : contexts) {
    if (first.states[k] != 0) return order;
  }
  return first.direct[1]->seen() ? 2 : 1;
}

// What the contexts and the repetition under way hold of a node.
NGRAM_INLINE void Mixer::look(const Node& node, const Group& group, Decision& decision) {
  const int hashed = config_.hashed, place = decision.place = node.place;
  for (int k = 0; k < hashed; ++k) decision.states[k] = group.hashed[k][place];
  for (int k = 0; k < kDirect; ++k) decision.direct[k] = group.direct[k] + place;
  decision.repetition = nullptr;
  const int length = past_.matched();
  if (length == 0) return;
  const std::uint32_t expected = spelling_.rank[past_.expected()];
  if (expected < node.low || expected >= node.high) return;  // it has already failed
  const int known = length < 16 ? length : std::min(31, 16 + (length - 16) / 4);
  decision.repetition = &repetitions_[(known * 2 + (node.depth > 0)) * 2 + (expected >= node.mid())];
}

NGRAM_INLINE void Mixer::predict(const Node& node, const Group& group, Decision& decision) {
  look(node, group, decision);
  const std::uint32_t mid = node.mid();
  auto& x = decision.inputs;
  x.fill(0.0f);
  const double whole = below_[node.high] - below_[node.low];
  decision.neural = whole > 0.0 ? (below_[node.high] - below_[mid]) / whole : 0.5;
  x[kNeural] = static_cast<float>(logit(decision.neural));
  x[kConstant] = kConstantInput;
  if (decision.repetition) x[kRepetition] = kLogits[decision.repetition->twelve_bits()];
  for (int k = 0; k < kDirect; ++k) x[kFirstDirect + k] = kLogits[decision.direct[k]->twelve_bits()];
  const auto& states = decision.states;
  const Estimate* map = maps_.data();
  const int hashed = config_.hashed, sets = config_.sets, width = width_;
  for (int k = 0; k < hashed; ++k, map += 256) {
    x[kFirstHashed + k] = states[k] ? kLogits[map[states[k]].twelve_bits()] : 0.0f;
  }

  const int length = past_.matched();
  const int repeats = decision.repetition == nullptr ? 0 : length < 8 ? 1 : length < 20 ? 2 : 3;
  const auto used = [&](int k) { return static_cast<int>(kTables.total[states[k]]); };
  const int sure = std::min(3, used(0) / 2) * 16 + std::min(3, used(1) / 2) * 4 + std::min(3, used(4) / 2);
  const int known = (states[5] != 0) + (states[7] != 0) + (states[2] != 0) + (states[0] != 0);
  const int neural = std::clamp(static_cast<int>(x[kNeural] + 8.0f), 0, 15);
  const std::array<std::uint64_t, kMostSets> selected = {
      mid,
      word_set(node.depth),
      token_set(node.depth),
      static_cast<std::uint64_t>((sure * 3 + std::min(2, used(3))) * 4 + repeats),
      static_cast<std::uint64_t>((neural * 5 + known) * 4 + repeats),
  };
  decision.logits.fill(0.0f);
  for (int m = 0; m < sets; ++m) {
    decision.weights[m] = weights_[m].data() + selected[m] * width;
    decision.logits[m] = clipped(dot(decision.weights[m], x.data(), width));
  }
  squash(decision.logits.data(), decision.p.data());
  squash(decision.logits.data() + 4, decision.p.data() + 4);

  decision.last_weights = last_weights_.data() + std::size_t{mid} * kLanes;
  const float z[4] = {clipped(dot(decision.last_weights, decision.logits.data(), kLanes))};
  float p[4];
  squash(z, p);
  decision.mixed = p[0];
  const float at = (std::min(7.999f, std::max(-7.999f, z[0])) + 8.0f) * 2.0f;
  const int cell = static_cast<int>(at);
  decision.right = at - static_cast<float>(cell);
  decision.cells = {last_maps_[0].data() + std::size_t{mid} * kCells + cell,
                    last_maps_[1].data() + token_map(mid) * kCells + cell};
  float maps = 0.0f;
  for (const float* const c : decision.cells) maps += c[0] * (1.0f - decision.right) + c[1] * decision.right;
  decision.fixed = std::min(1.0f - kLeastMixed, std::max(kLeastMixed, 0.5f * decision.mixed + 0.25f * maps));
}

// What a 1 is charged with where the neural model has this weight.
NGRAM_INLINE double Mixer::charge(const Decision& decision, double weight) {
  const double one = weight * decision.neural + (1.0 - weight) * decision.fixed;
  return std::min(1.0 - kLeast, std::max(kLeast, one));
}

// The neural model's weight once the outcome is known.
NGRAM_INLINE double Mixer::told(const Decision& decision, double weight, double one, int bit) {
  const double believed = bit ? decision.neural : 1.0 - decision.neural, charged = bit ? one : 1.0 - one;
  return std::min(1.0, weight * believed / charged);
}

// Moves what the neural model has a part in, by the token's decisions.
NGRAM_INLINE void Mixer::learn(int decisions) {
  const double share = 1.0 / (switch_.charged + 2.0);
  switch_ = {(1.0 - share) * weight_ + 0.5 * share, switch_.charged + 1.0};
  const float rate = kRate + (kFirstRate - kRate) / (1.0f + static_cast<float>(past_.size()) / kRateTokens);
  const int sets = config_.sets, width = width_;
  for (int i = 0; i < decisions; ++i) {
    const Decision& decision = decisions_[i];
    const auto outcome = static_cast<float>(decision.bit);
    for (float* const c : decision.cells) {
      c[0] += (outcome - c[0]) * kMapRate * (1.0f - decision.right);
      c[1] += (outcome - c[1]) * kMapRate * decision.right;
    }
    for (int m = 0; m < sets; ++m) {
      move(decision.weights[m], decision.inputs.data(), (outcome - decision.p[m]) * rate, width);
    }
    move(decision.last_weights, decision.logits.data(), (outcome - decision.mixed) * kLastRate, kLanes);
  }
}

// Moves what it has none in, and takes in the token.
NGRAM_INLINE void Mixer::count(int decisions) {
  const int hashed = config_.hashed;
  std::array<std::uint8_t*, kMostHashed> taken{};
  for (int i = 0; i < decisions; ++i) {
    const Decision& decision = decisions_[i];
    if (i % kLevels == 0) {
      for (int k = 0; k < hashed; ++k) taken[k] = take(hashes_[i / kLevels][k]);
    }
    const int bit = decision.bit, place = decision.place;
    const auto states = decision.states;  // copies: what is written below may lie anywhere
    const auto& next = kTables.next[bit];
    for (int k = 0; k < hashed; ++k) taken[k][place] = next[states[k]];
    Estimate* map = maps_.data();
    for (int k = 0; k < hashed; ++k, map += 256) map[states[k]].update(bit, kStateLimit);
    for (Estimate* const estimate : decision.direct) estimate->update(bit, kDirectLimit);
    if (decision.repetition) decision.repetition->update(bit, kRepetitionLimit);
  }
  past_.push(token());
}

NGRAM_CLONES double Mixer::step(std::uint32_t token, bool prefetched, std::uint8_t* order, Decisions* decisions) {
  const std::uint32_t leaf = spelling_.rank[token];
  double p = 1.0;
  weight_ = switch_.neural;
  for (node_ = {0, vocab_size(), 0, 1}; !token_known();) {
    open(node_, prefetched);
    Decision& decision = decisions_[node_.depth];
    predict(node_, group_, decision);
    decision.bit = leaf >= node_.mid();
    const double one = charge(decision, weight_);
    weight_ = told(decision, weight_, one, decision.bit);
    p *= decision.bit ? one : 1.0 - one;
    if (decisions) {
      decisions->bits.push_back(static_cast<std::uint8_t>(decision.bit));
      decisions->ones.push_back(one);
    }
    node_.descend(decision.bit);
  }
  *order = static_cast<std::uint8_t>(this->order());
  learn(node_.depth);
  count(node_.depth);
  return p;
}

template <class Token>
void Mixer::append(const Token* tokens, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t leaf = spelling_.rank[tokens[i]];
    for (node_ = {0, vocab_size(), 0, 1}; !token_known();) {
      open(node_, i > 0);
      Decision& decision = decisions_[node_.depth];
      look(node_, group_, decision);
      decision.bit = leaf >= node_.mid();
      node_.descend(decision.bit);
    }
    count(node_.depth);
    if (i + 1 < n) prefetch(tokens[i + 1]);
  }
}

template <class Token>
void Mixer::score(const Token* tokens, std::int64_t n, const double* rows, std::int64_t stride, double* p,
                  std::uint8_t* order, Decisions* decisions) {
  for (std::int64_t i = 0; i < n; ++i) {
    if (i == 0 || stride > 0) sum_up(rows + i * stride);
    p[i] = step(tokens[i], i > 0, order + i, decisions);
    if (i + 1 < n) prefetch(tokens[i + 1]);
  }
}

void Mixer::distribution(const double* row, double* p) {
  struct Open {
    Node node;
    Group group;
    double weight, p;
  };
  sum_up(row);
  std::vector<Open> open{{{0, vocab_size(), 0, 1}, {}, switch_.neural, 1.0}};
  Decision decision{};
  while (!open.empty()) {
    Open at = open.back();
    open.pop_back();
    if (at.node.high - at.node.low == 1) {
      p[by_rank_[at.node.low]] = at.p;
      continue;
    }
    if (at.node.starts_group()) at.group = group(hashes(at.node.mid()));
    predict(at.node, at.group, decision);
    const double one = charge(decision, at.weight);
    for (int bit = 0; bit < 2; ++bit) {
      Open& next = open.emplace_back(at);
      next.p *= bit ? one : 1.0 - one;
      next.weight = told(decision, at.weight, one, bit);
      next.node.descend(bit);
    }
  }
}

void Mixer::evidence(std::uint32_t token, const double* row, std::int64_t* occurred, std::int64_t* followed,
                     double* shares) {
  sum_up(row);
  const std::uint32_t leaf = spelling_.rank[token];
  std::array<double, kInputs> sizes{};
  Decision decision{};
  Node node{0, vocab_size(), 0, 1};
  Group here{};
  while (node.high - node.low > 1) {
    if (node.starts_group()) here = group(hashes(node.mid()));
    predict(node, here, decision);
    const int bit = leaf >= node.mid();
    for (int k = 0; k < config_.hashed; ++k) {
      const BitHistory& history = kHistories.state[decision.states[k]];
      if (node.depth == 0) occurred[k] = history.total();
      followed[k] = bit ? history.ones : history.zeros;
    }
    for (int m = 0; m < config_.sets; ++m) {
      for (int i = 0; i < width_; ++i) {
        sizes[i] +=
            std::abs(double{decision.last_weights[m]} * double{decision.weights[m][i]} * double{decision.inputs[i]});
      }
    }
    node.descend(bit);
  }
  double sum = 0.0;
  for (const double size : sizes) sum += size;
  for (int k = 0; k < config_.hashed; ++k) shares[k] = sum > 0.0 ? sizes[kFirstHashed + k] / sum : 0.0;
  shares[config_.hashed] = sum > 0.0 ? sizes[kNeural] / sum : 0.0;
}

double Mixer::begin(const double* row) {
  sum_up(row);
  node_ = {0, vocab_size(), 0, 1};
  weight_ = switch_.neural;
  open(node_, false);
  predict(node_, group_, decisions_[0]);
  return one_ = charge(decisions_[0], weight_);
}

double Mixer::decide(int bit) {
  decisions_[node_.depth].bit = bit;
  weight_ = told(decisions_[node_.depth], weight_, one_, bit);
  node_.descend(bit);
  if (token_known()) {
    learn(node_.depth);
    count(node_.depth);
    return 0.0;
  }
  open(node_, false);
  Decision& decision = decisions_[node_.depth];
  predict(node_, group_, decision);
  return one_ = charge(decision, weight_);
}

std::vector<std::pair<const char*, std::vector<float>*>> Mixer::learned() {
  constexpr std::array<const char*, kMostSets> names = {"weights_node", "weights_word", "weights_token",
                                                        "weights_counts", "weights_neural"};
  std::vector<std::pair<const char*, std::vector<float>*>> arrays;
  for (int m = 0; m < config_.sets; ++m) arrays.emplace_back(names[m], &weights_[m]);
  arrays.emplace_back("last_weights", &last_weights_);
  arrays.emplace_back("last_map_node", &last_maps_[0]);
  arrays.emplace_back("last_map_token", &last_maps_[1]);
  return arrays;
}

template void Mixer::append(const std::uint16_t*, std::int64_t);
template void Mixer::append(const std::uint32_t*, std::int64_t);
template void Mixer::score(const std::uint16_t*, std::int64_t, const double*, std::int64_t, double*, std::uint8_t*,
                           Decisions*);
template void Mixer::score(const std::uint32_t*, std::int64_t, const double*, std::int64_t, double*, std::uint8_t*,
                           Decisions*);

}  // namespace ngram
