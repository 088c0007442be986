#include "ppmd/ppmd.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace ngram {

ByteSpelling::ByteSpelling(std::vector<std::string> of)
    : surfaces(std::move(of)), sorted(surfaces.size()), rank(surfaces.size()), shared(surfaces.size()) {
  std::iota(sorted.begin(), sorted.end(), 0u);
  std::stable_sort(sorted.begin(), sorted.end(), [&](auto a, auto b) { return surfaces[a] < surfaces[b]; });
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    rank[sorted[i]] = static_cast<std::uint32_t>(i);
    if (i == 0) continue;
    const std::string &one = surfaces[sorted[i - 1]], &other = surfaces[sorted[i]];
    const auto end = one.begin() + static_cast<std::ptrdiff_t>(std::min(one.size(), other.size()));
    shared[i] = static_cast<std::uint32_t>(std::mismatch(one.begin(), end, other.begin()).first - one.begin());
  }
}

Ppmd::Ppmd(const PpmdConfig& config, std::vector<std::string> surfaces, std::vector<std::string> bare)
    : config_(config), spelled_(std::move(surfaces)), bare_(std::move(bare)) {}

void Ppmd::push(std::uint8_t byte) {
  for (int order = 1; order <= past_.orders(config_.max_order); ++order) {
    Followers& followers = contexts_[order - 1].get(past_.context(order));
    std::uint32_t& count = counts_[order - 1].get(past_.context(order) << 8 | byte);
    if (followers.total == std::numeric_limits<std::uint32_t>::max()) {
      throw std::length_error("the byte mixture counts at most 4,294,967,295 bytes");
    }
    ++followers.total;
    if (++count == 1) ++followers.distinct;
    followers.most = std::max(followers.most, count);
  }
  past_ = past_.with(byte);
}

void Ppmd::append(std::uint32_t token) {
  const std::string& surface = spelling().surfaces[token];
  for (const char byte : surface) push(static_cast<std::uint8_t>(byte));
  silent_ = spelled_.surfaces[token].empty();
}

std::uint32_t Ppmd::count(int order, std::uint64_t context, std::uint8_t byte, const Supposed* path,
                          std::size_t n) const {
  std::uint32_t count = counts_[order - 1].find(context << 8 | byte);
  for (std::size_t i = 0; i < n; ++i) {
    const Past& past = path[i].after;
    count += path[i].byte == byte && order <= past.orders(order) && past.context(order) == context;
  }
  return count;
}

Followers Ppmd::followers(int order, std::uint64_t context, const Supposed* path, std::size_t n) const {
  Followers found = contexts_[order - 1].find(context);
  for (std::size_t i = 0; i < n; ++i) {
    const Past& past = path[i].after;
    if (order > past.orders(order) || past.context(order) != context) continue;
    const std::uint32_t now = count(order, context, path[i].byte, path, i + 1);
    ++found.total;
    found.distinct += now == 1;
    found.most = std::max(found.most, now);
  }
  return found;
}

// `byte` after `past`, of which the last n bytes, `path`, are only supposed.
ByteStep Ppmd::look(const Past& past, std::uint8_t byte, const Supposed* path, std::size_t n) const {
  double escape = 1.0, p = -1.0, confidence = 0.0;
  ByteStep step{0.0, 0.0, 0, 0, {0.0, 0.0}};
  for (int order = past.orders(config_.max_order); order > 0; --order) {
    const Followers found = followers(order, past.context(order), path, n);
    if (found.total == 0) continue;
    if (step.longest == 0) {
      step.longest = order;
      confidence = static_cast<double>(found.most) / found.total;
    }
    const double twice = 2.0 * found.total;
    if (const std::uint32_t c = count(order, past.context(order), byte, path, n); c > 0) {
      p = escape * (2.0 * c - 1.0) / twice;
      step.used = order;
      break;
    }
    escape = escape * found.distinct / twice;
  }
  step.ppm = std::max(p < 0.0 ? escape / 256.0 : p, 1e-20);
  const bool sure = (config_.target_gate ? step.ppm : confidence) > config_.sure_above;
  step.weight = sure ? config_.weight_sure : config_.weight;
  return step;
}

std::vector<ByteStep> Ppmd::steps(std::uint32_t token) const {
  std::vector<ByteStep> made;
  std::vector<Supposed> path;
  Past past = past_;
  for (const char c : spelling().surfaces[token]) {
    const auto byte = static_cast<std::uint8_t>(c);
    made.push_back(look(past, byte, path.data(), path.size()));
    path.push_back({past, byte});
    past = past.with(byte);
  }
  return made;
}

