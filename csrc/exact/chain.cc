// The chain of exact counts at one position: features of the context, weights, what they give, what they learn.
//
// Vectors hold levels, or the parts of one. Every entry takes the operations that the reference takes, in its order.
// Entries above the last level are computed too, and not used.
#include <algorithm>
#include <limits>

#include "common/clones.h"
#include "common/lanes.h"
#include "exact/model.h"

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed to inlined functions alone

namespace ngram {

namespace {

constexpr float kLearningRate = 0.5f;
constexpr float kFirstRate = 1.8257419f;  // 1 / sqrt(0.3): AdaGrad's sum starts at 0.3
constexpr Four kFirstValue = {-1.0f, 2.0f, -2.0f, -3.0f};

// Features: their sizes, and the weights of all levels one after another.
constexpr int kShape = 13 * 8, kSurprise = 9 * 5, kRun = 16, kToken = 1024, kLonger = 14 * 8;
constexpr int kOffset[] = {0, kShape, kShape + kSurprise, kShape + kSurprise + kRun,
                           kShape + kSurprise + kRun + kToken};
constexpr int kWeightsPerLevel = kOffset[4] + kLonger;

// Levels that are worked on at once.
typedef double Doubles __attribute__((vector_size(32)));
typedef std::int32_t Ints __attribute__((vector_size(32)));
typedef std::int64_t Longs __attribute__((vector_size(32)));
constexpr int kDoubles = sizeof(Doubles) / sizeof(double), kInts = sizeof(Ints) / sizeof(std::int32_t);

// Classes are sums of comparisons, whose outcomes are -1 and 0.
template <class... Bounds>
NGRAM_INLINE Ints count_above(const Ints& x, Bounds... bounds) {
  return -((x > bounds) + ...);
}

NGRAM_INLINE Ints size_class(const Ints& total) {  // of total >= 1: 0 to 12
  return count_above(total, 1, 2, 3, 4, 6, 9, 14, 24, 48, 128, 512, 4096);
}

NGRAM_INLINE Ints variety_class(const Ints& total, const Ints& distinct) {  // 0 to 7
  const Ints d = distinct * 100, none = {};
  const Ints between =
      1 - ((d >= total * 5) + (d >= total * 10) + (d >= total * 20) + (d >= total * 35) + (d >= total * 60));
  return distinct == 1 ? none : distinct == total ? none + 7 : between;
}
constexpr std::uint64_t kLargestSize = 1 << 25;  // above 20 times any `distinct` and the last class; times 60 it fits

NGRAM_INLINE Ints run_class(const Ints& run) { return count_above(run, 1, 2, 3, 5, 8, 16); }  // 0 to 6

// 1 / recent_total by total, at 32 that of all above.
const auto kPerRecent = [] {
  std::array<double, 33> to{};
  for (std::uint64_t total = 1; total < to.size(); ++total) to[total] = 1.0 / static_cast<double>(recent_total(total));
  return to;
}();

// Four levels' parts as each part's levels, and back.
NGRAM_INLINE void transpose(Four (&x)[4]) {
  const Four low = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5),
             low2 = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
  const Four high = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7),
             high2 = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
  x[0] = __builtin_shufflevector(low, low2, 0, 1, 4, 5);
  x[1] = __builtin_shufflevector(low, low2, 2, 3, 6, 7);
  x[2] = __builtin_shufflevector(high, high2, 0, 1, 4, 5);
  x[3] = __builtin_shufflevector(high, high2, 2, 3, 6, 7);
}

// What a position cost, roughly; averaged over positions, each weighing half of the next.
double cost(double p) { return p > 0.5 ? 0.0 : p > 0.1 ? 1.0 : p > 0.01 ? 2.0 : 3.5; }

int cost_class(double recent_cost) {  // 0 to 4
  return recent_cost < 0.15 ? 0 : recent_cost < 0.6 ? 1 : recent_cost < 1.3 ? 2 : recent_cost < 2.2 ? 3 : 4;
}

}  // namespace

void ExactModel::begin_chain() {
  weights_.resize(static_cast<std::size_t>(config_.levels) * kWeightsPerLevel);
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    weights_[i] = {i % kWeightsPerLevel < kShape ? kFirstValue : four(0.0f), four(kFirstRate)};
  }
}

int ExactModel::weights_per_level() { return kWeightsPerLevel; }

