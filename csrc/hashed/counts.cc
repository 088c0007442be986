#include "hashed/counts.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "common/clones.h"
#include "common/prefetch.h"
#include "hashed/backoff.h"
#include "hashed/hash.h"

namespace ngram {
namespace {

constexpr std::int64_t kBlock = 4096;  // positions hashed at a time: their buckets stay in the L1/L2 cache
constexpr std::int64_t kAhead = 64;    // positions whose lines are requested ahead of use
constexpr std::int64_t kChunk = std::int64_t{1} << 20;  // positions an order works through before the next order

template <int Width, class Token>
NGRAM_INLINE void hash_width(const Token* oldest, const Token* target, std::int64_t n, std::uint32_t mask,
                             std::uint32_t* __restrict context, std::uint32_t* __restrict full) {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t h = context_hash<Width>(oldest + i);
    context[i] = h & mask;
    full[i] = full_hash<Width>(h, target[i]) & mask;
  }
}

template <class Token>
NGRAM_INLINE void hash_any(int width, const Token* oldest, const Token* target, std::int64_t n, std::uint32_t mask,
                           std::uint32_t* context, std::uint32_t* full) {
  switch (width) {
    case 0: return hash_width<0>(oldest, target, n, mask, context, full);
    case 1: return hash_width<1>(oldest, target, n, mask, context, full);
    case 2: return hash_width<2>(oldest, target, n, mask, context, full);
    case 3: return hash_width<3>(oldest, target, n, mask, context, full);
    case 4: return hash_width<4>(oldest, target, n, mask, context, full);
    case 5: return hash_width<5>(oldest, target, n, mask, context, full);
    case 6: return hash_width<6>(oldest, target, n, mask, context, full);
    case 7: return hash_width<7>(oldest, target, n, mask, context, full);
    case 8: return hash_width<8>(oldest, target, n, mask, context, full);
  }
  static_assert(kMaxOrder == 9, "one case a width");
}

NGRAM_CLONES void hash_tokens(int width, const std::uint16_t* oldest, const std::uint16_t* target, std::int64_t n,
                              std::uint32_t mask, std::uint32_t* context, std::uint32_t* full) {
  hash_any(width, oldest, target, n, mask, context, full);
}

NGRAM_CLONES void hash_tokens(int width, const std::uint32_t* oldest, const std::uint32_t* target, std::int64_t n,
                              std::uint32_t mask, std::uint32_t* context, std::uint32_t* full) {
  hash_any(width, oldest, target, n, mask, context, full);
}

// Overwrites the best match wherever `order` matches; orders therefore come in ascending.
NGRAM_CLONES void keep_matches(const std::uint32_t* __restrict context, const std::uint32_t* __restrict full,
                               std::int64_t n, std::uint32_t min_context, std::uint32_t min_full, std::uint8_t order,
                               std::uint8_t* __restrict best_order, std::uint32_t* __restrict best_context,
                               std::uint32_t* __restrict best_full) {
  for (std::int64_t i = 0; i < n; ++i) {
    const bool matched = matches(context[i], full[i], min_context, min_full);
    best_order[i] = matched ? order : best_order[i];
    best_context[i] = matched ? context[i] : best_context[i];
    best_full[i] = matched ? full[i] : best_full[i];
  }
}

// Keeps the higher order of two partial results.
NGRAM_CLONES void merge_best(std::int64_t n, const std::uint8_t* __restrict order,
                             const std::uint32_t* __restrict context, const std::uint32_t* __restrict full,
                             std::uint8_t* __restrict best_order, std::uint32_t* __restrict best_context,
                             std::uint32_t* __restrict best_full) {
  for (std::int64_t i = 0; i < n; ++i) {
    const bool higher = order[i] > best_order[i];
    best_order[i] = higher ? order[i] : best_order[i];
    best_context[i] = higher ? context[i] : best_context[i];
    best_full[i] = higher ? full[i] : best_full[i];
  }
}

void clear(Best best, std::int64_t n) {
  std::fill_n(best.order, n, std::uint8_t{0});
  std::fill_n(best.context, n, 0u);
  std::fill_n(best.full, n, 0u);
}

// Runs work(t) for every t < threads at once, the last of them on this thread. `work` must not throw.
template <class Work>
void in_parallel(int threads, const Work& work) {
  std::vector<std::thread> others;
  others.reserve(threads - 1);
  try {
    for (int t = 0; t + 1 < threads; ++t) others.emplace_back(work, t);
  } catch (...) {
    for (auto& other : others) other.join();
    throw;
  }
  work(threads - 1);
  for (auto& other : others) other.join();
}

}  // namespace

