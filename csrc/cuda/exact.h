// Exact n-gram counts on the device. `exact/counts.h` states what is counted; every number equals it, whatever the
// threads do.
//
// How. The tree of n-grams is the host's: an n-gram that has occurred once has a node but no children, and its one
// successor is read off the stored stream when it occurs again. A batch of n positions is worked through level by level,
// two launches each: `Insert` finds or adds the n-gram of each position by (context's node, token), which the level
// before has found; `Count` counts it. No thread waits for another within a launch: a node that one group adds is used by
// the next launch. Where an n-gram occurs for the second time, its first occurrence ("old": it was counted in an earlier
// batch, or its context was unknown) joins the work and goes on to longer n-grams as long as those occur twice.
//
// Sums (count, distinct, novel) do not depend on the order of adding. What the order decides, `run` and `recent`, and
// what had been counted before each position of the batch, `Recall` finds by comparing the position with all
// others of the batch, per level: integers, hence exact.
//
// Cost
//   A node has 32 bytes, one sector. A slot of the table has 16, and at most kMaxLoad of them are taken: 23 to 46 bytes
//   an n-gram. The stream takes 4 bytes a token. Tables grow between batches, by moving.
//   A position costs about two random sectors a level to insert and to count, and n comparisons.
//
// Fewer than 2^32 - 1 tokens and n-grams.
#pragma once

#include <cstdint>

#include "cuda/exact_table.h"
#include "cuda/parallel.h"
#include "exact/evidence.h"

namespace ngram::device {

inline constexpr std::uint32_t kNone = ~std::uint32_t{0};
inline constexpr std::uint32_t kRoot = 0;  // the empty n-gram

struct alignas(32) Node {
  std::uint32_t count;
  std::uint32_t first;  // position of its newest token where it occurred first
  std::uint32_t distinct, run, novel, novel_total;
  std::uint32_t recent, last_seen;  // of the n-gram as a successor; `recent` is not 0 once it has been one
};

// A context while looking ahead: a node and how often it occurred, or (node kNone) an n-gram that occurred once and the
// position of its newest token there, or (neither) one that never occurred.
struct Place {
  std::uint32_t node;
  std::uint32_t times_or_position;
  std::uint32_t once;

  NGRAM_HOST_DEVICE bool known() const { return node != kNone || once != 0; }
};

// The memory that all launches work on. Arrays by level are (levels, capacity).
struct Counted {
  int levels;
  std::int64_t capacity;  // most positions of a batch
  ExactTable table;
  Node* nodes;
  std::uint32_t* used;     // nodes
  std::uint32_t* started;  // nodes that there were before the batch
  std::uint32_t* stream;
  std::uint32_t* tip;        // (levels + 1,): the newest n-gram of each length, or kNone
  std::uint32_t* tip_total;  // (levels + 1,): how often it had occurred before
  // Of a batch.
  std::uint32_t* context;                  // node of each position's context, or kNone
  std::uint32_t* child;                    // node of its n-gram, or kNone
  std::uint32_t* before;                   // how often that had occurred
  std::uint32_t* total;                    // how often the context had
  std::uint8_t* marks;                     // kFirst, kNew
  std::uint32_t* run;                      // as of after the position; 0: a later one has the last word
  std::uint32_t* recent;                   // the same
  std::uint64_t* slot;                     // (3 capacity,)
  std::uint32_t* olds;                     // (levels + 1,): how many old occurrences there are to go on with
  std::uint32_t *old_node, *old_position;  // (levels + 1, 2 capacity)
  Place* place;                            // (levels + 1, capacity + 1)
  Evidence* evidence;                      // (capacity, levels)
  std::uint8_t* depth;                     // (capacity,)

  NGRAM_HOST_DEVICE std::int64_t at(int level, std::int64_t i) const { return level * capacity + i; }
};

inline constexpr std::uint8_t kFirst = 1;  // the n-gram occurs for the first time here
inline constexpr std::uint8_t kNew = 2;    // the n-gram that is one token longer does

struct Batch {
  Counted of;
  std::uint32_t first;  // position
  std::int64_t size;

  // The context of position i as the level before left it. Where it has occurred but once, nothing is counted: it
  // joins as an old occurrence when it occurs again.
  NGRAM_HOST_DEVICE std::uint32_t context(int level, std::int64_t i) const {
    if (level == 0) return kRoot;
    if (i == 0) return of.tip_total[level] > 0 ? of.tip[level] : kNone;
    const std::uint32_t node = of.child[of.at(level - 1, i - 1)];
    return node != kNone && of.nodes[node].count > 1 ? node : kNone;
  }