// The weights of every level's features, their parts, and what follows for any target.
NGRAM_CLONES void ExactModel::weigh(int depth, float entropy) {
  std::array<std::int32_t, kMaxLevels> size, shape, run;
  for (int level = 0; level < depth; level += kInts) {
    const Ints total = load<Ints>(at_.size.data() + level), distinct = load<Ints>(at_.variety.data() + level),
               none = {};
    const Ints sizes = size_class(total);
    store(size.data() + level, sizes);
    store(shape.data() + level, sizes * 8 + variety_class(total, distinct));
    store(run.data() + level, distinct > 1 ? 1 + 2 * run_class(load<Ints>(at_.run.data() + level)) : none);
  }
  run[0] = 0;
  const int last = depth - 1, cost = cost_class(recent_cost_);
  run[last] += run[last] > 0;
  const int surprise = (1 + static_cast<int>(surprises_ & 7)) * 5 + cost, token = static_cast<int>(newest_ % kToken);
  const int uncertainty = entropy > 0.0f ? static_cast<int>(std::min(entropy * 1.5f, 7.0f)) : 0;

  Four sum[kMaxLevels];
  Weight* first = weights_.data();
  for (int level = 0; level < depth; ++level, first += kWeightsPerLevel) {
    const int longer = level == last ? 0 : 1 + size[level + 1];
    auto& weights = at_.weights[level];
    weights = {first + kOffset[0] + shape[level], first + kOffset[1] + (level == last ? surprise : cost),
               first + kOffset[2] + run[level], first + kOffset[3] + token,
               first + kOffset[4] + longer * 8 + uncertainty};
    Four z = four(0.0f);
    for (int f = 0; f < kFeatures; ++f) z += weights[f]->value;
    sum[level] = z;
  }
  for (int level = 0; level < depth; level += kDoubles) {
    Four parts[kParts];
    for (int i = 0; i < kDoubles; ++i) parts[i] = logistic(sum[level + i]);
    transpose(parts);
    const Longs alone = load<Longs>(at_.alone.data() + level);
    const Doubles none = {}, a0 = __builtin_convertvector(parts[0], Doubles);
    const Doubles a1 = __builtin_convertvector(parts[1], Doubles);
    const Doubles a2 = alone ? none : __builtin_convertvector(parts[2], Doubles);
    const Doubles a3 = alone ? none : __builtin_convertvector(parts[3], Doubles);
    store(at_.a[0].data() + level, a0);
    store(at_.a[1].data() + level, a1);
    store(at_.a[2].data() + level, a2);
    store(at_.a[3].data() + level, a3);
    const Doubles n = load<Doubles>(at_.n.data() + level), varied = load<Doubles>(at_.varied.data() + level);
    const Doubles per_count = 1.0 / n, per_total = 1.0 / load<Doubles>(at_.total.data() + level);
    const Doubles distinct = varied * per_count, repeats = (n - varied) * per_count;
    const Doubles not_raw = 1.0 - a3, rest = not_raw * (1.0 - a2);
    store(at_.per_count.data() + level, per_count);
    store(at_.per_total.data() + level, per_total);
    store(at_.distinct.data() + level, distinct);
    store(at_.repeats.data() + level, repeats);
    store(at_.raw.data() + level, a3 * per_total);
    store(at_.recent.data() + level, not_raw * a2 * load<Doubles>(at_.per_recent.data() + level));
    store(at_.first.data() + level, rest * a0 * per_count);
    store(at_.more.data() + level, rest * a1 * per_count);
    store(at_.rest.data() + level, rest * ((1.0 - a0) * distinct + (1.0 - a1) * repeats));
  }
}

template <class ContextOf>
void ExactModel::prepare(int depth, const ContextOf& context_of, float entropy) {
  for (int level = 0; level < depth; ++level) {
    const Context& context = context_of(level);
    at_.size[level] = static_cast<std::int32_t>(std::min(context.total, kLargestSize));
    at_.variety[level] = static_cast<std::int32_t>(context.distinct);
    at_.run[level] = static_cast<std::int32_t>(context.run);
    at_.total[level] = static_cast<double>(static_cast<std::int64_t>(context.total));
    const std::uint64_t n = level + 1 == depth ? context.total : context.novel_total;
    at_.n[level] = static_cast<double>(static_cast<std::int64_t>(n));
    at_.varied[level] = context.distinct;
    at_.per_recent[level] = kPerRecent[std::min<std::uint64_t>(context.total, 32)];
    at_.alone[level] = -static_cast<std::int64_t>(level == 0 || context.distinct == 1);
  }
  if (depth > 0) weigh(depth, entropy);
}

void ExactModel::prepare_tip(float entropy) {
  prepare(counts_.tip_depth(), [this](int level) { return counts_.tip(level); }, entropy);
}

NGRAM_CLONES double ExactModel::chained(int depth, const Successor* target, double base) {
  for (int level = 0; level < depth; ++level) {
    const Successor& of = target[level];
    at_.counted[level] = level + 1 == depth ? of.count : of.novel;
    at_.followed[level] = of.count;
    at_.lately[level] = of.recent;
  }
  for (int level = 0; level < depth; level += kDoubles) {  // as in `direct`
    const Doubles count = load<Doubles>(at_.counted.data() + level), none = {};
    const Doubles seen = count > 0.0 ? none + 1.0 : none;
    store(at_.direct.data() + level,
          load<Doubles>(at_.first.data() + level) * seen + load<Doubles>(at_.more.data() + level) * (count - seen) +
              load<Doubles>(at_.recent.data() + level) * load<Doubles>(at_.lately.data() + level) +
              load<Doubles>(at_.raw.data() + level) * load<Doubles>(at_.followed.data() + level));
  }
  double p = base;
  for (int level = 0; level < depth; ++level) {
    at_.below[level] = p;
    p = at_.direct[level] + at_.rest[level] * p;
  }
  return p;
}

