// The hashed tables on the device. `hashed/counts.h` states what they hold; results and tables equal it exactly.
//
// Score-first windows take one launch, whatever their number: a team that stays (`MatchWindows`). Window after window it
// looks all positions up, waits, counts them, waits. The lookups are atomic loads and the counts atomic adds, both
// relaxed: the barrier orders them, so that a window sees all that earlier ones counted and nothing of its own. Lines of
// the window after next are requested into L2 while one is counted, so that a window waits for L2 and not for
// memory: buckets are known before the counts are. What positions are charged (`Charge`) follows from the matches, all at
// once in a second launch: logarithms would only hold the team up.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "cuda/device.h"
#include "cuda/parallel.h"
#include "hashed/backoff.h"
#include "hashed/counts.h"
#include "hashed/gate.h"
#include "hashed/hash.h"

namespace ngram::device {

// A stretch of a stream, from token `base` on.
template <class Token>
struct Tokens {
  const Token* data;
  std::int64_t base;

  NGRAM_HOST_DEVICE const Token* at(std::int64_t index) const { return data + (index - base); }
};

struct Tables {
  CountsConfig config;
  std::uint32_t* counts;  // (orders, 2, buckets)

  NGRAM_HOST_DEVICE int orders() const { return config.max_order - config.min_order + 1; }
  NGRAM_HOST_DEVICE std::uint32_t* context(std::int64_t row) const { return counts + 2 * row * config.buckets; }
  NGRAM_HOST_DEVICE std::uint32_t* full(std::int64_t row) const { return context(row) + config.buckets; }

  // Whether the context of `width` tokens of a position lies within the stream.
  NGRAM_HOST_DEVICE bool whole(int width, std::int64_t position) const {
    return position >= width - 1 + config.context_lag;
  }
};

struct Counters {
  std::uint32_t* context;
  std::uint32_t* full;
};

// The counters of the context of `kWidth` tokens from `oldest` on, and of it with the target.
template <int kWidth, class Token>
NGRAM_HOST_DEVICE Counters counters(const Tables& tables, const Token* oldest, std::uint32_t target) {
  const std::uint32_t mask = static_cast<std::uint32_t>(tables.config.buckets - 1);
  const std::int64_t row = kWidth + 1 - tables.config.min_order;
  const std::uint32_t h = context_hash<kWidth>(oldest);
  return {tables.context(row) + (h & mask), tables.full(row) + (full_hash<kWidth>(h, target) & mask)};
}

// Calls visit(integral_constant<int, width>) for each width from 0 to kMaxOrder - 1: unrolled, since what belongs to a
// width is to stay in registers.
template <class Visit, int... kWidths>
NGRAM_HOST_DEVICE void each_width(const Visit& visit, std::integer_sequence<int, kWidths...>) {
  (visit(std::integral_constant<int, kWidths>()), ...);
}

template <class Visit>
NGRAM_HOST_DEVICE void each_width(const Visit& visit) {
  each_width(visit, std::make_integer_sequence<int, kMaxOrder>());
}

// The two counters of a position in one order; the position must have a whole context there.
template <class Token>
NGRAM_HOST_DEVICE Counters counters(int width, const Tables& tables, const Tokens<Token>& tokens,
                                    std::int64_t position) {
  Counters found{};
  const Token* const end = tokens.at(position + 1 - tables.config.context_lag);
  each_width([&](auto w) {
    if (width == w()) found = counters<w()>(tables, end - w(), *tokens.at(position + 1));
  });
  return found;
}

// rows(orders, positions): counts positions from `start` on.
template <class Token>
struct Update {
  Tables tables;
  Tokens<Token> tokens;
  std::int64_t start;

  NGRAM_HOST_DEVICE void operator()(std::int64_t row, std::int64_t i) const {
    const int width = tables.config.min_order + static_cast<int>(row) - 1;
    if (!tables.whole(width, start + i)) return;
    const Counters at = counters(width, tables, tokens, start + i);
    parallel::add(at.context, 1u);
    parallel::add(at.full, 1u);
  }
};

// rows(orders, positions): both counts of positions from `start` on, 0 without a whole context.
template <class Token>
struct Lookup {
  Tables tables;
  Tokens<Token> tokens;
  std::int64_t start, positions;
  std::uint32_t* context;  // (orders, positions)
  std::uint32_t* full;

