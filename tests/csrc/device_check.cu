// The device's algorithm against the host's, on random streams: hashed tables, windows, exact counts.
//
//     device_check [CASES] [THREADS]
//
// Compiled as C++ it runs on threads of the host, where sanitizers watch it (tests/test_cuda.py); compiled by nvcc on a GPU,
// under compute-sanitizer (benchmarks/gpu/suite.sh). Exits with 1 at the first difference.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "../benchmarks/limits/random_keys.h"
#include "cuda/device.h"
#include "cuda/parallel.h"
#include "exact/counts.h"
#include "hashed/counts.h"

namespace {

using namespace ngram;
using parallel::Array;
using parallel::Executor;

std::mt19937_64 random_bits(0);

int below(int n) { return static_cast<int>(random_bits() % static_cast<std::uint64_t>(n)); }

template <class... Arguments>
[[noreturn]] void fail(const char* format, Arguments... arguments) {
  std::fprintf(stderr, format, arguments...);
  std::fputc('\n', stderr);
  std::exit(1);
}

template <class T>
Array<T> sent(const std::vector<T>& from) {
  Array<T> to(std::max<std::size_t>(from.size(), 1));
  const Executor executor(0, nullptr);
  executor.copy(to.data(), from.data(), from.size() * sizeof(T));
  executor.wait();
  return to;
}

template <class T>
std::vector<T> fetched(const Array<T>& from, std::size_t size) {
  std::vector<T> to(size);
  const Executor executor(0, nullptr);
  executor.copy(to.data(), from.data(), size * sizeof(T));
  executor.wait();
  return to;
}

template <class T>
void same(const std::vector<T>& found, const std::vector<T>& expected, const char* what) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (found[i] != expected[i]) fail("%s: entry %zu differs", what, i);
  }
}

// Parts of it come back.
template <class Token>
std::vector<Token> stream(int vocab, int length) {
  std::vector<Token> tokens(length);
  for (auto& token : tokens) token = static_cast<Token>(below(vocab));
  for (int repeat = 0; repeat < 6; ++repeat) {
    const int size = 1 + below(std::max(length / 4, 1));
    const int from = below(length - size + 1), to = below(length - size + 1);
    for (int i = 0; i < size; ++i) tokens[to + i] = tokens[from + i];
  }
  return tokens;
}

