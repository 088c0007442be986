#include "mixer/mixer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/clones.h"
#include "common/portable_math.h"

namespace ngram {
namespace {

constexpr float kConstantInput = 0.3f;
constexpr float kRecurrentWeight = 5.0f;                                     // at the start, times an n-gram input's
constexpr float kRate = 0.006f, kFirstRate = 0.02f, kRateTokens = 20000.0f;  // of the first layer, falling
constexpr float kRateOfAll = 0.2f;                                           // at most, of all inputs together
constexpr float kLastRate = 0.001f, kMapRate = 0.02f;
constexpr float kLeastMixed = 1.0f / 65536;
constexpr double kLeast = 1.0 / (1 << 22);
constexpr int kStateLimit = 255, kDirectLimit = 250, kRepetitionLimit = 1000;
constexpr int kColumns = 128;  // with weights of their own

// By the upper bits of an estimate.
const std::array<float, Estimate::kSteps> kLogits = [] {
  std::array<float, Estimate::kSteps> logits{};
  for (int i = 0; i < Estimate::kSteps; ++i) {
    logits[i ^ Estimate::kSteps / 2] = static_cast<float>(logit(Doubles{} + (i + 0.5) / Estimate::kSteps)[0]);
  }
  return logits;
}();

void fill_untouched(ZeroPages<float>& map, int cells) {
  for (int cell = 0; cell < cells; ++cell) {
    const float p = logistic(Lanes{} + static_cast<float>(cell - cells / 2) * 0.5f)[0];
    for (std::size_t at = cell; at < map.size(); at += cells) map.data()[at] = p;
  }
}

}  // namespace

Mixer::Mixer(const MixerConfig& config, Spelling spelling)
    : config_(config),
      shared_(std::make_shared<const Spelling>(std::move(spelling))),
      spelling_(*shared_),
      by_rank_(spelling_.rank.size()),
      past_(spelling_, config.hashed, config.matches),
      used_(kFirstHashed + config.hashed + config.runs + (config.cells > 0)),
      width_((used_ + kLanes - 1) / kLanes * kLanes),
      groups_(config.groups),
      direct_(std::max<std::uint64_t>(config.groups / 16, 1) * kDirectPlaces),
      direct_mask_(std::max<std::uint64_t>(config.groups / 16, 1) - 1),
      maps_(std::size_t{256} * kMostHashed),
      runs_(config.runs > 0 ? config.groups : 1),
      last_weights_(spelling_.rank.size() * kLanes),
      last_maps_{ZeroPages<float>(spelling_.rank.size() * kCells), ZeroPages<float>(kCells << kHashedMaps)},
      below_(spelling_.rank.size() + 1) {
  const std::size_t vocab = by_rank_.size();
  if (config.exact_order > 0) exact_.emplace(config.exact_order, spelling_.rank);
  if (config.cells > 0) recurrent_.emplace(vocab_size(), config.cells);
  weight_ = switch_.believed = exact_ ? Believed{1.0 / 3, 1.0 / 3} : Believed{0.5, 0.0};
  for (std::size_t token = 0; token < vocab; ++token) {
    by_rank_[spelling_.rank[token]] = static_cast<std::uint32_t>(token);
  }
  for (int k = 0; k < config.hashed; ++k) {
    for (int s = 0; s < kHistories.size; ++s) {
      const BitHistory& history = kHistories.state[s];
      maps_[k * 256 + s] = Estimate((history.ones + 0.4) / (history.total() + 0.8));
    }
  }
  for (int i = 0; i < config.runs * kRunLengths * kRunDepths; ++i) {
    run_maps_.emplace_back(0.2);
    run_maps_.emplace_back(0.8);
  }
  for (int i = 0; i < kMostMatches * kLengths * kMisses * 2; ++i) {
    repetitions_.emplace_back(0.1);
    repetitions_.emplace_back(0.9);
  }
  const std::array<std::size_t, kMostSets> rows = {vocab,      1 << kHashedSets,          1 << kHashedSets, 768,
                                                   16 * 5 * 4, kColumns * kMostDecisions, 256 * 16,         256 * 16};
  first_weights_.fill(no_weights_.data());
  row_width_.fill(0);
  for (int m = 0; m < config.sets; ++m) {
    first_weights_[m] = weights_.emplace_back(rows[m] * width_).data();
    row_width_[m] = width_;
    for (std::size_t row = 0; row < rows[m]; ++row) {
      float* const w = weights(m, row);
      std::fill(w + kConstant, w + kFirstHashed + config.hashed, config.weight);  // that of runs is 0
      w[kNeural] = exact_ ? 0.5f : 1.0f;
      w[kExact] = exact_ ? 0.5f : 0.0f;
      if (recurrent_) w[recurrent_input()] = kRecurrentWeight * config.weight;
    }
  }
  for (std::size_t row = 0; row < vocab; ++row) {
    std::fill_n(last_weights_.data() + row * kLanes, config.sets, 1.0f / static_cast<float>(config.sets));
  }
  for (auto& map : last_maps_) fill_untouched(map, kCells);
  for (Path& path : paths_) path.rows.fill({});
  path_->nodes[0] = {0, 1, 1};  // no token is under way
}

// A path without decisions: what the tokens so far say of the next.
void Mixer::start(Path& path) {
  path.position = past_.size();
  path.contexts = past_.now();
  for (int m = 0; m < config_.matches; ++m) {
    const Match& match = past_.match(m);
    const int known = match.length < 16 ? match.length : std::min(kLengths - 1, 16 + (match.length - 16) / 4);
    path.expected[m] = {match.found ? spelling_.rank[past_.expected(m)] : 0,
                        match.found ? (m * kLengths + known) * kMisses + std::min(match.missed, kMisses - 1) : -1,
                        match.length};
  }
  for (int k = 0; k < config_.runs; ++k) {
    path.runs[k] = runs_.data() + (path.contexts.hashed[k] >> 8 & (runs_.size() - 1));
  }
  path.depth = 0;
  path.nodes[0] = {0, vocab_size(), 1};
}

// All that is chosen by hashes of the last node.
NGRAM_INLINE void Mixer::choose(Path& path) {
  const int depth = path.depth;
  const std::uint32_t mid = path.last().mid();
  const Contexts& contexts = path.contexts;
  Path::Rows& rows = path.rows[depth];
  const std::array<std::uint64_t, 3> selected = {mid, mix(contexts.word, depth / 3) >> (64 - kHashedSets),
                                                 mix(contexts.token, depth) >> (64 - kHashedSets)};
  for (int m = 0; m < 3; ++m) rows.weights[m] = weights(m, selected[m]);
  rows.last_weights = last_weights_.data() + std::size_t{mid} * kLanes;
  rows.maps = {last_maps_[0].data() + std::size_t{mid} * kCells,
               last_maps_[1].data() + (mix(contexts.token, mid) >> (64 - kHashedMaps)) * kCells};
  if (depth % kLevels != 0) return;
  const int group = depth / kLevels;
  std::uint64_t* const keys = path.keys.data() + group * config_.hashed;
  for (int k = 0; k < config_.hashed; ++k) keys[k] = Groups::key(mix(contexts.hashed[k], mid));
  for (int k = 0; k < kDirect; ++k) path.direct[group][k] = direct_line(mix(contexts.direct[k], mid));
}

NGRAM_INLINE void Mixer::descend(Path& path, int bit) const {
  const Node at = path.last();
  path.bits[path.depth++] = static_cast<std::uint8_t>(bit);
  const int place = path.depth % kLevels == 0 ? 1 : 2 * at.place + bit;
  const std::uint32_t mid = at.mid(), right = -static_cast<std::uint32_t>(bit);  // masks: no branch could be foreseen
  path.nodes[path.depth] = {at.low + ((mid - at.low) & right), mid + ((at.high - mid) & right), place};
}

// The whole path to `token`, which comes next; its groups are asked for `times` times a decision of the one before.
NGRAM_CLONES void Mixer::plan(Path& path, std::uint32_t token, int times) {
  const std::uint32_t leaf = spelling_.rank[token];
  start(path);
  while (!path.last().is_leaf()) {
    choose(path);
    descend(path, leaf >= path.last().mid());
  }
  for (int k = 0; k < config_.runs; ++k) NGRAM_PREFETCH(path.runs[k]);
  path.groups = (path.depth + kLevels - 1) / kLevels;
  asked_ = 0;
  at_once_ = std::max(2, (path.groups * config_.hashed - 1) / (times * path.depth) + 1);  // one would come too late
}

// Asks for a part of what the decisions of the path that comes next will touch: all of it at once would be more lines than
// a processor fetches at a time. Inlined: a function that only asks may be left out as one without effect.
template <int kPart>
NGRAM_INLINE void Mixer::ask(int depth) {
  const Path& path = *ahead_;
  if (asked_ < path.groups * config_.hashed) {
    for (int i = 0; i < at_once_; ++i) NGRAM_PREFETCH(groups_.line(path.keys[asked_ + i]));  // the last may be old ones
    asked_ += at_once_;
  }
  NGRAM_PREFETCH(path.direct[depth / kLevels][kPart]);
  const Path::Rows& rows = path.rows[depth];
  if constexpr (kPart == 3) {
    for (const float* const map : rows.maps) {
      for (int cell = 0; cell < kCells; cell += 16) NGRAM_PREFETCH(map + cell);
    }
  } else {
    NGRAM_PREFETCH(rows.weights[kPart]);
    if (width_ > 16) NGRAM_PREFETCH(rows.weights[kPart] + 16);
  }
  if constexpr (kPart == 0) NGRAM_PREFETCH(rows.last_weights);
}

// Finds what the contexts hold below the node at which a group begins.
NGRAM_INLINE void Mixer::find(const Path& path, int group) {
  const std::uint64_t* const keys = path.keys.data() + group * config_.hashed;
  Group& found = found_[group];
  by_four(config_.hashed, [&](std::size_t k) { found.hashed[k] = groups_.find(keys[k]); });
  found.direct = path.direct[group];
}

void Mixer::sum_up(const double* row) {
  double sum = 0.0;
  for (std::size_t rank = 0; rank < by_rank_.size(); ++rank) below_[rank + 1] = sum += row[by_rank_[rank]];
}

// What the neural model says of decisions.
void Mixer::branches(const Path& path, int from, int to) {
  for (int i = from; i < to; ++i) {
    const Node& node = path.nodes[i];
    const double whole = below_[node.high] - below_[node.low];
    decisions_[i].neural = whole > 0.0 ? (below_[node.high] - below_[node.mid()]) / whole : 0.5;
  }
}

// What exact counts say of decisions of which `branches` has told; in order.
void Mixer::counted(const Path& path, int from, int to) {
  if (!exact_) return;
  for (int i = from; i < to; ++i) {
    Decision& decision = decisions_[i];
    if (i == 0) {
      decision.mass = 1.0;
    } else {
      const Decision& above = decisions_[i - 1];
      decision.mass = above.mass * (path.bits[i - 1] ? above.neural : 1.0 - above.neural);
    }
    const Node& node = path.nodes[i];
    decision.exact = exact_->one(node.low, node.mid(), node.high, decision.mass, decision.neural);
  }
}

// The inputs of decisions.
NGRAM_INLINE void Mixer::look(const Path& path, int from, int to) {
  const std::size_t hashed = config_.hashed;
  const Estimate* const maps = maps_.data();
  for (int i = from; i < to; ++i) {
    Decision& decision = decisions_[i];
    const Group& group = found_[i / kLevels];
    const std::size_t place = path.nodes[i].place;
    ask<0>(i);
    std::uint32_t* const states = decision.states.data();
    float* const inputs = decision.inputs.data() + kFirstHashed;
    by_four(hashed, [&](std::size_t k) {
      const std::size_t state = 256 * k + group.hashed[k].at[place];
      states[k] = static_cast<std::uint32_t>(state);
      inputs[k] = kLogits[maps[state].step()];
    });
    for (int k = 0; k < kDirect; ++k) decision.inputs[kFirstDirect + k] = kLogits[group.direct[k][place].step()];
  }
  for (int i = from; i < to; ++i) {
    Decision& decision = decisions_[i];
    decision.inputs[kConstant] = kConstantInput;
    const Node& node = path.nodes[i];
    for (int m = 0; m < kMostMatches; ++m) {
      decision.repetitions[m] = nullptr;
      decision.inputs[kRepetition + m] = 0.0f;
      if (m >= config_.matches) continue;
      const Path::Expected& expected = path.expected[m];
      if (expected.row < 0 || expected.rank < node.low || expected.rank >= node.high)
        continue;  // or it has already failed
      decision.repetitions[m] = &repetitions_[(expected.row * 2 + (i > 0)) * 2 + (expected.rank >= node.mid())];
      decision.inputs[kRepetition + m] = kLogits[decision.repetitions[m]->step()];
    }
  }
  for (int i = from; i < to; i += 4) {
    const auto neural = [&](int j) { return decisions_[std::min(i + j, to - 1)].neural; };
    const Doubles logits = logit(Doubles{neural(0), neural(1), neural(2), neural(3)});
    for (int j = 0; j < std::min(4, to - i); ++j) decisions_[i + j].inputs[kNeural] = static_cast<float>(logits[j]);
    if (exact_) {
      const auto exact = [&](int j) { return decisions_[std::min(i + j, to - 1)].exact; };
      const Doubles exacts = logit(Doubles{exact(0), exact(1), exact(2), exact(3)});
      for (int j = 0; j < std::min(4, to - i); ++j) decisions_[i + j].inputs[kExact] = static_cast<float>(exacts[j]);
    }
  }
  for (int i = from; i < to; ++i) {  // what has seen nothing has nothing to say
    Decision& decision = decisions_[i];
    for (std::size_t k = 0; k < hashed; k += kLanes) {
      float* const inputs = decision.inputs.data() + kFirstHashed + k;
      store(inputs, load<Integers>(inputs) & ((load<Bits>(decision.states.data() + k) & 255) != 0));
    }
  }
  if (config_.runs > 0) look_at_runs(path, from, to);
  if (!recurrent_) return;
  for (int i = from; i < to; i += 4) {
    const auto one = [&](int j) {
      const Node& node = path.nodes[std::min(i + j, to - 1)];
      return recurrent_->one(node.low, node.mid(), node.high);
    };
    const Doubles logits = logit(Doubles{one(0), one(1), one(2), one(3)});
    for (int j = 0; j < std::min(4, to - i); ++j) {
      decisions_[i + j].inputs[recurrent_input()] = static_cast<float>(logits[j]);
    }
  }
}

// The inputs of what came last after contexts.
NGRAM_INLINE void Mixer::look_at_runs(const Path& path, int from, int to) {
  std::array<std::uint8_t, kMostHashed + 1> known;  // contexts, by what has not failed; a last one that is none
  int count = 0;
  for (int k = 0; k < config_.runs; ++k) {
    known[count] = static_cast<std::uint8_t>(k);
    count += path.runs[k]->length() > 0 && path.runs[k]->check() == (path.contexts.hashed[k] & 255);
  }
  for (int i = from; i < to; ++i) {
    Decision& decision = decisions_[i];
    const Node& node = path.nodes[i];
    float* const inputs = decision.inputs.data() + kFirstHashed + config_.hashed;
    std::fill(inputs, decision.inputs.data() + width_, 0.0f);
    int left = 0;
    for (int j = 0; j < count; ++j) {
      const std::uint8_t k = known[j];
      const std::uint32_t rank = path.runs[k]->rank();
      known[left] = k;
      left += rank >= node.low && rank < node.high;
    }
    count = left;
    for (int j = 0; j < count; ++j) {
      const int k = known[j], depth = std::min(i, kRunDepths - 1);
      const Run run = *path.runs[k];
      const int length = std::min<int>(run.length(), kRunLengths - 1);
      Estimate* const estimate =
          &run_maps_[((k * kRunLengths + length) * kRunDepths + depth) * 2 + (run.rank() >= node.mid())];
      decision.runs[j] = estimate;
      inputs[k] = kLogits[estimate->step()];
    }
    decision.known_runs = count;
    for (int j = count; j % kLanes != 0; ++j) decision.runs[j] = &no_run_;
  }
}

// f(the number of whole lanes that inputs take), known at compile time where they are few.
template <class F>
NGRAM_INLINE void Mixer::with_vectors(F f) const {
  switch (width_ / kLanes) {
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 4: return f(std::integral_constant<int, 4>{});
    case 5: return f(std::integral_constant<int, 5>{});
    case 6: return f(std::integral_constant<int, 6>{});
    default: return f(width_ / kLanes);
  }
}

// The sets of weights and the cells of the maps that are meant.
template <int kSets>
NGRAM_INLINE void Mixer::select(const Path& path, int depth) {
  Decision& decision = decisions_[depth];
  const auto states = [&](int k) { return static_cast<std::uint8_t>(decision.states[k]); };
  const int length = path.expected[0].length;
  const int repeats = decision.repetitions[0] == nullptr ? 0 : length < 8 ? 1 : length < 20 ? 2 : 3;
  const auto used = [&](int k) { return static_cast<int>(kTables.total[states(k)]); };
  const int sure = std::min(3, used(0) / 2) * 16 + std::min(3, used(1) / 2) * 4 + std::min(3, used(4) / 2);
  const int known = (states(5) != 0) + (states(6) != 0) + (states(2) != 0) + (states(0) != 0);
  const int neural = std::clamp(static_cast<int>(decision.inputs[kNeural] + 8.0f), 0, 15);
  const Path::Rows& rows = path.rows[depth];
  std::copy(rows.weights.begin(), rows.weights.end(), decision.weights.begin());
  decision.weights[3] = weights(3, (sure * 3 + std::min(2, used(3))) * 4 + repeats);
  decision.weights[4] = weights(4, (neural * 5 + known) * 4 + repeats);
  decision.last_weights = rows.last_weights;
  decision.cells = rows.maps;
  if constexpr (kSets <= kFewSets) return;
  const Contexts& contexts = path.contexts;
  const std::uint64_t level = std::min(depth, 15);
  decision.weights[5] = weights(5, std::min<std::uint64_t>(contexts.column, kColumns - 1) * kMostDecisions + depth);
  decision.weights[6] = weights(6, (contexts.bytes >> 8 & 255) * 16 + level);
  decision.weights[7] = weights(7, (contexts.bytes & 255) * 16 + level);
}

// The sums of all sets, and the sum of those.
template <int kSets, class Vectors>
NGRAM_INLINE void Mixer::add_up(const Path& path, int from, int to, float* z, Vectors vectors) {
  for (int i = from; i < to; ++i) {
    select<kSets>(path, i);
    ask<1>(i);
    Decision& decision = decisions_[i];
    std::array<Lanes, kLanes> sums{};
    for (int v = 0; v < vectors; ++v) {
      const Lanes inputs = load<Lanes>(decision.inputs.data() + v * kLanes);
      for (int m = 0; m < kSets; ++m) sums[m] += load<Lanes>(decision.weights[m] + v * kLanes) * inputs;
    }
    const Lanes logits = clipped(across(sums));
    store(decision.logits.data(), logits);
    z[i - from] = across(load<Lanes>(decision.last_weights) * logits);
  }
}

// Predicts decisions of which `branches` has told.
NGRAM_CLONES void Mixer::predict(const Path& path, int from, int to) {
  for (int i = (from + kLevels - 1) / kLevels * kLevels; i < to; i += kLevels) find(path, i / kLevels);
  look(path, from, to);
  std::array<float, kMostDecisions + kLanes> z{}, mixed;
  with_vectors([&](auto vectors) __attribute__((always_inline)) {
    if (config_.sets <= kFewSets) return add_up<kFewSets>(path, from, to, z.data(), vectors);
    add_up<kMostSets>(path, from, to, z.data(), vectors);
  });
  for (int i = 0; i < to - from; i += kLanes) {
    const Lanes some = clipped(load<Lanes>(z.data() + i));
    store(z.data() + i, some);
    store(mixed.data() + i, logistic(some));
  }
  for (int i = from; i < to; ++i) {
    Decision& decision = decisions_[i];
    decision.mixed = mixed[i - from];
    const float at = (std::min(7.999f, std::max(-7.999f, z[i - from])) + 8.0f) * 2.0f;
    const int cell = static_cast<int>(at);
    decision.right = at - static_cast<float>(cell);
    float maps = 0.0f;
    for (float*& c : decision.cells) {
      c += cell;
      maps += c[0] * (1.0f - decision.right) + c[1] * decision.right;
    }
    decision.fixed = std::min(1.0f - kLeastMixed, std::max(kLeastMixed, 0.5f * decision.mixed + 0.25f * maps));
  }
}

// An outcome's probability from that of a 1, without a branch that could not be foreseen.
NGRAM_INLINE double of(int bit, double one) { return std::abs(one - (1 - bit)); }

// What a 1 is charged with where the neural model has this weight.
double Mixer::charge(int depth, const Believed& weight) const {
  const Decision& decision = decisions_[depth];
  const double one = weight.neural * decision.neural + weight.exact * decision.exact +
                     (1.0 - weight.neural - weight.exact) * decision.fixed;
  return std::min(1.0 - kLeast, std::max(kLeast, one));
}

// The neural model's weight once the outcome is known.
Mixer::Believed Mixer::told(int depth, const Believed& weight, double one, int bit) const {
  const Decision& decision = decisions_[depth];
  const double charged = of(bit, one);
  const double neural = std::min(1.0, weight.neural * of(bit, decision.neural) / charged);
  if (!exact_) return {neural, 0.0};
  const double exact = std::min(1.0 - neural, weight.exact * of(bit, decision.exact) / charged);
  return {neural, exact};
}

template <class Vectors>
NGRAM_INLINE void Mixer::move_sets(Decision& decision, const std::array<float, kLanes>& steps, Vectors vectors) const {
  for (int m = 0; m < config_.sets; ++m) move(decision.weights[m], decision.inputs.data(), steps[m], vectors);
}

// Moves what the neural model has a part in, by the token's decisions.
NGRAM_CLONES void Mixer::learn(const Path& path) {
  const double share = 1.0 / (switch_.charged + 2.0);
  const double even = exact_ ? 1.0 / 3 : 0.5;
  switch_ = {
      {(1.0 - share) * weight_.neural + even * share, exact_ ? (1.0 - share) * weight_.exact + even * share : 0.0},
      switch_.charged + 1.0};
  const float last = std::min(kRate, kRateOfAll / static_cast<float>(used_));
  const float rate = last + (kFirstRate - last) / (1.0f + static_cast<float>(path.position) / kRateTokens);
  for (int i = 0; i < path.depth; ++i) {
    Decision& decision = decisions_[i];
    const auto outcome = static_cast<float>(path.bits[i]);
    ask<2>(i);
    for (float* const c : decision.cells) {
      c[0] += (outcome - c[0]) * kMapRate * (1.0f - decision.right);
      c[1] += (outcome - c[1]) * kMapRate * decision.right;
    }
    const Lanes p = logistic(load<Lanes>(decision.logits.data()));
    std::array<float, kLanes> errors;
    store(errors.data(), (outcome - p) * rate);
    with_vectors([&](auto vectors) __attribute__((always_inline)) { move_sets(decision, errors, vectors); });
    move(decision.last_weights, decision.logits.data(), (outcome - decision.mixed) * kLastRate, 1);
  }
}

// Moves what it has none in.
NGRAM_CLONES void Mixer::count(const Path& path) {
  const std::size_t hashed = config_.hashed;
  for (int first = 0; first < path.depth; first += kLevels) {
    const int stop = std::min(path.depth, first + kLevels);
    const std::uint64_t* const keys = path.keys.data() + first / kLevels * hashed;
    const Group& group = found_[first / kLevels];
    std::array<std::uint8_t*, kMostHashed> taken;
    by_four(hashed, [&](std::size_t k) { taken[k] = groups_.take(keys[k], group.hashed[k]); });
    for (int i = first; i < stop; ++i) {
      const std::size_t place = path.nodes[i].place;
      const std::uint8_t* const next = kTables.next[path.bits[i]].data();
      const std::uint32_t* const states = decisions_[i].states.data();
      by_four(hashed, [&](std::size_t k) { taken[k][place] = next[static_cast<std::uint8_t>(states[k])]; });
    }
    std::array<int, kLevels> places{};  // those after the last decision are not in use
    for (int i = first; i < stop; ++i) places[i - first] = path.nodes[i].place;
    const auto outcome = [&](int i) { return first + i < stop ? -path.bits[first + i] : 0; };
    const Integers outcomes = {outcome(0), outcome(1), outcome(2), outcome(3)};
    for (int k = 0; k < kDirect; ++k) {  // four nodes at once: two contexts may have the same estimate
      const auto at = [&](int i) -> std::uint32_t& { return group.direct[k][places[i]].bits; };
      const Bits bits = moved(Bits{at(0), at(1), at(2), at(3)}, outcomes, kDirectLimit);
      for (int i = 0; i < kLevels; ++i) at(i) = bits[i];
    }
  }
  for (int i = 0; i < path.depth; ++i) {
    const Decision& decision = decisions_[i];
    const std::int32_t outcome = -path.bits[i];
    ask<3>(i);
    const Integers outcomes = {outcome, outcome, outcome, outcome, outcome, outcome, outcome, outcome};
    Estimate* const maps = maps_.data();
    for (std::size_t k = 0; k < hashed; k += kLanes) {
      const auto at = [&](int lane) -> std::uint32_t& { return maps[decision.states[k + lane]].bits; };
      const Bits bits = moved(Bits{at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)}, outcomes, kStateLimit);
      for (int lane = 0; lane < kLanes; ++lane) at(lane) = bits[lane];
    }
    for (int j = 0; j < decision.known_runs; j += kLanes) {
      const auto at = [&](int lane) -> std::uint32_t& { return decision.runs[j + lane]->bits; };
      const Bits bits = moved(Bits{at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)}, outcomes, kStateLimit);
      for (int lane = 0; lane < kLanes; ++lane) at(lane) = bits[lane];
    }
    for (Estimate* const repetition : decision.repetitions) {
      if (repetition) repetition->bits = moved(Bits{repetition->bits}, outcomes, kRepetitionLimit)[0];
    }
  }
  for (int k = 0; k < config_.runs; ++k) {
    Run& run = *path.runs[k];
    const auto check = static_cast<std::uint32_t>(path.contexts.hashed[k] & 255);
    const std::uint32_t rank = path.last().low;
    const bool goes_on = run.length() > 0 && run.check() == check && run.rank() == rank;
    run.bits = rank << 13 | (goes_on ? std::min(run.length() + 1, Run::kMost) : 1) << 8 | check;
  }
  if (recurrent_) recurrent_->learn(path.last().low);
}