// Of the tokens that share `depth` bytes with sorted[place]. Tokens of just these bytes come first.
Mass Ppmd::mass(const double* row, std::uint32_t place, std::size_t depth) const {
  const ByteSpelling& by = spelling();
  std::size_t first = place, stop = place + 1;
  while (first > 0 && by.shared[first] >= depth) --first;
  while (stop < by.sorted.size() && by.shared[stop] >= depth) ++stop;
  Mass mass{0.0, 0.0};
  for (std::size_t i = first; i < stop; ++i) {
    mass.all += row[by.sorted[i]];
    if (by.surfaces[by.sorted[i]].size() > depth) mass.longer += row[by.sorted[i]];
  }
  return mass;
}

double Ppmd::value(double p, const std::vector<ByteStep>& steps, const Mass& root) const {
  if (steps.empty()) return p;
  if (!config_.marginal) {
    const double share = std::pow(p, 1.0 / static_cast<double>(steps.size()));
    double value = 1.0;
    for (const ByteStep& step : steps) value *= step.weight * share + (1.0 - step.weight) * step.ppm;
    return value;
  }
  if (p == 0.0) return 0.0;
  double value = root.all;
  Mass before = root;
  for (const ByteStep& step : steps) {
    value *= (step.weight * step.mass.all + (1.0 - step.weight) * step.ppm * before.longer) / before.all;
    before = step.mass;
  }
  return value * p / before.all;
}

double Ppmd::score(std::uint32_t token, double p, const double* row, std::uint8_t* order, double* weight) {
  std::vector<ByteStep> made;
  const std::uint32_t place = spelling().rank[token];
  const Mass root = config_.marginal ? mass(row, place, 0) : Mass{};
  *weight = 0.0;
  for (const char c : spelling().surfaces[token]) {
    const auto byte = static_cast<std::uint8_t>(c);
    made.push_back(look(past_, byte, nullptr, 0));
    if (config_.marginal) made.back().mass = mass(row, place, made.size());
    *weight += 1.0 - made.back().weight;
    push(byte);
  }
  silent_ = spelled_.surfaces[token].empty();
  if (!made.empty()) *weight /= static_cast<double>(made.size());
  *order = made.empty() ? 0 : static_cast<std::uint8_t>(made.front().longest);
  return value(p, made, root);
}

void Ppmd::distribution(const double* row, const std::uint32_t* target, double* values) const {
  const ByteSpelling& by = spelling();
  const std::vector<ByteStep> chosen = target ? steps(*target) : std::vector<ByteStep>{};
  const Mass root = config_.marginal ? mass(row, 0, 0) : Mass{};
  std::vector<ByteStep> made;
  std::vector<Supposed> path;
  for (std::uint32_t place = 0; place < vocab_size(); ++place) {  // tokens that begin alike share the steps
    const std::uint32_t token = by.sorted[place];
    const std::size_t kept = std::min<std::size_t>(by.shared[place], made.size());
    made.resize(kept);
    path.resize(kept);
    for (std::size_t i = kept; i < by.surfaces[token].size(); ++i) {
      const auto byte = static_cast<std::uint8_t>(by.surfaces[token][i]);
      const Past past = path.empty() ? past_ : path.back().after.with(path.back().byte);
      made.push_back(look(past, byte, path.data(), path.size()));
      if (i < chosen.size()) made.back().weight = chosen[i].weight;
      if (config_.marginal) made.back().mass = mass(row, place, i + 1);
      path.push_back({past, byte});
    }
    values[token] = value(row[token], made, root);
  }
}

void Ppmd::evidence(std::uint32_t token, std::int64_t* occurred, std::int64_t* distinct, std::int64_t* followed,
                    double* shares) const {
  const std::vector<ByteStep> made = steps(token);
  for (int order = 1; order <= config_.max_order; ++order) {
    const bool there = !made.empty() && order <= past_.orders(config_.max_order);
    const std::uint64_t context = past_.context(order);
    const Followers found = there ? followers(order, context, nullptr, 0) : Followers{};
    occurred[order - 1] = found.total;
    distinct[order - 1] = found.distinct;
    followed[order - 1] = 0;
    if (there) {
      const auto byte = static_cast<std::uint8_t>(spelling().surfaces[token].front());
      followed[order - 1] = count(order, context, byte, nullptr, 0);
    }
  }
  std::fill(shares, shares + config_.max_order + 1, 0.0);
  for (const ByteStep& step : made) shares[step.used] += (1.0 - step.weight) / static_cast<double>(made.size());
}

}  // namespace ngram