template <class Token>
void check_hashed() {
  const int low = 1 + below(kMaxOrder), high = low + below(kMaxOrder - low + 1);
  const CountsConfig config{
      low, high, std::uint64_t{1} << below(12), 1 + static_cast<std::uint32_t>(below(3)), below(2), below(2) == 1};
  const std::vector<Token> tokens = stream<Token>(2 + below(40), 2 + below(3000));
  const auto positions = static_cast<std::int64_t>(tokens.size()) - 1;
  HashedCounts host(config, 1);
  device::HashedTables device(0, config);
  const Array<Token> on_device = sent(tokens);
  Array<std::uint32_t> tables = sent(std::vector<std::uint32_t>(host.size()));

  const std::int64_t start = below(static_cast<int>(positions)),
                     stop = start + below(static_cast<int>(positions - start) + 1);
  host.update(tokens.data(), start, stop);
  device.update(nullptr, tables.data(), on_device.data(), 0, start, stop);
  same(fetched(tables, host.size()), std::vector<std::uint32_t>(host.data(), host.data() + host.size()), "update");

  std::vector<std::int64_t> firsts, stops;
  std::size_t scored = 0;
  std::int64_t next = 0;
  for (int w = below(60); w > 0; --w) {
    const bool goes_on = below(3) > 0;
    const std::int64_t first = goes_on ? next : below(static_cast<int>(positions));
    const std::int64_t length = below(4) == 0 ? below(700) : below(40);
    firsts.push_back(std::min(first, positions));
    stops.push_back(next = std::min(first + length, positions));
    scored += stops.back() - firsts.back();
  }
  const Windows windows{firsts.data(), stops.data(), firsts.size()};
  std::vector<std::uint8_t> order(scored);
  std::vector<std::uint32_t> context(scored), full(scored);
  host.score_windows(tokens.data(), windows, {order.data(), context.data(), full.data()});

  std::vector<double> p_target(scored);
  std::vector<float> entropy(scored);
  for (auto& p : p_target) p = std::ldexp(static_cast<double>(1 + below(1 << 20)), -20);
  for (auto& h : entropy) h = static_cast<float>(below(7000)) / 1000;
  const std::size_t bad = scored > 0 && below(2) == 0 ? below(static_cast<int>(scored)) : scored;
  if (bad < scored) entropy[bad] = std::numeric_limits<float>::quiet_NaN();
  const auto d_order = sent(std::vector<std::uint8_t>(scored, 99));
  const auto d_context = sent(std::vector<std::uint32_t>(scored, 99)),
             d_full = sent(std::vector<std::uint32_t>(scored, 99));
  const auto d_p = sent(p_target), d_values = sent(std::vector<double>(scored));
  const auto d_entropy = sent(entropy);
  const std::int64_t rows = 1 + below(5);
  const auto d_sums = sent(std::vector<std::int64_t>(4 * rows)),
             d_hits = sent(std::vector<std::int64_t>(kMaxOrder + 1));
  const auto d_bad = sent(std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::max()});
  const Gate gate{0.05, 0.55, 2.0, {0, 4.0, 4.5, 4.2, 3.8, 3.5, 3.2, 3.0, 2.8, 2.6}};
  const device::Charging charging{gate,          d_p.data(), d_entropy.data(), d_values.data(),
                                  d_sums.data(), rows,       d_hits.data(),    d_bad.data()};
  std::vector<std::int64_t> ends;
  for (std::size_t w = 0; w < firsts.size(); ++w) ends.push_back((w > 0 ? ends[w - 1] : 0) + windows.length(w));
  const auto d_firsts = sent(firsts), d_stops = sent(stops), d_ends = sent(ends);
  const Windows there{d_firsts.data(), d_stops.data(), firsts.size()};
  device.score_windows(nullptr, tables.data(), on_device.data(), 0, there, d_ends.data(),
                       static_cast<std::int64_t>(scored), {d_order.data(), d_context.data(), d_full.data()}, &charging);
  same(fetched(d_order, scored), order, "windows: order");
  same(fetched(d_context, scored), context, "windows: context");
  same(fetched(d_full, scored), full, "windows: full");
  same(fetched(tables, host.size()), std::vector<std::uint32_t>(host.data(), host.data() + host.size()),
       "windows: tables");

  // What is charged: exactly on the host; a GPU's exp and log may differ in the last bits.
  const std::vector<double> values = fetched(d_values, scored);
  const std::vector<std::int64_t> sums = fetched(d_sums, 4 * rows), hits = fetched(d_hits, kMaxOrder + 1);
  std::vector<std::int64_t> expected_hits(kMaxOrder + 1);
  std::size_t entry = 0;
  std::int64_t bad_position = std::numeric_limits<std::int64_t>::max();
  double nats = 0, neural_nats = 0, found = 0, neural_found = 0;
  for (std::size_t w = 0; w < firsts.size(); ++w) {
    for (std::int64_t p = firsts[w]; p < stops[w]; ++p, ++entry) {
      if (entry == bad) {
        bad_position = p;
        continue;
      }
      ++expected_hits[order[entry]];
      const double weight = order[entry] > 0 ? gate_weight(gate, entropy[entry], order[entry]) : 0.0;
      const double charged = blend(weight, p_target[entry], ngram_estimate(context[entry], full[entry]));
      if (std::fabs(values[entry] - charged) > 1e-14) {
        fail("windows: value %zu is %.17g, not %.17g", entry, values[entry], charged);
      }
      nats -= std::log(std::max(charged, kFloor));
      neural_nats -= std::log(std::max(p_target[entry], kFloor));
    }
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto limbs = [&](int at) {
      return std::ldexp(static_cast<double>(sums[4 * row + at]), kLimbBits - 52) +
             std::ldexp(static_cast<double>(sums[4 * row + at + 1]), -52);
    };
    found += limbs(0);
    neural_found += limbs(2);
  }
  if (std::fabs(found - nats) > 1e-11 * (1 + nats)) fail("windows cost %.17g nats, not %.17g", found, nats);
  if (std::fabs(neural_found - neural_nats) > 1e-11 * (1 + neural_nats)) {
    fail("the model alone costs %.17g nats", neural_found);
  }
  same(hits, expected_hits, "windows: hits");
  const std::int64_t named = fetched(d_bad, 1)[0];
  if (named != bad_position) {
    fail("windows: NaN at %ld, not %ld", static_cast<long>(named), static_cast<long>(bad_position));
  }

  const std::size_t looked_up = host.orders() * static_cast<std::size_t>(stop - start);
  std::vector<std::uint32_t> contexts(looked_up), fulls(looked_up);
  host.lookup(tokens.data(), start, stop, contexts.data(), fulls.data());
  const auto d_contexts = sent(contexts), d_fulls = sent(std::vector<std::uint32_t>(looked_up, 99));
  device.lookup(nullptr, tables.data(), on_device.data(), 0, start, stop, d_contexts.data(), d_fulls.data());
  same(fetched(d_contexts, looked_up), contexts, "lookup: context");
  same(fetched(d_fulls, looked_up), fulls, "lookup: full");
}