// Before the first decision's outcome is known.
int Mixer::order(const Path& path) const {
  if (path.position == 0) return 0;
  constexpr std::array<std::pair<int, int>, 3> contexts = {{{5, 7}, {2, 4}, {0, 3}}};  // (hashed, order)
  for (const auto& [k, order] : contexts) {
    if (decisions_[0].states[k] % 256 != 0) return order;
  }
  return found_[0].direct[1][1].seen() ? 2 : 1;
}

template <class Token>
void Mixer::append(const Token* tokens, std::int64_t n) {
  if (exact_) exact_->model().append(tokens, n);
  if (n > 0) plan(*ahead_, tokens[0], kCountingAsks);
  for (std::int64_t i = 0; i < n; ++i) {
    std::swap(path_, ahead_);
    past_.push(tokens[i]);
    if (i + 1 < n) plan(*ahead_, tokens[i + 1], kCountingAsks);
    if (i + 2 < n) past_.prefetch(tokens[i + 1]);
    for (int first = 0; first < path_->depth; first += kLevels) find(*path_, first / kLevels);
    look(*path_, 0, path_->depth);
    count(*path_);
  }
}

template <class Token>
void Mixer::score(const Token* tokens, std::int64_t n, const Neural& neural, double* p, std::uint8_t* order,
                  Decisions* decisions) {
  if (n > 0) plan(*ahead_, tokens[0], kAsks);
  for (std::int64_t i = 0; i < n; ++i) {
    std::swap(path_, ahead_);
    past_.push(tokens[i]);
    if (i + 1 < n) plan(*ahead_, tokens[i + 1], kAsks);
    if (i + 2 < n) past_.prefetch(tokens[i + 1]);
    const double* const numbers = neural.numbers + i * neural.stride;
    if (neural.form == Neural::kPaths) {
      for (int d = 0; d < path_->depth; ++d) decisions_[d].neural = numbers[d];
    } else {
      if (i == 0 || neural.stride > 0) sum_up(numbers);
      branches(*path_, 0, path_->depth);
    }
    p[i] = charge(*path_, decisions);
    order[i] = static_cast<std::uint8_t>(this->order(*path_));
    learn(*path_);
    finish(*path_);
    count(*path_);
  }
}