  // How often the context of position i, which is a node, had occurred.
  NGRAM_HOST_DEVICE std::uint32_t total(int level, std::int64_t i) const {
    if (level == 0) return first + static_cast<std::uint32_t>(i);
    return i == 0 ? of.tip_total[level] : of.before[of.at(level - 1, i - 1)];
  }
};

inline constexpr std::uint64_t kNoSlot = ~std::uint64_t{0};

// rows(1, max(size, levels + 1)): nothing has been counted yet.
struct Begin {
  Batch batch;

  NGRAM_HOST_DEVICE void operator()(std::int64_t, std::int64_t i) const {
    const Counted& of = batch.of;
    if (i == 0) *of.started = *of.used;
    if (i <= of.levels) of.olds[i] = 0;
    if (i < batch.size) of.depth[i] = 0;
  }
};

// groups(3 x size): the n-grams of the batch's positions, then those of old occurrences.
struct Insert {
  Batch batch;
  int level;

  template <class Lanes>
  NGRAM_HOST_DEVICE void operator()(const Lanes& lanes, std::int64_t i) const {
    const Counted& of = batch.of;
    std::uint32_t context, position;
    if (i < batch.size) {
      context = batch.context(level, i);
      position = batch.first + static_cast<std::uint32_t>(i);
      if (lanes.leads()) of.context[of.at(level, i)] = context;
    } else {
      const std::int64_t old = i - batch.size;
      if (old >= of.olds[level]) return;
      context = of.old_node[2 * of.at(level, 0) + old];
      position = of.old_position[2 * of.at(level, 0) + old] + 1;
      const bool followed = position < batch.first + static_cast<std::uint64_t>(batch.size);
      if (of.nodes[context].count < 2 || !followed) context = kNone;
    }
    if (context == kNone) {
      if (lanes.leads()) of.slot[i] = kNoSlot;
      return;
    }
    const ExactTable::Place place = of.table.find_or_add(lanes, {context, of.stream[position]});
    if (!lanes.leads()) return;
    of.slot[i] = place.slot;
    if (!place.added) return;
    const std::uint32_t node = parallel::add(of.used, 1u);
    of.table.slots[place.slot].node = node;
    of.nodes[node] = {};
    of.nodes[node].first = kNone;
    parallel::add(&of.nodes[context].distinct, 1u);
  }
};

// rows(1, 3 x size): counts what `Insert` found.
struct Count {
  Batch batch;
  int level;

  NGRAM_HOST_DEVICE void operator()(std::int64_t, std::int64_t i) const {
    const Counted& of = batch.of;
    const bool is_old = i >= batch.size;
    const std::int64_t old = i - batch.size;
    if (is_old && old >= of.olds[level]) return;
    if (of.slot[i] == kNoSlot) {
      if (!is_old) of.child[of.at(level, i)] = kNone;
      return;
    }
    const std::uint32_t id = of.table.slots[of.slot[i]].node;
    Node& node = of.nodes[id];
    const std::uint32_t before = parallel::add(&node.count, 1u);
    if (is_old) {
      // Nothing longer was known where it occurred, and nothing else had followed.
      const std::uint32_t position = of.old_position[2 * of.at(level, 0) + old] + 1;
      Node& context = of.nodes[of.old_node[2 * of.at(level, 0) + old]];
      parallel::lower(&node.first, position);
      parallel::add(&node.novel, 1u);
      parallel::add(&context.novel_total, 1u);
      context.run = 1;
      node.recent = std::uint32_t{1} << 31;
      node.last_seen = 0;
      go_on(id, position);
    } else {
      of.child[of.at(level, i)] = id;
      parallel::lower(&node.first, batch.first + static_cast<std::uint32_t>(i));
      if (before == 1 && id < *of.started) go_on(id, parallel::load(&node.first));
    }
  }

 private:
  NGRAM_HOST_DEVICE void go_on(std::uint32_t node, std::uint32_t position) const {
    const Counted& of = batch.of;
    if (level + 1 == of.levels) return;
    const std::int64_t place = 2 * of.at(level + 1, 0) + parallel::add(&of.olds[level + 1], 1u);
    of.old_node[place] = node;
    of.old_position[place] = position;
  }
};

// rows(levels, size): continuation counts; what is new, and how often each n-gram of the batch had occurred.
struct CountNovel {
  Batch batch;

