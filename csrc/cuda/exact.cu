// The launches of exact counts: compiled by nvcc for GPUs, or as C++ for threads of the host.
#include "cuda/exact.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "cuda/device.h"
#include "cuda/exact_ahead.h"
#include "cuda/parallel.h"

namespace ngram::device {

using parallel::Array;
using parallel::Executor;

namespace {

std::uint64_t slots_for(std::uint64_t nodes) {
  std::uint64_t slots = 1 << 10;
  while (static_cast<double>(slots) * kMaxLoad < static_cast<double>(nodes)) slots *= 2;
  return slots;
}

}  // namespace

struct ExactCounts::Memory {
  parallel::Stream own;
  Executor executor;
  int levels, lanes;
  std::int64_t batch;
  std::uint64_t positions = 0;
  std::uint64_t most_nodes = 1;  // that there may be by now
  bool ahead = false;            // whether a look ahead has begun

  Array<Slot> slots;
  Array<Node> nodes;
  Array<std::uint32_t> stream, used, tip, words, ahead_tokens;
  parallel::Pinned<std::uint32_t> staged;  // tokens on their way to the device
  Array<std::uint64_t> slot;
  Array<std::uint8_t> bytes;
  Array<Place> place;
  Array<Evidence> evidence;
  Counted of{};

  Memory(int device, int levels, int lanes, int batch)
      : own(device),
        executor(device, own.handle()),
        levels(levels),
        lanes(lanes),
        batch(batch),
        used(2),
        tip(2 * (levels + 1)),
        words(levels * batch * 6 + (levels + 1) * (1 + 4 * batch)),
        ahead_tokens(batch),
        staged(std::max(batch, 1 << 16)),
        slot(3 * batch),
        bytes(levels * batch + batch),
        place((levels + 1) * (batch + 1)),
        evidence(levels * batch) {
    with_lanes(lanes, [](auto) {});
    const std::int64_t wide = std::int64_t{levels} * batch;
    std::uint32_t* word = words.data();
    const auto take = [&](std::int64_t size) { return std::exchange(word, word + size); };
    of = {.levels = levels,
          .capacity = batch,
          .table = {nullptr, 0},
          .nodes = nullptr,
          .used = used.data(),
          .started = used.data() + 1,
          .stream = nullptr,
          .tip = tip.data(),
          .tip_total = tip.data() + levels + 1,
          .context = take(wide),
          .child = take(wide),
          .before = take(wide),
          .total = take(wide),
          .marks = bytes.data(),
          .run = take(wide),
          .recent = take(wide),
          .slot = slot.data(),
          .olds = take(levels + 1),
          .old_node = take((levels + 1) * 2 * std::int64_t{batch}),
          .old_position = take((levels + 1) * 2 * std::int64_t{batch}),
          .place = place.data(),
          .evidence = evidence.data(),
          .depth = bytes.data() + wide};
    grow_nodes(1 << 10);
    grow_slots(slots_for(1));
    const std::vector<std::uint32_t> nowhere(levels + 1, kNone);
    executor.zero(tip.data(), tip.bytes());
    executor.copy(of.tip, nowhere.data(), nowhere.size() * sizeof(kNone));
    executor.zero(nodes.data(), sizeof(Node));  // the root
    const std::uint32_t one = 1;
    executor.copy(of.used, &one, sizeof(one));
    executor.wait();
  }

  std::uint64_t count_nodes() {
    executor.use();
    std::uint32_t found = 0;
    executor.copy(&found, of.used, sizeof(found));
    executor.wait();
    return found;
  }

  template <class Token>
  void send(const Token* tokens, std::int64_t n, std::uint32_t* to) {
    const auto most = static_cast<std::int64_t>(staged.size());
    for (std::int64_t start = 0; start < n; start += most) {
      const std::int64_t size = std::min(most, n - start);
      std::copy_n(tokens + start, size, staged.data());
      executor.copy(to + start, staged.data(), size * sizeof(std::uint32_t));
      executor.wait();
    }
  }

  // Puts tokens after the stream.
  template <class Token>
  void receive(const Token* tokens, std::int64_t n) {
    if (positions + n >= kNone) throw std::length_error("exact counts on the device take fewer than 4294967295 tokens");
    if (positions + n > stream.size()) {
      Array<std::uint32_t> larger(std::max<std::uint64_t>(positions + n, stream.size() + stream.size() / 2 + 4096));
      if (positions > 0) executor.copy(larger.data(), stream.data(), positions * sizeof(std::uint32_t));
      executor.wait();
      stream = std::move(larger);
      of.stream = stream.data();
    }
    send(tokens, n, of.stream + positions);
  }

  // Makes room for a batch: by what there may be, and only when that is too much, by what there is.
  void reserve(std::int64_t n) {
    const std::uint64_t more = 2 * static_cast<std::uint64_t>(n) * levels;  // each position, and an old one for each
    if (most_nodes + more > nodes.size() || slots_for(most_nodes + more) > slots.size()) {
      most_nodes = count_nodes();
      const std::uint64_t needed = most_nodes + more;
      if (needed >= kNone) throw std::length_error("more than 4294967294 distinct n-grams: use a lower highest order");
      if (needed > nodes.size()) grow_nodes(std::max(needed, nodes.size() + nodes.size() / 4));
      if (slots_for(needed) > slots.size()) grow_slots(slots_for(needed));
    }
    most_nodes += more;
  }

