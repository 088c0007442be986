#include "exact/model.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace ngram {

namespace {

constexpr float kLearningRate = 0.5f;
constexpr float kFirstRate = 1.8257419f;  // 1 / sqrt(0.3): AdaGrad's sum starts at 0.3
constexpr Four kFirstValue = {-1.0f, 2.0f, -2.0f, -3.0f};

// Features: their sizes, and the weights of all levels one after another.
constexpr int kShape = 13 * 8, kSurprise = 9 * 5, kRun = 16, kToken = 1024, kLonger = 14 * 8;
constexpr int kOffset[] = {0, kShape, kShape + kSurprise, kShape + kSurprise + kRun, kShape + kSurprise + kRun + kToken};
constexpr int kWeightsPerLevel = kOffset[4] + kLonger;

// The learned tilt: `kOctaves` entries an order, one for each power of two of the odds of p(hint).
constexpr int kTiltOrders = 8, kOctaves = 41, kMiddle = 20;
constexpr double kTiltPrior = 10.0, kTiltMemory = 512.0;

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
  const int between = 1 + (d >= total * 5) + (d >= total * 10) + (d >= total * 20) + (d >= total * 35) + (d >= total * 60);
  const int varied = distinct == total ? 7 : between;
  return distinct == 1 ? 0 : varied;
}

int run_class(std::uint32_t run) { return count_above(run, 1, 2, 3, 5, 8, 16); }  // 0 to 6

// What a position cost, roughly; averaged over positions, each weighing half of the next.
double cost(double p) { return p > 0.5 ? 0.0 : p > 0.1 ? 1.0 : p > 0.01 ? 2.0 : 3.5; }

int cost_class(double recent_cost) {  // 0 to 4
  return recent_cost < 0.15 ? 0 : recent_cost < 0.6 ? 1 : recent_cost < 1.3 ? 2 : recent_cost < 2.2 ? 3 : 4;
}

// Place of p in the learned tilt's map, and how far towards the next.
std::pair<int, double> octave(double p) {
  const double odds = std::clamp(p / (1.0 - p), 0x1p-20, 0x1.fffffffffffffp+19);
  const auto bits = std::bit_cast<std::uint64_t>(odds);
  const int exponent = static_cast<int>(bits >> 52) - 1023;
  const double fraction = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u) - 1.0;
  return {exponent + kMiddle, fraction};
}

}  // namespace

ExactModel::ExactModel(const ExactModelConfig& config)
    : config_(config),
      counts_(config.levels),
      weights_(static_cast<std::size_t>(config.levels) * kWeightsPerLevel),
      hits_(kTiltOrders * kOctaves),
      tries_(kTiltOrders * kOctaves, kTiltPrior) {
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    weights_[i] = {i % kWeightsPerLevel < kShape ? kFirstValue : four(0.0f), four(kFirstRate)};
  }
  for (int i = 0; i < kTiltOrders * kOctaves; ++i) {
    const int exponent = i % kOctaves - kMiddle;
    const double odds = exponent < 0 ? 1.0 / (1 << -exponent) : 1 << exponent;
    hits_[i] = kTiltPrior * (odds / (1.0 + odds));
  }
}

int ExactModel::weights_per_level() { return kWeightsPerLevel; }

ExactModel::Learned ExactModel::learned() const {
  static_assert(sizeof(Weight) == 2 * kParts * sizeof(float));
  Learned to{.weights = std::vector<float>(weights_.size() * 2 * kParts),
             .tilt = hits_,
             .base_weight = base_weight_,
             .recent_cost = recent_cost_,
             .scored = scored_,
             .surprises = surprises_};
  std::memcpy(to.weights.data(), weights_.data(), to.weights.size() * sizeof(float));
  to.tilt.insert(to.tilt.end(), tries_.begin(), tries_.end());
  return to;
}

