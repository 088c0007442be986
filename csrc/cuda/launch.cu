// The launches: compiled by nvcc for GPUs, or as C++ for threads of the host.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "device.h"
#include "exact.h"
#include "hashed.h"
#include "parallel.h"

namespace ngram::device {

using parallel::Array;
using parallel::Executor;

#ifdef __CUDACC__

const bool kOnHost = false;

void use_threads(int) { throw std::logic_error("a GPU has its own threads"); }

std::string problem() {
  int driver = 0, runtime = 0, devices = 0;
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaSuccess && devices > 0) return "";
  cudaGetLastError();
  const auto version = [](int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); };
  const bool known = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0;
  return std::string(error == cudaSuccess ? "no device" : cudaGetErrorString(error)) + "; driver " +
         (known ? "for CUDA " + version(driver) : "none") + ", built with CUDA " + version(runtime);
}

std::string describe(int device) {
  cudaDeviceProp found{};
  int driver = 0;
  parallel::check(cudaGetDeviceProperties(&found, device), "no such GPU");
  cudaDriverGetVersion(&driver);
  return std::string(found.name) + ", sm_" + std::to_string(10 * found.major + found.minor) + ", driver for CUDA " +
         std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10);
}

bool holds(int device, const void* memory) {
  cudaPointerAttributes found{};
  if (cudaPointerGetAttributes(&found, memory) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return found.type == cudaMemoryTypeDevice && found.device == device;
}

#else

const bool kOnHost = true;

void use_threads(int threads) { Executor::threads = threads; }
std::string problem() { return ""; }
std::string describe(int) { return "threads of the host"; }
bool holds(int, const void*) { return true; }

#endif

// Hashed counts -----------------------------------------------------------------------------------------------------

template <class Token>
void HashedTables::update(void* stream, std::uint32_t* tables, const Token* tokens, std::int64_t base,
                          std::int64_t start, std::int64_t stop) {
  const Tables of{config(), tables};
  Executor(device(), stream).rows(of.orders(), stop - start, Update<Token>{of, {tokens, base}, start});
}

template <class Token>
void HashedTables::lookup(void* stream, std::uint32_t* tables, const Token* tokens, std::int64_t base,
                          std::int64_t start, std::int64_t stop, std::uint32_t* context, std::uint32_t* full) {
  const Tables of{config(), tables};
  const Lookup<Token> body{of, {tokens, base}, start, stop - start, context, full};
  Executor(device(), stream).rows(of.orders(), stop - start, body);
}

template <class Token>
void HashedTables::score_windows(void* stream, std::uint32_t* tables, const Token* tokens, std::int64_t base,
                                 Windows windows, const std::int64_t* ends, std::int64_t positions, Best best,
                                 const Charging* charging) {
  if (windows.size == 0) return;
  const Executor executor(device(), stream);
  executor.team(MatchWindows<Token>{{config(), tables}, {tokens, base}, windows, best});
  if (charging != nullptr) executor.rows(1, positions, Charge{best, *charging, windows, ends});
}

// Exact counts ------------------------------------------------------------------------------------------------------

namespace {

// Calls launch(integral_constant<int, lanes>).
template <class Launch>
void with_lanes(int lanes, const Launch& launch) {
  switch (lanes) {
    case 1: return launch(std::integral_constant<int, 1>());
    case 2: return launch(std::integral_constant<int, 2>());
    case 4: return launch(std::integral_constant<int, 4>());
    case 8: return launch(std::integral_constant<int, 8>());
    default: throw std::invalid_argument("lanes must be 1, 2, 4 or 8");
  }
}

template <class Body>
void launch_groups(const Executor& executor, int lanes, std::int64_t items, const Body& body) {
  with_lanes(lanes, [&](auto l) { executor.groups<l()>(items, body); });
}

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

  // Puts tokens behind the stream.
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
    if (nodes.size() > 0) executor.copy(larger.data(), nodes.data(), std::min<std::uint64_t>(most_nodes, nodes.size()) * sizeof(Node));
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

// The limit ---------------------------------------------------------------------------------------------------------

NGRAM_HOST_DEVICE Key random_key(std::uint64_t number) {
  const std::uint64_t h = number * 0xD6E8FEB86659FD93u;
  return {static_cast<std::uint32_t>(h >> 32), static_cast<std::uint32_t>(h) & ((1u << 18) - 1)};
}

struct AddKeys {
  ExactTable table;
  std::uint64_t begin;

  template <class Lanes>
  NGRAM_HOST_DEVICE void operator()(const Lanes& lanes, std::int64_t i) const {
    const ExactTable::Place place = table.find_or_add(lanes, random_key(begin + i));
    if (lanes.leads() && place.added) table.slots[place.slot].node = static_cast<std::uint32_t>(begin + i);
  }
};

struct FindKeys {
  ExactTable table;
  std::uint64_t begin;
  std::uint64_t* found;

  template <class Lanes>
  NGRAM_HOST_DEVICE void operator()(const Lanes& lanes, std::int64_t i) const {
    const std::uint32_t node = table.find(lanes, random_key(begin + i), kNone);
    if (lanes.leads() && node == kNone) parallel::add(found, ~std::uint64_t{0});  // rare, so that it costs nothing
  }
};

struct RandomKeys::Memory {
  parallel::Stream own;
  Executor executor;
  int lanes;
  Array<Slot> slots;
  Array<std::uint64_t> missed;
  std::uint64_t asked = 0;

  Memory(int device, std::uint64_t slots, int lanes)
      : own(device), executor(device, own.handle()), lanes(lanes), slots(slots), missed(1) {}
  ExactTable table() const { return {slots.data(), slots.size()}; }
};

RandomKeys::RandomKeys(int device, std::uint64_t slots, int lanes)
    : memory_(std::make_unique<Memory>(device, slots, lanes)) {
  memory_->executor.zero(memory_->slots.data(), memory_->slots.bytes());
  memory_->executor.zero(memory_->missed.data(), memory_->missed.bytes());
}
RandomKeys::~RandomKeys() = default;

void RandomKeys::add(std::uint64_t begin, std::uint64_t end) {
  const auto n = static_cast<std::int64_t>(end - begin);
  launch_groups(memory_->executor, memory_->lanes, n, AddKeys{memory_->table(), begin});
}

void RandomKeys::find(std::uint64_t begin, std::uint64_t end) {
  const auto n = static_cast<std::int64_t>(end - begin);
  memory_->asked += end - begin;
  launch_groups(memory_->executor, memory_->lanes, n, FindKeys{memory_->table(), begin, memory_->missed.data()});
}

std::uint64_t RandomKeys::found() {
  std::uint64_t missed = 0;
  memory_->executor.copy(&missed, memory_->missed.data(), sizeof(missed));
  memory_->executor.wait();
  return memory_->asked + missed;
}

#define NGRAM_INSTANTIATE(Token)                                                                                     \
  template void HashedTables::update(void*, std::uint32_t*, const Token*, std::int64_t, std::int64_t, std::int64_t); \
  template void HashedTables::lookup(void*, std::uint32_t*, const Token*, std::int64_t, std::int64_t, std::int64_t,  \
                                     std::uint32_t*, std::uint32_t*);                                                \
  template void HashedTables::score_windows(void*, std::uint32_t*, const Token*, std::int64_t, Windows,              \
                                            const std::int64_t*, std::int64_t, Best, const Charging*);               \
  template void ExactCounts::append(const Token*, std::int64_t, Evidence*, std::uint8_t*);                           \
  template void ExactCounts::peek(const Token*, std::int64_t, Evidence*, std::uint8_t*);
NGRAM_INSTANTIATE(std::uint16_t)
NGRAM_INSTANTIATE(std::uint32_t)
#undef NGRAM_INSTANTIATE

}  // namespace ngram::device
