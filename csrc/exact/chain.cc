// The chain of exact counts at one position: features of the context, weights, what they give, what they learn.
#include <algorithm>
#include <limits>

#include "exact/model.h"

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

// Classes are sums of comparisons: their outcomes are too random for branches.
template <class Number, class... Bounds>
int count_above(Number x, Bounds... bounds) {
  return (static_cast<int>(x > static_cast<Number>(bounds)) + ...);
}

int size_class(std::uint64_t total) {  // of total >= 1: 0 to 12
  return count_above(total, 1, 2, 3, 4, 6, 9, 14, 24, 48, 128, 512, 4096);
}

int variety_class(std::uint64_t total, std::uint64_t distinct) {  // 0 to 7
  const std::uint64_t d = distinct * 100;
  const int between =
      1 + (d >= total * 5) + (d >= total * 10) + (d >= total * 20) + (d >= total * 35) + (d >= total * 60);
  const int varied = distinct == total ? 7 : between;
  return distinct == 1 ? 0 : varied;
}

int run_class(std::uint32_t run) { return count_above(run, 1, 2, 3, 5, 8, 16); }  // 0 to 6

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

// Adds up the weights of a level's features: the logits of its four parts.
Four ExactModel::look_up(int level, bool longest, const Context& context, const Surroundings& around) {
  Level& to = level_[level];
  const bool varied = level > 0 && context.distinct > 1;
  const int run = 1 + run_class(context.run) * 2 + longest;
  const int feature[] = {
      size_class(context.total) * 8 + variety_class(context.total, context.distinct),
      longest ? around.surprise : around.cost,
      varied ? run : 0,
      around.token,
      around.longer * 8 + around.uncertainty,
  };
  Four z = four(0.0f);
  for (int f = 0; f < kFeatures; ++f) {
    to.weights[f] = &weights_[static_cast<std::size_t>(level) * kWeightsPerLevel + kOffset[f] + feature[f]];
    z += to.weights[f]->value;
  }
  return z;
}

// What follows from a level's weights `a` for any target.
void ExactModel::finish(int level, bool longest, const Context& context, Four a) {
  Level& to = level_[level];
  to.longest = longest;
  for (int part = 0; part < kParts; ++part) to.a[part] = a[part];
  if (level == 0 || context.distinct == 1) to.a[2] = to.a[3] = 0.0;

  const auto total = static_cast<double>(context.total);
  const auto n = longest ? total : static_cast<double>(context.novel_total);
  const auto distinct = static_cast<double>(context.distinct);
  to.per_count = 1.0 / n;
  to.per_total = 1.0 / total;
  to.per_recent = 1.0 / static_cast<double>(recent_total(context.total));
  to.distinct = distinct * to.per_count;
  to.repeats = (n - distinct) * to.per_count;
  const double not_raw = 1.0 - to.a[3];
  const double rest = not_raw * (1.0 - to.a[2]);
  to.raw = to.a[3] * to.per_total;
  to.recent = not_raw * to.a[2] * to.per_recent;
  to.first = rest * to.a[0] * to.per_count;
  to.more = rest * to.a[1] * to.per_count;
  to.rest = rest * ((1.0 - to.a[0]) * to.distinct + (1.0 - to.a[1]) * to.repeats);
}

// Three passes over the levels, not one: the logistic function is a long chain of operations, and so levels overlap.
template <class ContextOf>
void ExactModel::prepare(int depth, const ContextOf& context_of, float entropy) {
  const int cost = cost_class(recent_cost_);
  Surroundings around{.surprise = (1 + static_cast<int>(surprises_ & 7)) * 5 + cost,
                      .cost = cost,
                      .token = static_cast<int>(newest_ % kToken),
                      .uncertainty = entropy > 0.0f ? static_cast<int>(std::min(entropy * 1.5f, 7.0f)) : 0,
                      .longer = 0};
  Four a[kMaxLevels];
  for (int level = depth - 1; level >= 0; --level) {
    const Context& context = context_of(level);
    a[level] = look_up(level, level + 1 == depth, context, around);
    around.longer = 1 + size_class(context.total);
  }
  for (int level = 0; level < depth; ++level) a[level] = logistic(a[level]);
  for (int level = 0; level < depth; ++level) finish(level, level + 1 == depth, context_of(level), a[level]);
}

