// The tilt of exact counts: the hint of the longest context, and how often hints so sure came true.
#include <algorithm>
#include <bit>

#include "exact/model.h"

namespace ngram {

namespace {

// The learned tilt: `kOctaves` entries an order, one for each power of two of the odds of p(hint).
constexpr int kTiltOrders = 8, kOctaves = 41, kMiddle = 20;
constexpr double kTiltPrior = 10.0, kTiltMemory = 512.0;

// Place of p in the learned tilt's map, and how far towards the next.
std::pair<int, double> octave(double p) {
  const double odds = std::clamp(p / (1.0 - p), 0x1p-20, 0x1.fffffffffffffp+19);
  const auto bits = std::bit_cast<std::uint64_t>(odds);
  const int exponent = static_cast<int>(bits >> 52) - 1023;
  const double fraction = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u) - 1.0;
  return {exponent + kMiddle, fraction};
}

}  // namespace

void ExactModel::begin_tilt() {
  hits_.resize(kTiltOrders * kOctaves);
  tries_.assign(kTiltOrders * kOctaves, kTiltPrior);
  for (int i = 0; i < kTiltOrders * kOctaves; ++i) {
    const int exponent = i % kOctaves - kMiddle;
    const double odds = exponent < 0 ? 1.0 / (1 << -exponent) : 1 << exponent;
    hits_[i] = kTiltPrior * (odds / (1.0 + odds));
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
  for (const auto& [place, weight] :
       {std::pair{hint.place, 1.0 - hint.between}, std::pair{hint.place + 1, hint.between}}) {
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
    count(&token, 1, nullptr);
  }
}

void ExactModel::distribute_tilt(const double* row, std::int64_t vocab_size, double* p) {
  Hint hint{};
  if (!find_hint(row, hint)) return;
  for (std::int64_t token = 0; token < vocab_size; ++token) {
    p[token] = tilted(p[token], token == hint.token, hint.p, hint.tilted);
  }
}

template void ExactModel::score_tilted(const std::uint16_t*, std::int64_t, const Base&, double*, std::uint8_t*);
template void ExactModel::score_tilted(const std::uint32_t*, std::int64_t, const Base&, double*, std::uint8_t*);

}  // namespace ngram