void same_evidence(const Evidence& found, const Evidence& expected, int level, int levels, long position) {
  const bool longest = level + 1 == levels;  // whose continuation counts nobody reads
  const Context &c = found.context, &e = expected.context;
  const Successor &t = found.target, &u = expected.target;
  if (c.total != e.total || c.distinct != e.distinct || c.run != e.run || t.count != u.count || t.recent != u.recent ||
      (!longest && (c.novel_total != e.novel_total || t.novel != u.novel))) {
    fail(
        "exact counts: position %ld, level %d: total %lu %lu, novel_total %lu %lu, distinct %u %u, run %u %u, count %u "
        "%u, "
        "novel %u %u, recent %x %x",
        position, level, c.total, e.total, c.novel_total, e.novel_total, c.distinct, e.distinct, c.run, e.run, t.count,
        u.count, t.novel, u.novel, t.recent, u.recent);
  }
}

template <class Token>
void check_exact() {
  const int levels = 1 + below(9), lanes = 1 << below(4), batch = 1 + below(below(2) == 0 ? 8 : 300);
  const std::vector<Token> tokens = stream<Token>(1 + below(30), 1 + below(std::min(40 * batch, 1500)));
  ExactCounts host(levels);
  device::ExactCounts device(0, levels, lanes, batch);
  std::vector<Evidence> evidence;
  std::vector<std::uint8_t> depth;
  const auto compare = [&](const std::vector<std::uint32_t>& part, std::size_t at) {
    for (std::size_t i = 0; i < part.size(); ++i) {
      if (depth[i] != host.depth(static_cast<int>(i))) fail("exact counts: depth at %zu", at + i);
      for (int level = 0; level < depth[i]; ++level) {
        same_evidence(evidence[i * levels + level], host.evidence(level, static_cast<int>(i)), level, levels, at + i);
      }
    }
  };
  for (std::size_t at = 0; at < tokens.size();) {
    const std::size_t n = std::min<std::size_t>(1 + below(ExactCounts::kChunk), tokens.size() - at);
    const std::vector<std::uint32_t> part(tokens.begin() + at, tokens.begin() + at + n);
    evidence.assign(n * levels, Evidence{});
    depth.assign(n, 0);
    const int how = below(4);
    if (how == 0) {  // look ahead, in two steps, and forget it
      device.rewind();
      host.rewind();
      host.peek(part.data(), static_cast<int>(n));
      const std::size_t half = n / 2;
      device.peek(part.data(), half, evidence.data(), depth.data());
      device.peek(part.data() + half, n - half, evidence.data() + half * levels, depth.data() + half);
      compare(part, at);
      const std::uint32_t next = below(40);
      device.peek_each(next, 1, evidence.data(), depth.data());
      host.peek(&next, 1);
      compare({next}, at + n);
      continue;
    }
    host.append(part.data(), static_cast<int>(n));
    if (how == 1) {
      device.append(part.data(), n, nullptr, nullptr);
    } else {
      device.append(part.data(), n, evidence.data(), depth.data());
      compare(part, at);
    }
    at += n;
  }
  if (device.nodes() != host.nodes()) fail("exact counts: %lu n-grams, not %lu", device.nodes(), host.nodes());
}

void check_keys() {
  device::RandomKeys keys(0, 1 << 13, 1 << below(4));
  keys.add(0, 5700);
  keys.add(0, 5700);
  keys.find(1000, 9000);
  if (keys.found() != 4700) fail("keys: %lu found", keys.found());
}

}  // namespace

int main(int count, char** arguments) {
  const int cases = count > 1 ? std::atoi(arguments[1]) : 40;
  if (const std::string problem = device::problem(); !problem.empty()) fail("no GPU: %s", problem.c_str());
  if (device::kOnHost) device::use_threads(count > 2 ? std::atoi(arguments[2]) : 4);
  for (int i = 0; i < cases; ++i) {
    check_hashed<std::uint16_t>();
    check_hashed<std::uint32_t>();
    check_exact<std::uint16_t>();
    check_exact<std::uint32_t>();
    check_keys();
  }
  std::printf("%d cases of each kind on %s: no difference\n", cases, device::describe(0).c_str());
  return 0;
}