// Tells exact counts what came.
void Mixer::finish(const Path& path) {
  if (!exact_) return;
  const Decision& last = decisions_[path.depth - 1];
  exact_->learn(by_rank_[path.last().low], last.mass * (path.bits[path.depth - 1] ? last.neural : 1.0 - last.neural));
}

// A whole path's probability.
double Mixer::charge(Path& path, Decisions* decisions) {
  if (exact_) exact_->begin();
  counted(path, 0, path.depth);
  predict(path, 0, path.depth);
  double p = 1.0;
  weight_ = switch_.believed;
  for (int i = 0; i < path.depth; ++i) {
    const double one = charge(i, weight_);
    weight_ = told(i, weight_, one, path.bits[i]);
    p *= of(path.bits[i], one);
    if (decisions) {
      decisions->bits.push_back(path.bits[i]);
      decisions->ones.push_back(one);
    }
  }
  return p;
}

// Predicts the last node's decision.
void Mixer::predict_last(Path& path) {
  choose(path);
  if (path.depth % kLevels == 0) {
    const std::uint64_t* const keys = path.keys.data() + path.depth / kLevels * config_.hashed;
    for (int k = 0; k < config_.hashed; ++k) NGRAM_PREFETCH(groups_.line(keys[k]));
  }
  branches(path, path.depth, path.depth + 1);
  counted(path, path.depth, path.depth + 1);
  predict(path, path.depth, path.depth + 1);
}