// What one thread works with: the buckets and counts of a block of positions. The buckets go on past the block with
// copies of the last, so that loops may request lines ahead without asking where the block ends.
struct HashedCounts::Scratch {
  alignas(64) std::array<std::uint32_t, kBlock + kAhead> context_bucket;
  alignas(64) std::array<std::uint32_t, kBlock + kAhead> full_bucket;
  alignas(64) std::array<std::uint32_t, kBlock> context_count;
  alignas(64) std::array<std::uint32_t, kBlock> full_count;

  // To be called once the buckets of a block of n > 0 positions are there: pads them and requests the first lines.
  void begin_block(std::int64_t n, const std::uint32_t* context, const std::uint32_t* full) {
    std::fill_n(context_bucket.begin() + n, kAhead, context_bucket[n - 1]);
    std::fill_n(full_bucket.begin() + n, kAhead, full_bucket[n - 1]);
    for (std::int64_t i = 0; i < kAhead; ++i) {
      NGRAM_PREFETCH(context + context_bucket[i]);
      NGRAM_PREFETCH(full + full_bucket[i]);
    }
  }
};

HashedCounts::HashedCounts(const CountsConfig& config, int threads)
    : config_(config), threads_(threads), tables_(2 * config.buckets * orders()) {
  threads_ = std::clamp(threads, 1, orders());
}

std::int64_t HashedCounts::first_valid(int row, std::int64_t start, std::int64_t stop) const {
  const std::int64_t width = config_.min_order + row - 1;
  return std::min(std::max(start, width - 1 + config_.context_lag), stop);
}

template <class Token>
void HashedCounts::hash(int row, const Token* tokens, std::int64_t start, std::int64_t stop, std::uint32_t* context,
                        std::uint32_t* full) const {
  if (start == stop) return;
  const int width = config_.min_order + row - 1;
  const Token* end_of_context = tokens + start + 1 - config_.context_lag;
  hash_tokens(width, end_of_context - width, tokens + start + 1, stop - start,
              static_cast<std::uint32_t>(config_.buckets - 1), context, full);
}

template <class Token, class Visit>
NGRAM_INLINE void HashedCounts::visit_span(int row, const Token* tokens, std::int64_t start, std::int64_t stop,
                                           Scratch& scratch, const Visit& visit) const {
  const std::uint32_t* const context = table(row, 0);
  const std::uint32_t* const full = table(row, 1);
  const std::uint32_t* const c = scratch.context_bucket.data();
  const std::uint32_t* const f = scratch.full_bucket.data();
  for (std::int64_t block = first_valid(row, start, stop); block < stop; block += kBlock) {
    const std::int64_t n = std::min(kBlock, stop - block);
    hash(row, tokens, block, block + n, scratch.context_bucket.data(), scratch.full_bucket.data());
    scratch.begin_block(n, context, full);
    for (std::int64_t i = 0; i < n; ++i) {
      NGRAM_PREFETCH(context + c[i + kAhead]);
      NGRAM_PREFETCH(full + f[i + kAhead]);
      visit(block - start + i, c[i], f[i]);
    }
  }
}

template <class Token>
void HashedCounts::count_span(int row, const Token* tokens, std::int64_t start, std::int64_t stop, Scratch& scratch) {
  std::uint32_t* const context = table(row, 0);
  std::uint32_t* const full = table(row, 1);
  visit_span(row, tokens, start, stop, scratch, [=](std::int64_t, std::uint32_t c, std::uint32_t f) {
    ++context[c];
    ++full[f];
  });
}