void ExactModel::prepare_tip(float entropy) {
  prepare(counts_.tip_depth(), [this](int level) { return counts_.tip(level); }, entropy);
}

namespace {

// A successor's part of its level's probability, besides what comes from below; 0 if it never followed.
template <class Level>
double direct(const Level& level, const Successor& successor) {
  const std::uint32_t count = level.longest ? successor.count : successor.novel;
  const double seen = count > 0 ? 1.0 : 0.0;
  return level.first * seen + level.more * (static_cast<double>(count) - seen) +
         level.recent * static_cast<double>(successor.recent) + level.raw * static_cast<double>(successor.count);
}

}  // namespace

double ExactModel::chained(int depth, const Successor* target, double base) {
  below_[0] = base;
  for (int level = 0; level < depth; ++level) {
    below_[level + 1] = direct(level_[level], target[level]) + level_[level].rest * below_[level];
  }
  return below_[depth];
}

// One step of every weight along the gradient of ln p, p being what `chained` gave for this target.
void ExactModel::learn(int depth, const Successor* target, double chained) {
  double reach = 1.0 / chained;  // d ln p / d (probability above the level)
  for (int level = depth - 1; level >= 0; --level) {
    const Level& at = level_[level];
    const std::uint32_t count = at.longest ? target[level].count : target[level].novel;
    const double q = below_[level];
    const double seen = count > 0 ? 1.0 : 0.0;
    const double first = seen * at.per_count;
    const double more = (static_cast<double>(count) - seen) * at.per_count;
    const double interpolated =
        at.a[0] * first + at.a[1] * more + ((1.0 - at.a[0]) * at.distinct + (1.0 - at.a[1]) * at.repeats) * q;
    const double recent = static_cast<double>(target[level].recent) * at.per_recent;
    const double raw = static_cast<double>(target[level].count) * at.per_total;
    const double not_raw = 1.0 - at.a[3];
    const double lower = not_raw * (1.0 - at.a[2]);
    const double slope[kParts] = {lower * (first - at.distinct * q), lower * (more - at.repeats * q),
                                  not_raw * (recent - interpolated),
                                  raw - (at.a[2] * recent + (1.0 - at.a[2]) * interpolated)};
    Four gradient;
    for (int part = 0; part < kParts; ++part) {
      gradient[part] = static_cast<float>(reach * slope[part] * (at.a[part] * (1.0 - at.a[part])));
    }
    for (Weight* weight : at.weights) {
      const Four step = weight->rate * gradient;
      const Four square = step * step < four(1.0f) ? step * step : four(1.0f);
      weight->value += four(kLearningRate) * step;
      weight->rate -= weight->rate * (four(0.5f) * square);  // 1 / sqrt(sum + gradient^2), to first order
    }
    reach *= at.rest;
  }
}

// Probability of the target at the prepared position; then all that is learned but the tilt.
double ExactModel::charge(int depth, const Successor* target, std::uint32_t token, double base) {
  double p = base;
  if (config_.chain) {
    const double chained = this->chained(depth, target, base);
    p = blended(base, chained);
    if (chained >= std::numeric_limits<double>::min()) learn(depth, target, chained);  // 1 / chained is finite
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
  for (int level = 0; level < counts_.tip_depth(); ++level) {
    const Level& at = level_[level];
    for (std::int64_t token = 0; token < vocab_size; ++token) p[token] *= at.rest;
    counts_.visit_successors(level, [&](std::uint32_t token, const Successor& successor) {
      p[token] += direct(at, successor);  // the same sum as in `chained`
    });
  }
  for (std::int64_t token = 0; token < vocab_size; ++token) p[token] = blended(row[token], p[token]);
}

}  // namespace ngram
