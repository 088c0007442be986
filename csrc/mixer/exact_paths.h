// What exact counts (`exact/model.h`) say of decisions: the sums of their chain over the tokens on both sides.
//
// A token's parts are added up as integers, so that every order of adding gives the same sums, of ranges of ranks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "exact/model.h"

namespace ngram {

class ExactPaths {
 public:
  ExactPaths(int levels, const std::vector<std::uint32_t>& rank)
      : model_({levels, true, Tilt::kOff, 1.0, 0.0, 1}), rank_(rank), below_(rank.size() + 1) {}

  ExactModel& model() { return model_; }

  // The next token's parts.
  void begin() {
    std::fill(below_.begin(), below_.end(), 0);
    rest_ = model_.parts(0.0f, [this](std::uint32_t token, double part) {
      below_[rank_[token] + 1] += static_cast<std::int64_t>(part * kOne);
    });
    std::int64_t sum = 0;
    for (std::int64_t& below : below_) below = sum += below;
  }

  // The probability of a 1 at a node, given the base's probability of it and of a 1 there.
  double one(std::uint32_t low, std::uint32_t mid, std::uint32_t high, double base, double base_one) const {
    const double left = part(low, mid) + rest_ * (base * (1.0 - base_one));
    const double right = part(mid, high) + rest_ * (base * base_one);
    const double whole = left + right;
    return whole > 0.0 ? right / whole : 0.5;
  }

  // The token comes next, of which the base said this.
  void learn(std::uint32_t token, double base) { model_.follow_parts(token, base); }

 private:
  static constexpr double kOne = 1125899906842624.0;  // 2^50

  double part(std::uint32_t low, std::uint32_t high) const {
    return static_cast<double>(below_[high] - below_[low]) * (1.0 / kOne);
  }

  ExactModel model_;
  const std::vector<std::uint32_t>& rank_;
  std::vector<std::int64_t> below_;  // of all ranks below each, V + 1
  double rest_ = 1.0;                // the base's factor
};

}  // namespace ngram