void ExactModel::learned(const Learned& from) {
  std::memcpy(static_cast<void*>(weights_.data()), from.weights.data(), from.weights.size() * sizeof(float));
  std::copy_n(from.tilt.begin(), hits_.size(), hits_.begin());
  std::copy(from.tilt.begin() + static_cast<std::ptrdiff_t>(hits_.size()), from.tilt.end(), tries_.begin());
  base_weight_ = from.base_weight;
  recent_cost_ = from.recent_cost;
  scored_ = from.scored;
  surprises_ = from.surprises;
}

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

double ExactModel::blended(double base, double chained) const {
  return base_weight_ * base + (1.0 - base_weight_) * chained;
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
    const double interpolated = at.a[0] * first + at.a[1] * more +
                                ((1.0 - at.a[0]) * at.distinct + (1.0 - at.a[1]) * at.repeats) * q;
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
    if (chained > 0.0) learn(depth, target, chained);
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

void ExactModel::count(const std::uint32_t* tokens, int n) {
  counts_.append(tokens, n);
  for (int i = 0; i < n; ++i) largest_token_ = std::max(largest_token_, tokens[i]);
}

template <class Token>
void ExactModel::append(const Token* tokens, std::int64_t n) {
  std::uint32_t chunk[ExactCounts::kChunk];
  for (std::int64_t start = 0; start < n; start += ExactCounts::kChunk) {
    const int size = static_cast<int>(std::min<std::int64_t>(n - start, ExactCounts::kChunk));
    std::copy_n(tokens + start, size, chunk);
    count(chunk, size);
    newest_ = chunk[size - 1];
  }
}

template <class Token>
void ExactModel::score(const Token* tokens, std::int64_t n, const Base& base, double* p, std::uint8_t* order) {
  if (config_.tilt != Tilt::kOff) return score_tilted(tokens, n, base, p, order);
  std::uint32_t chunk[ExactCounts::kChunk];
  for (std::int64_t start = 0; start < n; start += ExactCounts::kChunk) {
    const int size = static_cast<int>(std::min<std::int64_t>(n - start, ExactCounts::kChunk));
    std::copy_n(tokens + start, size, chunk);
    count(chunk, size);
    for (int i = 0; i < size; ++i) {
      const std::int64_t at = start + i;
      Successor target[kMaxLevels];
      const int depth = prepare_evidence(i, base.entropy[at], target);
      order[at] = static_cast<std::uint8_t>(depth);
      p[at] = charge(depth, target, chunk[i], base.target(at, chunk[i]));
    }
  }
}

// Calls visit(i, index in the counts' chunk) for each token, its evidence being that from before the first of them.
template <class Token, class Visit>
void ExactModel::peek_each(const Token* tokens, std::int64_t n, const Visit& visit) {
  std::uint32_t chunk[ExactCounts::kChunk];
  counts_.rewind();
  const std::uint32_t newest = newest_;
  for (std::int64_t start = 0; start < n; start += ExactCounts::kChunk) {
    const int size = static_cast<int>(std::min<std::int64_t>(n - start, ExactCounts::kChunk));
    std::copy_n(tokens + start, size, chunk);
    counts_.peek(chunk, size);
    for (int i = 0; i < size; ++i) {
      visit(start + i, i);
      newest_ = chunk[i];
    }
  }
  newest_ = newest;
}

template <class Token>
void ExactModel::score_together(const Token* tokens, std::int64_t n, const Base& base, double* p,
                                std::uint8_t* order) {
  Successor target[kMaxLevels];
  peek_each(tokens, n, [&](std::int64_t at, int i) {
    const double below = base.target(at, tokens[at]);
    const int depth = prepare_evidence(i, base.entropy[at], target);
    order[at] = static_cast<std::uint8_t>(depth);
    p[at] = config_.chain ? blended(below, chained(depth, target, below)) : below;
  });
  peek_each(tokens, n, [&](std::int64_t at, int i) {  // now learn
    const int depth = prepare_evidence(i, base.entropy[at], target);
    charge(depth, target, tokens[at], base.target(at, tokens[at]));
  });
  append(tokens, n);
}

template <class Token>
void ExactModel::distribution_after(const Token* tokens, std::int64_t n, const double* row, float entropy,
                                    std::int64_t vocab_size, double* p) {
  std::vector<std::uint32_t> with(tokens, tokens + n);
  with.push_back(0);
  Successor target[kMaxLevels];
  for (std::int64_t token = 0; token < vocab_size; ++token) {
    with.back() = static_cast<std::uint32_t>(token);
    peek_each(with.data(), n + 1, [&](std::int64_t at, int i) {
      if (at < n) return;
      const int depth = prepare_evidence(i, entropy, target);
      p[token] = config_.chain ? blended(row[token], chained(depth, target, row[token])) : row[token];
    });
  }
}

// Prepares a position of which `depth` levels are known and collects its target's statistics.
void ExactModel::prepare_evidence(const Recalled& seen, int depth, float entropy, Successor* target) {
  for (int level = 0; level < depth; ++level) target[level] = seen[level].target;
  if (config_.chain) prepare(depth, [&](int level) { return seen[level].context; }, entropy);
}

// The same of position i of the counts' last chunk; the number of levels.
int ExactModel::prepare_evidence(int i, float entropy, Successor* target) {
  const int depth = counts_.depth(i);
  prepare_evidence({&counts_.evidence(0, i), ExactCounts::kChunk}, depth, entropy, target);
  return depth;
}

template <class Token>
void ExactModel::score_recalled(const Token* tokens, std::int64_t n, const Evidence* evidence,
                                const std::uint8_t* depth, const Base& base, bool together, double* p) {
  Successor target[kMaxLevels];
  const std::uint32_t newest = newest_;
  const auto prepare_at = [&](std::int64_t i) {
    prepare_evidence({evidence + i * config_.levels, 1}, depth[i], base.entropy[i], target);
  };
  for (std::int64_t i = 0; together && i < n; ++i) {  // from what was known before the first of them
    const double below = base.target(i, tokens[i]);
    prepare_at(i);
    p[i] = config_.chain ? blended(below, chained(depth[i], target, below)) : below;
    newest_ = tokens[i];
  }
  newest_ = newest;
  for (std::int64_t i = 0; i < n; ++i) {
    prepare_at(i);
    const double charged = charge(depth[i], target, tokens[i], base.target(i, tokens[i]));
    if (!together) p[i] = charged;
  }
}

void ExactModel::distribution_recalled(const Evidence* evidence, int depth, const double* row, float entropy,
                                       std::int64_t vocab_size, double* p) {
  Successor target[kMaxLevels];
  prepare_evidence({evidence, 1}, depth, entropy, target);
  for (std::int64_t token = 0; token < vocab_size; ++token) {
    const Evidence* const seen = evidence + token * config_.levels;
    for (int level = 0; level < depth; ++level) target[level] = seen[level].target;
    p[token] = config_.chain ? blended(row[token], chained(depth, target, row[token])) : row[token];
  }
}

// Probability of `token` at the tip, prepared, before the tilt.
double ExactModel::tip_probability(std::uint32_t token, double base) {
  if (!config_.chain) return base;
  const int depth = counts_.tip_depth();
  Successor target[kMaxLevels];
  for (int level = 0; level < depth; ++level) target[level] = counts_.tip_successor(level, token);
  return blended(base, chained(depth, target, base));
}

// The hint at the tip: among the successors of the longest context the one with the greatest count / total, as a 32-bit
// fraction, plus `recent`; the smallest token of equals. False where there is none, or it is not confident enough.
bool ExactModel::find_hint(const double* row, Hint& hint) {
  const int depth = counts_.tip_depth();
  if (depth == 0) return false;
  const std::uint64_t total = counts_.tip(depth - 1).total;
  std::uint64_t best = 0;
  std::uint32_t count = 0;
  counts_.visit_successors(depth - 1, [&](std::uint32_t token, const Successor& successor) {
    const std::uint64_t merit = (std::uint64_t{successor.count} << 32) / total + successor.recent;
    if (merit > best || (merit == best && token < hint.token)) {
      best = merit;
      count = successor.count;
      hint.token = token;
    }
  });
  if (static_cast<double>(count) < config_.tilt_confidence * static_cast<double>(total)) return false;
  hint.p = tip_probability(hint.token, row[hint.token]);
  if (!(hint.p > 0.0 && hint.p < 1.0)) return false;
  if (config_.tilt == Tilt::kFixed) {
    hint.tilted = hint.p * config_.tilt_factor / (1.0 + hint.p * (config_.tilt_factor - 1.0));
    return true;
  }
  const auto [column, between] = octave(hint.p);
  hint.place = static_cast<std::size_t>(std::min(depth, kTiltOrders) - 1) * kOctaves + column;
  hint.between = between;
  const double low = hits_[hint.place] / tries_[hint.place], high = hits_[hint.place + 1] / tries_[hint.place + 1];
  hint.tilted = low + (high - low) * between;
  return true;
}

void ExactModel::learn_tilt(const Hint& hint, bool came_true) {
  if (config_.tilt != Tilt::kLearned) return;
  for (const auto& [place, weight] : {std::pair{hint.place, 1.0 - hint.between}, std::pair{hint.place + 1, hint.between}}) {
    if (came_true) hits_[place] += weight;
    tries_[place] += weight;
    if (tries_[place] > kTiltMemory) {
      hits_[place] *= 0.5;
      tries_[place] *= 0.5;
    }
  }
}

namespace {

// The tilted probability of a token: the hint gets its own, the others share the rest as before.
double tilted(double p, bool is_hint, double hint_before, double hint_after) {
  return is_hint ? hint_after : p * ((1.0 - hint_after) / (1.0 - hint_before));
}

}  // namespace

template <class Token>
void ExactModel::score_tilted(const Token* tokens, std::int64_t n, const Base& base, double* p, std::uint8_t* order) {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t token = tokens[i];
    const double* row = base.row(i);
    const int depth = counts_.tip_depth();
    if (config_.chain) prepare_tip(base.entropy[i]);
    Hint hint{};
    const bool hinted = find_hint(row, hint);
    Successor target[kMaxLevels];
    for (int level = 0; level < depth; ++level) target[level] = counts_.tip_successor(level, token);
    const double before = charge(depth, target, token, row[token]);
    p[i] = hinted ? tilted(before, token == hint.token, hint.p, hint.tilted) : before;
    order[i] = static_cast<std::uint8_t>(depth);
    if (hinted) learn_tilt(hint, token == hint.token);
    count(&token, 1);
  }
}

void ExactModel::distribution(const double* row, float entropy, std::int64_t vocab_size, double* p) {
  std::copy_n(row, vocab_size, p);
  if (config_.chain) {
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
  Hint hint{};
  if (config_.tilt == Tilt::kOff || !find_hint(row, hint)) return;
  for (std::int64_t token = 0; token < vocab_size; ++token) {
    p[token] = tilted(p[token], token == hint.token, hint.p, hint.tilted);
  }
}

#define NGRAM_INSTANTIATE(Token)                                                                            \
  template void ExactModel::append(const Token*, std::int64_t);                                             \
  template void ExactModel::score(const Token*, std::int64_t, const Base&, double*, std::uint8_t*);         \
  template void ExactModel::score_together(const Token*, std::int64_t, const Base&, double*, std::uint8_t*); \
  template void ExactModel::score_recalled(const Token*, std::int64_t, const Evidence*, const std::uint8_t*,    \
                                           const Base&, bool, double*);                                        \
  template void ExactModel::distribution_after(const Token*, std::int64_t, const double*, float, std::int64_t, double*);
NGRAM_INSTANTIATE(std::uint16_t)
NGRAM_INSTANTIATE(std::uint32_t)
#undef NGRAM_INSTANTIATE

}  // namespace ngram