// One step of every weight along the gradient of ln p, p being what `chained` has just given.
NGRAM_CLONES void ExactModel::learn(int depth, double chained) {
  std::array<double, kMaxLevels> reaches;  // d ln p / d (probability above the level)
  double above = 1.0 / chained;
  for (int level = depth - 1; level >= 0; --level) {
    reaches[level] = above;
    above *= at_.rest[level];
  }
  for (int start = 0; start < depth; start += kDoubles) {
    const Doubles count = load<Doubles>(at_.counted.data() + start), q = load<Doubles>(at_.below.data() + start),
                  none = {};
    const Doubles a0 = load<Doubles>(at_.a[0].data() + start), a1 = load<Doubles>(at_.a[1].data() + start);
    const Doubles a2 = load<Doubles>(at_.a[2].data() + start), a3 = load<Doubles>(at_.a[3].data() + start);
    const Doubles distinct = load<Doubles>(at_.distinct.data() + start),
                  repeats = load<Doubles>(at_.repeats.data() + start);
    const Doubles per_count = load<Doubles>(at_.per_count.data() + start),
                  reach = load<Doubles>(reaches.data() + start);
    const Doubles seen = count > 0.0 ? none + 1.0 : none;
    const Doubles first = seen * per_count, more = (count - seen) * per_count;
    const Doubles interpolated = a0 * first + a1 * more + ((1.0 - a0) * distinct + (1.0 - a1) * repeats) * q;
    const Doubles recent = load<Doubles>(at_.lately.data() + start) * load<Doubles>(at_.per_recent.data() + start);
    const Doubles raw = load<Doubles>(at_.followed.data() + start) * load<Doubles>(at_.per_total.data() + start);
    const Doubles not_raw = 1.0 - a3, lower = not_raw * (1.0 - a2);
    Four gradient[kParts] = {
        __builtin_convertvector(reach * (lower * (first - distinct * q)) * (a0 * (1.0 - a0)), Four),
        __builtin_convertvector(reach * (lower * (more - repeats * q)) * (a1 * (1.0 - a1)), Four),
        __builtin_convertvector(reach * (not_raw * (recent - interpolated)) * (a2 * (1.0 - a2)), Four),
        __builtin_convertvector(reach * (raw - (a2 * recent + (1.0 - a2) * interpolated)) * (a3 * (1.0 - a3)), Four),
    };
    transpose(gradient);
    for (int level = start; level < std::min(start + kDoubles, depth); ++level) {
      for (Weight* weight : at_.weights[level]) {
        const Four step = weight->rate * gradient[level - start];
        const Four square = step * step < four(1.0f) ? step * step : four(1.0f);
        weight->value += four(kLearningRate) * step;
        weight->rate -= weight->rate * (four(0.5f) * square);  // 1 / sqrt(sum + gradient^2), to first order
      }
    }
  }
}

// Probability of the target at the prepared position; then all that is learned but the tilt.
double ExactModel::charge(int depth, const Successor* target, std::uint32_t token, double base) {
  double p = base;
  if (config_.chain) {
    const double chained = this->chained(depth, target, base);
    p = blended(base, chained);
    if (chained >= std::numeric_limits<double>::min()) learn(depth, chained);  // 1 / chained is finite
    if (p > 0.0) {
      const double posterior = base_weight_ * base / p;
      const double share = 1.0 / static_cast<double>(scored_ + 2);
      base_weight_ = posterior * (1.0 - share) + 0.5 * share;
    }
  }
  ++scored_;
  recent_cost_ = 0.5 * recent_cost_ + 0.5 * cost(p);
  if (depth > 0) surprises_ = surprises_ << 1 | (target[depth - 1].count == 0);
  newest_ = token;
  return p;
}

// Prepares a position of which `depth` levels are known and collects its target's statistics.
void ExactModel::prepare_evidence(const Recalled& seen, int depth, float entropy, Successor* target) {
  for (int level = 0; level < depth; ++level) target[level] = seen[level].target;
  if (config_.chain) prepare(depth, [&](int level) { return seen[level].context; }, entropy);
}

// The same of position i of the counts' last chunk; the number of levels.
int ExactModel::prepare_evidence(const ExactCounts::Chunk& chunk, int i, float entropy, Successor* target) {
  const int depth = chunk.depth[i];
  prepare_evidence({&chunk.evidence(0, i), ExactCounts::kChunk}, depth, entropy, target);
  return depth;
}

void ExactModel::distribute_chain(const double* row, float entropy, std::int64_t vocab_size, double* p) {
  prepare_tip(entropy);
  for (int level = 0, depth = counts_.tip_depth(); level < depth; ++level) {
    const double rest = at_.rest[level];
    for (std::int64_t token = 0; token < vocab_size; ++token) p[token] *= rest;
    counts_.visit_successors(level, [&](std::uint32_t token, const Successor& successor) {
      p[token] += direct(level, level + 1 == depth, successor);  // the same sum as in `chained`
    });
  }
  for (std::int64_t token = 0; token < vocab_size; ++token) p[token] = blended(row[token], p[token]);
}

}  // namespace ngram