  NGRAM_HOST_DEVICE void operator()(std::int64_t row, std::int64_t i) const {
    const int width = tables.config.min_order + static_cast<int>(row) - 1;
    std::uint32_t c = 0, f = 0;
    if (tables.whole(width, start + i)) {
      const Counters at = counters(width, tables, tokens, start + i);
      c = *at.context;
      f = *at.full;
    }
    context[row * positions + i] = c;
    full[row * positions + i] = f;
  }
};

struct Match {
  int order = 0;
  std::uint32_t context = 0, full = 0;
};

// The best match of a position as the tables stand, while other threads may count. All tokens are asked for before the
// first hash, and all counts before the first is looked at.
template <class Token>
NGRAM_HOST_DEVICE Match best_match(const Tables& tables, const Tokens<Token>& tokens, std::int64_t position) {
  const CountsConfig& config = tables.config;
  std::uint32_t before[kMaxOrder];  // the context's tokens, the newest last; the first entry is not used
  const Token* const end = tokens.at(position + 1 - config.context_lag);
  each_width([&](auto w) {
    if (w() > 0) before[kMaxOrder - w()] = w() < config.max_order && tables.whole(w(), position) ? end[-w()] : 0;
  });
  const std::uint32_t target = *tokens.at(position + 1);
  std::uint32_t context[kMaxOrder], full[kMaxOrder];
  each_width([&](auto w) {
    context[w()] = full[w()] = 0;
    if (w() + 1 >= config.min_order && w() < config.max_order && tables.whole(w(), position)) {
      const Counters at = counters<w()>(tables, before + kMaxOrder - w(), target);
      context[w()] = parallel::load(at.context);
      full[w()] = parallel::load(at.full);
    }
  });
  Match best;
  each_width([&](auto w) {
    // An order outside those asked for has counted nothing, and min_count is at least 1.
    if (matches(context[w()], full[w()], config.min_count, config.target_backoff)) {
      best = {w() + 1, context[w()], full[w()]};
    }
  });
  return best;
}

// team: the best matches of windows in order, each before it is counted.
template <class Token>
struct MatchWindows {
  Tables tables;
  Tokens<Token> tokens;
  Windows windows;
  Best best;

  template <class Team>
  NGRAM_HOST_DEVICE void operator()(const Team& team) const {
    std::int64_t entry = 0;
    for (std::size_t w = 0; w < 2 && w < windows.size; ++w) request(team, w);
    for (std::size_t w = 0; w < windows.size; ++w) {
      const std::int64_t first = windows.firsts[w], length = windows.length(w);
      for (std::int64_t i = team.rank(); i < length; i += team.size()) {
        const Match match = best_match(tables, tokens, first + i);
        best.order[entry + i] = static_cast<std::uint8_t>(match.order);
        best.context[entry + i] = match.context;
        best.full[entry + i] = match.full;
      }
      team.wait();  // no count of this window before its last lookup
      each_pair(team, w, [](const Counters& at) {
        parallel::add(at.context, 1u);
        parallel::add(at.full, 1u);
      });
      if (w + 2 < windows.size) request(team, w + 2);
      team.wait();  // no lookup of the next before this one's last count
      entry += length;
    }
  }

 private:
  // Calls visit for the counters of each position of the window in each order, among the threads of the team.
  template <class Team, class Visit>
  NGRAM_HOST_DEVICE void each_pair(const Team& team, std::size_t window, const Visit& visit) const {
    const int per_order = team.size() < tables.orders() ? 1 : team.size() / tables.orders();  // threads
    for (int row = team.rank() / per_order; row < tables.orders(); row += team.size() / per_order) {
      const int width = tables.config.min_order + row - 1;
      for (std::int64_t position = windows.firsts[window] + team.rank() % per_order; position < windows.stops[window];
           position += per_order) {
        if (tables.whole(width, position)) visit(counters(width, tables, tokens, position));
      }
    }
  }

  template <class Team>
  NGRAM_HOST_DEVICE void request(const Team& team, std::size_t window) const {
    each_pair(team, window, [](const Counters& at) {
      parallel::request(at.context);
      parallel::request(at.full);
    });
  }
};

NGRAM_HOST_DEVICE void add_units(std::int64_t* limbs, std::int64_t units) {
  parallel::add(limbs, units >> kLimbBits);
  parallel::add(limbs + 1, units & ((std::int64_t{1} << kLimbBits) - 1));
}

// rows(1, positions): what each is charged with, given its match.
struct Charge {
  Best best;
  Charging charging;
  Windows windows;
  const std::int64_t* ends;  // (windows,): positions of each window and all before it

  NGRAM_HOST_DEVICE void operator()(std::int64_t, std::int64_t i) const {
    const double neural = charging.p_target[i], entropy = charging.entropy[i];
    const int order = best.order[i];
    const double weight = order > 0 ? gate_weight(charging.gate, entropy, order) : 0.0;
    const double p = blend(weight, neural, ngram_estimate(best.context[i], best.full[i]));
    charging.values[i] = p;
    if (!is_probability(p) || !is_probability(neural) || entropy != entropy) {
      return parallel::lower(charging.bad, position(i));
    }
    std::int64_t* const sums = charging.sums + 4 * (i % charging.rows);
    add_units(sums, charged_units(p));
    add_units(sums + 2, charged_units(neural));
    parallel::add(charging.hits + order, std::int64_t{1});
  }

 private:
  // Of entry i: in the first window that ends after it.
  NGRAM_HOST_DEVICE std::int64_t position(std::int64_t i) const {
    std::size_t low = 0, high = windows.size - 1;
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      ends[middle] > i ? high = middle : low = middle + 1;
    }
    return windows.stops[low] - (ends[low] - i);
  }
};

}  // namespace ngram::device
