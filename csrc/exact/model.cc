#include "exact/model.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <thread>

namespace ngram {

namespace {

constexpr int kAhead = 4;  // chunks by which counting may be ahead of charging
constexpr std::int64_t kWorthAThread = 4 * ExactCounts::kChunk;

}  // namespace

ExactModel::ExactModel(const ExactModelConfig& config)
    : config_(config),
      counts_(config.levels),
      chunks_(config.threads > 1 ? kAhead : 1, ExactCounts::Chunk(config.levels)) {
  begin_chain();
  begin_tilt();
}

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

// Counts the first chunk of `n` tokens, and says what was known of them unless `chunk` is null; its length.
template <class Token>
int ExactModel::count(const Token* tokens, std::int64_t n, ExactCounts::Chunk* chunk) {
  std::uint32_t wide[ExactCounts::kChunk];
  const int size = static_cast<int>(std::min<std::int64_t>(n, ExactCounts::kChunk));
  std::copy_n(tokens, size, wide);
  counts_.append(wide, size, chunk);
  largest_token_ = std::max(largest_token_, *std::max_element(wide, wide + size));
  return size;
}

template <class Token>
void ExactModel::append(const Token* tokens, std::int64_t n) {
  counts_.reserve(static_cast<std::uint64_t>(n));
  for (std::int64_t at = 0; at < n;) at += count(tokens + at, n - at, nullptr);
  if (n > 0) newest_ = tokens[n - 1];
}

// Calls visit(chunk, first token, tokens) for each chunk in order, while another thread counts the next ones: counts do
// not depend on what is charged. What stops it is thrown here, after the chunks before it.
template <class Token, class Visit>
void ExactModel::count_ahead(const Token* tokens, std::int64_t n, const Visit& visit) {
  const std::int64_t all = (n + ExactCounts::kChunk - 1) / ExactCounts::kChunk;
  std::atomic<std::int64_t> counted = 0, visited = 0;  // chunks
  std::atomic<std::int64_t> last = all;                // chunks that are ever counted
  std::exception_ptr failure;
  std::thread counter([&] {
    try {
      for (std::int64_t k = 0; k < all; ++k) {
        for (std::int64_t seen = visited; seen + kAhead <= k; seen = visited) visited.wait(seen);
        const std::int64_t at = k * ExactCounts::kChunk;
        count(tokens + at, n - at, &chunks_[k % kAhead]);
        counted = k + 1;
        counted.notify_one();
      }
    } catch (...) {
      failure = std::current_exception();
      last = counted.load();
      counted = all + 1;
      counted.notify_one();
    }
  });
  for (std::int64_t k = 0; k < last; ++k) {
    for (std::int64_t ready = counted; ready <= k; ready = counted) counted.wait(ready);
    if (k >= last) break;
    const std::int64_t at = k * ExactCounts::kChunk;
    visit(chunks_[k % kAhead], at, static_cast<int>(std::min<std::int64_t>(n - at, ExactCounts::kChunk)));
    visited = k + 1;
    visited.notify_one();
  }
  counter.join();
  if (failure) std::rethrow_exception(failure);
}

template <class Token>
void ExactModel::score(const Token* tokens, std::int64_t n, const Base& base, double* p, std::uint8_t* order) {
  if (config_.tilt != Tilt::kOff) return score_tilted(tokens, n, base, p, order);
  const auto charge_each = [&](const ExactCounts::Chunk& chunk, std::int64_t first, int size) {
    for (std::int64_t at = first; at < first + size; ++at) {
      Successor target[kMaxLevels];
      const int depth = prepare_evidence(chunk, static_cast<int>(at - first), base.entropy[at], target);
      order[at] = static_cast<std::uint8_t>(depth);
      p[at] = charge(depth, target, tokens[at], base.target(at, tokens[at]));
    }
  };
  if (config_.threads > 1 && n >= kWorthAThread) return count_ahead(tokens, n, charge_each);
  for (std::int64_t at = 0; at < n; at += ExactCounts::kChunk) {
    charge_each(chunks_[0], at, count(tokens + at, n - at, &chunks_[0]));
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
    counts_.peek(chunk, size, chunks_[0]);
    for (int i = 0; i < size; ++i) {
      visit(start + i, i);
      newest_ = chunk[i];
    }
  }
  newest_ = newest;
}

template <class Token>
void ExactModel::score_together(const Token* tokens, std::int64_t n, const Base& base, double* p, std::uint8_t* order) {
  Successor target[kMaxLevels];
  peek_each(tokens, n, [&](std::int64_t at, int i) {
    const double below = base.target(at, tokens[at]);
    const int depth = prepare_evidence(chunks_[0], i, base.entropy[at], target);
    order[at] = static_cast<std::uint8_t>(depth);
    p[at] = config_.chain ? blended(below, chained(depth, target, below)) : below;
  });
  peek_each(tokens, n, [&](std::int64_t at, int i) {  // now learn
    const int depth = prepare_evidence(chunks_[0], i, base.entropy[at], target);
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
      const int depth = prepare_evidence(chunks_[0], i, entropy, target);
      p[token] = config_.chain ? blended(row[token], chained(depth, target, row[token])) : row[token];
    });
  }
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

void ExactModel::follow_parts(std::uint32_t token, double base) {
  ExactCounts::Chunk& chunk = chunks_[0];
  count(&token, 1, &chunk);
  Successor target[kMaxLevels];
  for (int level = 0; level < chunk.depth[0]; ++level) target[level] = chunk.evidence(level, 0).target;
  charge(chunk.depth[0], target, token, base);
}

void ExactModel::distribution(const double* row, float entropy, std::int64_t vocab_size, double* p) {
  std::copy_n(row, vocab_size, p);
  if (config_.chain) distribute_chain(row, entropy, vocab_size, p);
  if (config_.tilt != Tilt::kOff) distribute_tilt(row, vocab_size, p);
}

#define NGRAM_INSTANTIATE(Token)                                                                             \
  template void ExactModel::append(const Token*, std::int64_t);                                              \
  template void ExactModel::score(const Token*, std::int64_t, const Base&, double*, std::uint8_t*);          \
  template void ExactModel::score_together(const Token*, std::int64_t, const Base&, double*, std::uint8_t*); \
  template void ExactModel::score_recalled(const Token*, std::int64_t, const Evidence*, const std::uint8_t*, \
                                           const Base&, bool, double*);                                      \
  template void ExactModel::distribution_after(const Token*, std::int64_t, const double*, float, std::int64_t, double*);
NGRAM_INSTANTIATE(std::uint16_t)
NGRAM_INSTANTIATE(std::uint32_t)
#undef NGRAM_INSTANTIATE

}  // namespace ngram