  NGRAM_HOST_DEVICE void operator()(std::int64_t row, std::int64_t i) const {
    const Counted& of = batch.of;
    const int level = static_cast<int>(row);
    const std::uint32_t id = of.child[of.at(level, i)], position = batch.first + static_cast<std::uint32_t>(i);
    if (id == kNone) return;
    std::uint8_t marks = of.nodes[id].first == position ? kFirst : 0;
    if (level + 1 < of.levels) {
      const std::uint32_t longer = of.child[of.at(level + 1, i)];
      if (longer == kNone || of.nodes[longer].first == position) {
        marks |= kNew;
        parallel::add(&of.nodes[id].novel, 1u);
        parallel::add(&of.nodes[of.context[of.at(level, i)]].novel_total, 1u);
      }
    }
    of.marks[of.at(level, i)] = marks;
    std::uint32_t later = 0;
    for (std::int64_t j = i; j < batch.size; ++j) later += of.child[of.at(level, j)] == id;
    of.before[of.at(level, i)] = of.nodes[id].count - later;
  }
};

// rows(levels, size): what was known before each position, and what its n-gram's and its context's nodes will say after
// the batch where this position has the last word.
struct Recall {
  Batch batch;

  NGRAM_HOST_DEVICE void operator()(std::int64_t row, std::int64_t i) const {
    const Counted& of = batch.of;
    const int level = static_cast<int>(row);
    const std::uint32_t *const contexts = of.context + of.at(level, 0), *const children = of.child + of.at(level, 0);
    const std::uint8_t* const marks = of.marks + of.at(level, 0);
    const std::uint32_t context = contexts[i], id = children[i];
    if (context == kNone) return;
    const Node up = of.nodes[context], node = of.nodes[id];
    const std::uint32_t total = batch.total(level, i);

    // What happened here or later is taken back from the sums.
    std::uint32_t distinct = up.distinct, novel = node.novel, novel_total = up.novel_total;
    bool last_of_context = true, last_of_child = true;
    for (std::int64_t j = i; j < batch.size; ++j) {
      if (contexts[j] != context) continue;
      distinct -= (marks[j] & kFirst) != 0;
      novel_total -= (marks[j] & kNew) != 0;
      if (j > i) last_of_context = false;
      if (children[j] != id) continue;
      novel -= (marks[j] & kNew) != 0;
      if (j > i) last_of_child = false;
    }

    // Earlier positions with the same context, the newest first, then what the nodes held before the batch.
    std::uint32_t run = 0, last = kNone, oldest_total = total, recent = 0;
    bool unbroken = true;
    for (std::int64_t j = i - 1; j >= 0; --j) {
      if (contexts[j] != context) continue;
      oldest_total = batch.total(level, j);
      if (last == kNone) last = children[j];
      unbroken = unbroken && children[j] == last;
      run += unbroken;
      if (children[j] == id) recent |= aged(std::uint32_t{1} << 31, total - 1 - oldest_total);
    }
    if (node.recent != 0) recent |= aged(node.recent, total - 1 - node.last_seen);
    if (last == kNone) {
      run = up.run;
    } else if (unbroken && followed_last(of.nodes[last], oldest_total)) {
      run += up.run;
    }
    const bool again = last == kNone ? followed_last(node, total) : last == id;
    run = run < kRunLimit ? run : kRunLimit;

    of.total[of.at(level, i)] = total;
    const std::uint32_t longer_run = run < kRunLimit ? run + 1 : kRunLimit;
    of.run[of.at(level, i)] = last_of_context && level > 0 ? (again ? longer_run : 1) : 0;
    of.recent[of.at(level, i)] = last_of_child && level > 0 ? recent >> 1 | std::uint32_t{1} << 31 : 0;
    if (total == 0) return;  // unknown so far
    Evidence& seen = of.evidence[i * of.levels + level];
    seen.context = {total, novel_total, distinct, level > 0 ? run : 0};
    seen.target = {of.before[of.at(level, i)], novel, level > 0 ? recent : 0};
    const bool longer_known =
        level + 1 < of.levels && of.context[of.at(level + 1, i)] != kNone && batch.total(level + 1, i) > 0;
    if (!longer_known) of.depth[i] = static_cast<std::uint8_t>(level + 1);
  }

 private:
  // Whether the successor was the one that followed last, before the batch, its context having occurred `total` times.
  NGRAM_HOST_DEVICE static bool followed_last(const Node& successor, std::uint32_t total) {
    return successor.recent != 0 && successor.last_seen + 1 == total;
  }
};

// rows(levels, size): what has the last word is written down.
struct Settle {
  Batch batch;

  NGRAM_HOST_DEVICE void operator()(std::int64_t row, std::int64_t i) const {
    const Counted& of = batch.of;
    const int level = static_cast<int>(row);
    const std::int64_t at = of.at(level, i);
    const std::uint32_t id = of.child[at];
    if (i + 1 == batch.size) {
      of.tip[level + 1] = id;
      of.tip_total[level + 1] = id == kNone ? 0 : of.before[at];
    }
    if (id == kNone) return;
    if (of.run[at] != 0) of.nodes[of.context[at]].run = of.run[at];
    if (of.recent[at] != 0) {
      of.nodes[id].recent = of.recent[at];
      of.nodes[id].last_seen = of.total[at];
    }
  }
};

}  // namespace ngram::device