void Mixer::distribution(const double* row, double* p) {
  struct Open {
    Node node;
    int depth, bit;  // the outcome above it
    Believed weight;
    double p;
  };
  sum_up(row);
  start(*path_);
  if (exact_) exact_->begin();
  std::vector<Open> open{{path_->last(), 0, 0, switch_.believed, 1.0}};
  while (!open.empty()) {  // depth first: what lies above a node stays as it is
    const Open at = open.back();
    open.pop_back();
    path_->depth = at.depth;
    path_->nodes[at.depth] = at.node;
    if (at.depth > 0) path_->bits[at.depth - 1] = static_cast<std::uint8_t>(at.bit);
    if (at.node.is_leaf()) {
      p[by_rank_[at.node.low]] = at.p;
      continue;
    }
    predict_last(*path_);
    const double one = charge(at.depth, at.weight);
    for (int bit = 0; bit < 2; ++bit) {
      path_->depth = at.depth;
      descend(*path_, bit);
      open.push_back(
          {path_->last(), path_->depth, bit, told(at.depth, at.weight, one, bit), at.p * (bit ? one : 1.0 - one)});
    }
  }
}

void Mixer::evidence(std::uint32_t token, const double* row, std::int64_t* occurred, std::int64_t* followed,
                     double* shares) {
  sum_up(row);
  plan(*path_, token, kAsks);
  branches(*path_, 0, path_->depth);
  if (exact_) exact_->begin();
  counted(*path_, 0, path_->depth);
  predict(*path_, 0, path_->depth);
  std::array<double, kInputs> sizes{};
  for (int depth = 0; depth < path_->depth; ++depth) {
    const Decision& decision = decisions_[depth];
    for (int k = 0; k < config_.hashed; ++k) {
      const BitHistory& history = kHistories.state[decision.states[k] % 256];
      if (depth == 0) occurred[k] = history.total();
      followed[k] = path_->bits[depth] ? history.ones : history.zeros;
    }
    for (int m = 0; m < config_.sets; ++m) {
      for (int i = 0; i < width_; ++i) {
        sizes[i] +=
            std::abs(double{decision.last_weights[m]} * double{decision.weights[m][i]} * double{decision.inputs[i]});
      }
    }
  }
  double sum = 0.0;
  for (const double size : sizes) sum += size;
  for (int k = 0; k < config_.hashed; ++k) shares[k] = sum > 0.0 ? sizes[kFirstHashed + k] / sum : 0.0;
  shares[config_.hashed] = sum > 0.0 ? sizes[kNeural] / sum : 0.0;
}