  void grow_nodes(std::uint64_t size) {
    Array<Node> larger(size);
    if (nodes.size() > 0) {
      executor.copy(larger.data(), nodes.data(), std::min<std::uint64_t>(most_nodes, nodes.size()) * sizeof(Node));
    }
    executor.wait();
    nodes = std::move(larger);
    of.nodes = nodes.data();
  }

  void grow_slots(std::uint64_t size) {
    Array<Slot> larger(size);
    executor.zero(larger.data(), larger.bytes());
    const ExactTable table{larger.data(), size};
    launch_groups(executor, lanes, static_cast<std::int64_t>(slots.size()), Move{slots.data(), table});
    executor.wait();
    slots = std::move(larger);
    of.table = table;
  }

  // Counts tokens that have been copied to the end of the stream.
  void count(std::int64_t n) {
    const Batch now{of, static_cast<std::uint32_t>(positions), n};
    executor.rows(1, std::max<std::int64_t>(n, levels + 1), Begin{now});
    for (int level = 0; level < levels; ++level) {
      launch_groups(executor, lanes, 3 * n, Insert{now, level});
      executor.rows(1, 3 * n, Count{now, level});
    }
    executor.rows(levels, n, CountNovel{now});
    executor.rows(levels, n, Recall{now});
    executor.rows(levels, n, Settle{now});
    positions += n;
    ahead = false;
  }

  Ahead look(const std::uint32_t* tokens, std::int64_t n) {
    const Ahead found{of, static_cast<std::uint32_t>(positions), tokens, n};
    if (!std::exchange(ahead, true)) executor.rows(1, levels, LookFrom{found});
    return found;
  }

  void fetch(std::int64_t n, Evidence* to, std::uint8_t* depth) {
    executor.copy(to, of.evidence, n * levels * sizeof(Evidence));
    executor.copy(depth, of.depth, n);
    executor.wait();
  }
};

ExactCounts::ExactCounts(int device, int levels, int lanes, int batch)
    : memory_(std::make_unique<Memory>(device, levels, lanes, batch)) {}
ExactCounts::~ExactCounts() = default;

template <class Token>
void ExactCounts::append(const Token* tokens, std::int64_t n, Evidence* evidence, std::uint8_t* depth) {
  Memory& m = *memory_;
  m.executor.use();
  m.receive(tokens, n);
  for (std::int64_t start = 0; start < n; start += m.batch) {
    const std::int64_t size = std::min(m.batch, n - start);
    m.reserve(size);
    m.count(size);
    if (evidence != nullptr) m.fetch(size, evidence + start * m.levels, depth + start);
  }
  m.executor.wait();
}

template <class Token>
void ExactCounts::peek(const Token* tokens, std::int64_t n, Evidence* evidence, std::uint8_t* depth) {
  Memory& m = *memory_;
  m.executor.use();
  for (std::int64_t start = 0; start < n; start += m.batch) {
    const std::int64_t size = std::min(m.batch, n - start);
    m.send(tokens + start, size, m.ahead_tokens.data());
    m.executor.zero(m.of.depth, size);
    const Ahead ahead = m.look(m.ahead_tokens.data(), size);
    for (int level = 0; level < m.levels; ++level) launch_groups(m.executor, m.lanes, size, Look{ahead, level});
    m.executor.rows(1, m.levels, LookOn{ahead});
    m.fetch(size, evidence + start * m.levels, depth + start);
  }
}

void ExactCounts::rewind() { memory_->ahead = false; }

void ExactCounts::peek_each(std::uint32_t token, std::int64_t n, Evidence* evidence, std::uint8_t* depth) {
  Memory& m = *memory_;
  m.executor.use();
  for (std::int64_t start = 0; start < n; start += m.batch) {
    const std::int64_t size = std::min(m.batch, n - start);
    m.executor.zero(m.of.depth, size);
    const Ahead ahead = m.look(nullptr, 0);
    const LookEach body{ahead, token + static_cast<std::uint32_t>(start)};
    launch_groups(m.executor, m.lanes, size * m.levels, body);
    m.fetch(size, evidence + start * m.levels, depth + start);
  }
}

int ExactCounts::levels() const { return memory_->levels; }
std::uint64_t ExactCounts::positions() const { return memory_->positions; }
std::uint64_t ExactCounts::nodes() const { return memory_->count_nodes(); }
std::uint64_t ExactCounts::slots() const { return memory_->slots.size(); }
std::uint64_t ExactCounts::bytes() const {
  const Memory& m = *memory_;
  return m.slots.bytes() + m.nodes.bytes() + m.stream.bytes();
}

#define NGRAM_INSTANTIATE(Token)                                                           \
  template void ExactCounts::append(const Token*, std::int64_t, Evidence*, std::uint8_t*); \
  template void ExactCounts::peek(const Token*, std::int64_t, Evidence*, std::uint8_t*);
NGRAM_INSTANTIATE(std::uint16_t)
NGRAM_INSTANTIATE(std::uint32_t)
#undef NGRAM_INSTANTIATE

}  // namespace ngram::device
