// The hash table of exact counts on the device: from (node, token) to the node of the n-gram that is one token longer.
//
// Open addressing in buckets of L slots, which L neighbouring threads look at together; a full bucket sends on to the
// next. A slot has 16 bytes on a 16-byte boundary: the whole key (it is compared, so that no collision ever changes a
// number), the node, and nothing that is ever erased. A key is inserted by compare-and-swap into the first free slot of
// its bucket, so that groups that insert the same key meet in the same slot.
//
// Slots are at most kMaxLoad full. A look-up of a key that is there reads 1 to 2 buckets: with L = 2, 32 bytes each.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <type_traits>

#include "cuda/exact_hash.h"
#include "cuda/parallel.h"

namespace ngram::device {

struct alignas(16) Slot {
  std::uint64_t key;  // 0: free
  std::uint32_t node;
  std::uint32_t unused;
};

inline constexpr double kMaxLoad = 0.7;

struct Key {
  std::uint32_t parent, token;

  NGRAM_HOST_DEVICE std::uint64_t packed() const { return (std::uint64_t{parent} << kTokenBits | token) + 1; }
  static NGRAM_HOST_DEVICE Key of(std::uint64_t packed) {
    return {static_cast<std::uint32_t>((packed - 1) >> kTokenBits),
            static_cast<std::uint32_t>(packed - 1) & ((1u << kTokenBits) - 1)};
  }
};

struct ExactTable {
  Slot* slots;
  std::uint64_t size;  // a power of two, and a multiple of the lanes of a group

  struct Place {
    std::uint64_t slot;
    bool added;
  };

  // While other groups insert. The node of a slot that was added is for the caller to store, and for later calls to read.
  template <class Lanes, int kLanes = Lanes::kSize>
  NGRAM_HOST_DEVICE Place find_or_add(const Lanes& lanes, Key key) const {
    const std::uint64_t packed = key.packed(), mask = size / kLanes - 1;
    std::uint64_t bucket = child_hash(key.parent, key.token) & mask;
    while (true) {
      Slot* const first = slots + bucket * kLanes;
      const auto keys = lanes.each([&](int lane) { return parallel::load(&first[lane].key); });
      const unsigned same = lanes.ballot(keys, [&](std::uint64_t found) { return found == packed; });
      if (same != 0) return {bucket * kLanes + parallel::lowest_bit(same), false};
      const unsigned free = lanes.ballot(keys, [](std::uint64_t found) { return found == 0; });
      if (free == 0) {
        bucket = (bucket + 1) & mask;
        continue;
      }
      const int lane = parallel::lowest_bit(free);
      const std::uint64_t found =
          lanes.on(lane, [&] { return parallel::exchange_if(&first[lane].key, std::uint64_t{0}, packed); });
      if (found == 0 || found == packed) return {bucket * kLanes + lane, found == 0};
      // Another key has taken the slot: look at the bucket again.
    }
  }

  // While nobody inserts: the node, or `missing`. A slot is read at once, key and node.
  template <class Lanes, int kLanes = Lanes::kSize>
  NGRAM_HOST_DEVICE std::uint32_t find(const Lanes& lanes, Key key, std::uint32_t missing) const {
    const std::uint64_t packed = key.packed(), mask = size / kLanes - 1;
    for (std::uint64_t bucket = child_hash(key.parent, key.token) & mask;; bucket = (bucket + 1) & mask) {
      const auto found = lanes.each([&](int lane) { return parallel::load_whole(slots + bucket * kLanes + lane); });
      const unsigned same = lanes.ballot(found, [&](const Slot& slot) { return slot.key == packed; });
      if (same != 0) {
        return lanes.of(lanes.map(found, [](const Slot& slot) { return slot.node; }), parallel::lowest_bit(same));
      }
      if (lanes.ballot(found, [](const Slot& slot) { return slot.key == 0; }) != 0) return missing;
    }
  }
};

// groups(slots of the old table): moves what they hold into an empty, larger one.
struct Move {
  const Slot* from;
  ExactTable to;

  template <class Lanes>
  NGRAM_HOST_DEVICE void operator()(const Lanes& lanes, std::int64_t i) const {
    const Slot slot = parallel::load_whole(from + i);
    if (slot.key == 0) return;
    const ExactTable::Place place = to.find_or_add(lanes, Key::of(slot.key));
    if (lanes.leads()) to.slots[place.slot].node = slot.node;
  }
};

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

// groups<lanes>(items, body) of a number of lanes that is known only now.
template <class Body>
void launch_groups(const parallel::Executor& executor, int lanes, std::int64_t items, const Body& body) {
  with_lanes(lanes, [&](auto l) { executor.groups<l()>(items, body); });
}

}  // namespace ngram::device