double Mixer::begin(const double* row) {
  if (row) sum_up(row);
  start(*path_);
  weight_ = switch_.believed;
  if (exact_) exact_->begin();
  predict_last(*path_);
  return one_ = charge(0, weight_);
}

double Mixer::decide(int bit) {
  weight_ = told(path_->depth, weight_, one_, bit);
  descend(*path_, bit);
  if (token_known()) {
    learn(*path_);
    finish(*path_);
    count(*path_);
    past_.push(token());
    return 0.0;
  }
  predict_last(*path_);
  return one_ = charge(path_->depth, weight_);
}

std::vector<std::pair<const char*, std::span<float>>> Mixer::learned() {
  constexpr std::array<const char*, kMostSets> names = {"weights_node",   "weights_word",   "weights_token",
                                                        "weights_counts", "weights_neural", "weights_column",
                                                        "weights_before", "weights_last"};
  std::vector<std::pair<const char*, std::span<float>>> arrays;
  const auto add = [&](const char* name, ZeroPages<float>& of) {
    arrays.emplace_back(name, std::span<float>(of.data(), of.size()));
  };
  for (int m = 0; m < config_.sets; ++m) add(names[m], weights_[m]);
  add("last_weights", last_weights_);
  add("last_map_node", last_maps_[0]);
  add("last_map_token", last_maps_[1]);
  return arrays;
}

Mixer::Mixer(const Copy& copy) : Mixer(copy.of) {
  first_weights_.fill(no_weights_.data());
  for (int m = 0; m < config_.sets; ++m) first_weights_[m] = weights_[m].data();
  paths_ = {}, decisions_ = {}, found_ = {};
  path_ = &paths_[0], ahead_ = &paths_[1];
  const Path& under_way = *copy.of.path_;
  path_->depth = under_way.depth, path_->nodes = under_way.nodes;
  if (token_known()) return;
  begin(nullptr);
  for (int i = 0; i < under_way.depth; ++i) decide(under_way.bits[i]);
}

template void Mixer::append(const std::uint16_t*, std::int64_t);
template void Mixer::append(const std::uint32_t*, std::int64_t);
template void Mixer::score(const std::uint16_t*, std::int64_t, const Neural&, double*, std::uint8_t*, Decisions*);
template void Mixer::score(const std::uint32_t*, std::int64_t, const Neural&, double*, std::uint8_t*, Decisions*);

}  // namespace ngram