template <class Token>
void HashedCounts::lookup_span(int row, const Token* tokens, std::int64_t start, std::int64_t stop,
                               std::uint32_t* context_count, std::uint32_t* full_count, Scratch& scratch) const {
  const std::uint32_t* const context = table(row, 0);
  const std::uint32_t* const full = table(row, 1);
  const std::int64_t skipped = first_valid(row, start, stop) - start;
  std::fill_n(context_count, skipped, 0u);
  std::fill_n(full_count, skipped, 0u);
  visit_span(row, tokens, start, stop, scratch, [=](std::int64_t i, std::uint32_t c, std::uint32_t f) {
    context_count[i] = context[c];
    full_count[i] = full[f];
  });
}

template <class Token>
void HashedCounts::score_order(int row, const Token* tokens, Windows windows, Then then, Best best, Scratch& scratch) {
  std::uint32_t* const context = table(row, 0);
  std::uint32_t* const full = table(row, 1);
  const std::uint32_t* const c = scratch.context_bucket.data();
  const std::uint32_t* const f = scratch.full_bucket.data();
  const auto order = static_cast<std::uint8_t>(config_.min_order + row);

  std::size_t window = 0;
  while (window < windows.size) {
    // A window longer than a block is looked up piece by piece, then counted.
    if (const std::int64_t length = windows.length(window); length > kBlock) {
      const std::int64_t first = windows.firsts[window], stop = windows.stops[window];
      for (std::int64_t piece = first; piece < stop; piece += kBlock) {
        const std::int64_t piece_stop = std::min(piece + kBlock, stop);
        score_order(row, tokens, Windows{&piece, &piece_stop, 1}, Then::kLeave, best + (piece - first), scratch);
      }
      if (then == Then::kCount) count_span(row, tokens, first, stop, scratch);
      best = best + length;
      ++window;
      continue;
    }

    // A block is as many whole windows as fit. Only its first window may have positions to skip (`skipped`), so that
    // the others' results lie side by side. Windows that continue each other are hashed as one run.
    const std::int64_t block_first = first_valid(row, windows.firsts[window], windows.stops[window]);
    const std::int64_t skipped = block_first - windows.firsts[window];
    std::int64_t run_first = block_first, run_stop = windows.stops[window];
    std::int64_t n = 0;
    std::size_t block_end = window + 1;
    const auto hash_run = [&] {
      hash(row, tokens, run_first, run_stop, scratch.context_bucket.data() + n, scratch.full_bucket.data() + n);
      n += run_stop - run_first;
    };
    for (; block_end < windows.size; ++block_end) {
      const std::int64_t first = windows.firsts[block_end], stop = windows.stops[block_end];
      if (n + (run_stop - run_first) + (stop - first) > kBlock || first_valid(row, first, stop) != first) break;
      if (first != run_stop) {
        hash_run();
        run_first = first;
      }
      run_stop = stop;
    }
    hash_run();

    // Requests are spread over both loops: in one burst they would wait for each other. A line is requested at least
    // kAhead positions before its first use in either loop.
    if (n > 0) scratch.begin_block(n, context, full);
    std::int64_t begin = 0;
    for (std::size_t w = window; w < block_end; ++w) {
      const std::int64_t end = begin + windows.length(w) - (w == window ? skipped : 0);
      for (std::int64_t i = begin; i < end; ++i) {
        NGRAM_PREFETCH(context + c[i + kAhead]);
        scratch.context_count[i] = context[c[i]];
        scratch.full_count[i] = full[f[i]];
      }
      for (std::int64_t i = begin; i < end; ++i) {
        NGRAM_PREFETCH(full + f[i + kAhead]);
        if (then == Then::kCount) {
          ++context[c[i]];
          ++full[f[i]];
        }
      }
      begin = end;
    }

    best = best + skipped;
    keep_matches(scratch.context_count.data(), scratch.full_count.data(), n, config_.min_count, config_.target_backoff,
                 order, best.order, best.context, best.full);
    best = best + n;
    window = block_end;
  }
}

