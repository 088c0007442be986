// Hashed n-gram counts: per order two direct-mapped tables of 32-bit counts, one of contexts and one of full n-grams
// (context + target). `ngram_eval/scorers/hashed/reference.py` is the specification; results and tables equal it exactly.
//
// Invariants
//   - `data()` is (orders, 2, buckets), lowest order first: [i][0] context counts, [i][1] full counts. Counts wrap at 2^32.
//   - Position p predicts tokens[p + 1]. Its context of w = order - 1 tokens ends at x[p - lag]. A position whose
//     context would start before the stream is neither counted nor matched in that order.
//   - Orders share nothing until the best match of a position is chosen. So orders are worked through one at a time,
//     over a whole chunk of positions: the tables in use are those of one order, and threads take different orders.
//   - Counts are integers and each table is worked on by one thread, in stream order: no result depends on the threads.
//   - Callers check their arguments (`python/hashed.cc` does): positions within [0, tokens - 1), first <= stop. One call at a
//     time per object.
//
// Cost
//   - Tables: orders x 2 x buckets x 4 bytes. Scratch: about 9 MiB a thread, whatever the length of the stream.
//   - A position costs two random table lines an order, requested ahead of use; the hash is vectorised and small.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/host_device.h"
#include "common/zero_pages.h"

namespace ngram {

struct CountsConfig {
  int min_order;
  int max_order;
  std::uint64_t buckets;    // a power of two, at most 2^32
  std::uint32_t min_count;  // smallest context count with which an order may match
  int context_lag;          // tokens between the end of a context and its target
  bool target_backoff;      // an order matches only if its full count is not 0
};

// Where the best match of each position goes: its order (0 if none) and its two counts. One entry a position.
struct Best {
  std::uint8_t* order;
  std::uint32_t* context;
  std::uint32_t* full;

  Best operator+(std::size_t n) const { return {order + n, context + n, full + n}; }
};

// Window i is the positions [firsts[i], stops[i]). Windows may overlap and go back.
struct Windows {
  const std::int64_t* firsts;
  const std::int64_t* stops;
  std::size_t size;

  NGRAM_HOST_DEVICE std::int64_t length(std::size_t i) const { return stops[i] - firsts[i]; }
  Windows slice(std::size_t begin, std::size_t end) const { return {firsts + begin, stops + begin, end - begin}; }
};

class HashedCounts {
 public:
  HashedCounts(const CountsConfig& config, int threads);

  // Counts positions [start, stop) in both tables of every order.
  template <class Token>
  void update(const Token* tokens, std::int64_t start, std::int64_t stop);

  // Counts of positions [start, stop) as the tables stand; `context` and `full` are (orders, stop - start).
  template <class Token>
  void lookup(const Token* tokens, std::int64_t start, std::int64_t stop, std::uint32_t* context,
              std::uint32_t* full) const;

  // Window by window: looks up all its positions, keeps the highest matching order of each, then counts them all.
  // `best` takes the windows' positions one after another.
  template <class Token>
  void score_windows(const Token* tokens, Windows windows, Best best);

  int orders() const { return config_.max_order - config_.min_order + 1; }
  std::uint64_t buckets() const { return config_.buckets; }
  std::uint32_t* data() { return tables_.data(); }
  std::size_t size() const { return tables_.size(); }

 private:
  struct Scratch;
  enum class Then { kCount, kLeave };

  std::uint32_t* table(int row, int full) { return tables_.data() + (2 * row + full) * config_.buckets; }
  const std::uint32_t* table(int row, int full) const { return tables_.data() + (2 * row + full) * config_.buckets; }

  // First position of [start, stop) whose context lies within the stream, or stop.
  std::int64_t first_valid(int row, std::int64_t start, std::int64_t stop) const;

  template <class Token>
  void hash(int row, const Token* tokens, std::int64_t start, std::int64_t stop, std::uint32_t* context,
            std::uint32_t* full) const;
  // Calls visit(offset from start, context bucket, full bucket) for each position that has a whole context.
  template <class Token, class Visit>
  void visit_span(int row, const Token* tokens, std::int64_t start, std::int64_t stop, Scratch& scratch,
                  const Visit& visit) const;
  template <class Token>
  void count_span(int row, const Token* tokens, std::int64_t start, std::int64_t stop, Scratch& scratch);
  template <class Token>
  void lookup_span(int row, const Token* tokens, std::int64_t start, std::int64_t stop, std::uint32_t* context,
                   std::uint32_t* full, Scratch& scratch) const;
  template <class Token>
  void score_order(int row, const Token* tokens, Windows windows, Then then, Best best, Scratch& scratch);

  CountsConfig config_;
  int threads_;
  ZeroPages<std::uint32_t> tables_;
};

}  // namespace ngram
