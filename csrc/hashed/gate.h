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

inline constexpr double kFloor = 1e-30;  // of a probability, before its logarithm
inline constexpr int kLimbBits = 26;

// -ln p in units of 2^-52 nats, rounded: integers, so that no order of adding shows.
NGRAM_HOST_DEVICE std::int64_t charged_units(double p) {
  return static_cast<std::int64_t>(std::floor(-std::log(p > kFloor ? p : kFloor) * 0x1p52 + 0.5));
}

}  // namespace ngram