template <class Token>
void HashedCounts::update(const Token* tokens, std::int64_t start, std::int64_t stop) {
  const auto scratch = std::make_unique<Scratch[]>(threads_);
  std::atomic<int> next_row{0};
  in_parallel(threads_, [&](int thread) {
    for (int row; (row = next_row++) < orders();) count_span(row, tokens, start, stop, scratch[thread]);
  });
}

template <class Token>
void HashedCounts::lookup(const Token* tokens, std::int64_t start, std::int64_t stop, std::uint32_t* context,
                          std::uint32_t* full) const {
  const auto scratch = std::make_unique<Scratch[]>(threads_);
  std::atomic<int> next_row{0};
  in_parallel(threads_, [&](int thread) {
    for (int row; (row = next_row++) < orders();) {
      const std::int64_t offset = row * (stop - start);
      lookup_span(row, tokens, start, stop, context + offset, full + offset, scratch[thread]);
    }
  });
}

template <class Token>
void HashedCounts::score_windows(const Token* tokens, Windows windows, Best best) {
  // Threads take the orders of a chunk as they come free, each with best matches of its own for `score_chunk` to merge.
  struct PartialBest {
    std::vector<std::uint8_t> order;
    std::vector<std::uint32_t> context, full;
  };
  std::int64_t total = 0;
  for (std::size_t w = 0; w < windows.size; ++w) total += windows.length(w);
  const std::int64_t room = std::min(total, kChunk);
  const auto scratch = std::make_unique<Scratch[]>(threads_);
  std::vector<PartialBest> memory(threads_ - 1);
  std::vector<Best> partial;
  for (auto& m : memory) {
    m.order.resize(room);
    m.context.resize(room);
    m.full.resize(room);
    partial.push_back({m.order.data(), m.context.data(), m.full.data()});
  }

  const auto score_chunk = [&](Windows chunk, std::int64_t n, Then then) {
    std::atomic<int> next_row{0};
    in_parallel(threads_, [&](int thread) {
      const Best mine = thread == threads_ - 1 ? best : partial[thread];
      clear(mine, n);
      for (int row; (row = next_row++) < orders();) score_order(row, tokens, chunk, then, mine, scratch[thread]);
    });
    if (!partial.empty()) {
      in_parallel(threads_, [&](int thread) {
        const std::int64_t begin = n * thread / threads_, size = n * (thread + 1) / threads_ - begin;
        for (const Best& other : partial) {
          merge_best(size, other.order + begin, other.context + begin, other.full + begin, best.order + begin,
                     best.context + begin, best.full + begin);
        }
      });
    }
    best = best + n;
  };

  std::size_t window = 0;
  while (window < windows.size) {
    // As in `score_order`: a window longer than a chunk is looked up piece by piece, then counted.
    if (windows.length(window) > kChunk) {
      const std::int64_t first = windows.firsts[window], stop = windows.stops[window];
      for (std::int64_t piece = first; piece < stop; piece += kChunk) {
        const std::int64_t piece_stop = std::min(piece + kChunk, stop);
        score_chunk(Windows{&piece, &piece_stop, 1}, piece_stop - piece, Then::kLeave);
      }
      update(tokens, first, stop);
      ++window;
      continue;
    }
    std::int64_t n = 0;
    std::size_t chunk_end = window;
    while (chunk_end < windows.size && n + windows.length(chunk_end) <= kChunk) n += windows.length(chunk_end++);
    score_chunk(windows.slice(window, chunk_end), n, Then::kCount);
    window = chunk_end;
  }
}

#define NGRAM_INSTANTIATE(Token)                                                                                      \
  template void HashedCounts::update(const Token*, std::int64_t, std::int64_t);                                       \
  template void HashedCounts::lookup(const Token*, std::int64_t, std::int64_t, std::uint32_t*, std::uint32_t*) const; \
  template void HashedCounts::score_windows(const Token*, Windows, Best);
NGRAM_INSTANTIATE(std::uint16_t)
NGRAM_INSTANTIATE(std::uint32_t)

}  // namespace ngram
