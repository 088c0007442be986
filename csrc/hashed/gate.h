// PR #890's gate and blend of a matched order with the neural model, and the sum of what is charged.
// `ngram_eval/scorers/hashed/gate.py` and `ngram_eval/bpb.py` are the specification; exp and log are those of the
// platform, so values agree to rounding (1e-12 of a sum of nats).
#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"
#include "hashed/hash.h"

namespace ngram {

// Weight of the n-gram estimate: base + range x sigmoid(slope x (entropy - centre of the matched order)).
struct Gate {
  double base, range, slope;
  double centre[kMaxOrder + 1];
};

NGRAM_HOST_DEVICE double gate_weight(const Gate& gate, double entropy, int order) {
  const double argument = gate.slope * (entropy - gate.centre[order]);
  const double decay = std::exp(-std::fabs(argument));  // of the negative side, so that nothing overflows
  return gate.base + gate.range * ((argument >= 0 ? 1.0 : decay) / (1.0 + decay));
}

// What the counts of a matched order say of the target.
NGRAM_HOST_DEVICE double ngram_estimate(std::uint32_t context, std::uint32_t full) {
  return static_cast<double>(full < context ? full : context) / static_cast<double>(context > 0 ? context : 1);
}

NGRAM_HOST_DEVICE double blend(double weight, double neural, double ngram) {
  return (1.0 - weight) * neural + weight * ngram;
}

inline constexpr double kFloor = 1e-30;    // of a probability, before its logarithm
inline constexpr double kMost = 1 + 2e-3;  // of what rounding may have made of one; charged as 1
inline constexpr int kLimbBits = 26;

NGRAM_HOST_DEVICE bool is_probability(double p) { return p >= 0.0 && p <= kMost; }  // NaN is none

// -ln p in units of 2^-52 nats, rounded: integers, so that no order of adding shows.
NGRAM_HOST_DEVICE std::int64_t charged_units(double p) {
  const double clipped = p > kFloor ? p < 1.0 ? p : 1.0 : kFloor;
  return static_cast<std::int64_t>(std::floor(-std::log(clipped) * 0x1p52 + 0.5));
}

}  // namespace ngram
