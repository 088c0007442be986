// Looking ahead: what exact counts know of tokens that may follow the stream, nothing being counted. `exact.h` has the
// memory.
#pragma once

#include <cstdint>

#include "cuda/exact.h"
#include "cuda/exact_table.h"

namespace ngram::device {

// The stream as it stands, and `size` tokens that may follow.
struct Ahead {
  Counted of;
  std::uint32_t positions;  // of the stream
  const std::uint32_t* tokens;
  std::int64_t size;

  // The n-gram of a node, which has `length` tokens, as a context: an occurrence that ends the stream has no successor.
  NGRAM_HOST_DEVICE Place place(std::uint32_t id, int length) const {
    if (length == 0) return {positions > 0 ? kRoot : kNone, positions, 0};
    const Node& node = of.nodes[id];
    if (node.count > 1) {
      const std::uint32_t times = node.count - (of.tip[length] == id ? 1 : 0);
      return {times > 0 ? id : kNone, times, 0};
    }
    return {kNone, node.first, node.first + 1 < positions ? 1u : 0u};
  }

  NGRAM_HOST_DEVICE Place& at(int level, std::int64_t i) const { return of.place[level * (of.capacity + 1) + i]; }

  // What is known of `token` in a context; where that leads.
  template <class Lanes>
  NGRAM_HOST_DEVICE Evidence look(const Lanes& lanes, int level, const Place& context, std::uint32_t token,
                                  Place* next) const {
    if (context.once != 0) {
      const bool same = of.stream[context.times_or_position + 1] == token;
      const std::uint32_t position = context.times_or_position + 1;
      if (same && position + 1 < positions) *next = {kNone, position, 1};
      return {{1, 1, 1, 1}, same ? Successor{1, 1, std::uint32_t{1} << 31} : Successor{}};
    }
    const Node& node = of.nodes[context.node];
    const std::uint32_t times = context.times_or_position;
    Evidence seen{{times, node.novel_total, node.distinct, node.run}, {}};
    const std::uint32_t id = of.table.find(lanes, {context.node, token}, kNone);
    if (id == kNone) return seen;
    const Node& found = of.nodes[id];
    seen.target = {found.count, found.novel, level > 0 ? aged(found.recent, times - 1 - found.last_seen) : 0};
    if (level + 1 < of.levels) *next = place(id, level + 1);
    return seen;
  }
};

// rows(1, levels): the contexts of the next token.
struct LookFrom {
  Ahead ahead;

  NGRAM_HOST_DEVICE void operator()(std::int64_t, std::int64_t level) const {
    const Counted& of = ahead.of;
    const int length = static_cast<int>(level);
    const bool known = length == 0 || (of.tip_total[length] > 0 && of.tip[length] != kNone);
    ahead.at(length, 0) = known ? ahead.place(of.tip[length], length) : Place{kNone, 0, 0};
  }
};

// groups(size): one level of the evidence on each token, the ones before it having followed.
struct Look {
  Ahead ahead;
  int level;

  template <class Lanes>
  NGRAM_HOST_DEVICE void operator()(const Lanes& lanes, std::int64_t i) const {
    const Counted& of = ahead.of;
    const Place context = level == 0 && i > 0 ? ahead.place(kRoot, 0) : ahead.at(level, i);
    Place next{kNone, 0, 0};
    if (context.known()) {
      const Evidence seen = ahead.look(lanes, level, context, ahead.tokens[i], &next);
      if (lanes.leads()) {
        of.evidence[i * of.levels + level] = seen;
        of.depth[i] = static_cast<std::uint8_t>(level + 1);
      }
    }
    if (lanes.leads() && level + 1 < of.levels) ahead.at(level + 1, i + 1) = next;
  }
};

// rows(1, levels): what follows the tokens looked at is where the next look begins.
struct LookOn {
  Ahead ahead;

  NGRAM_HOST_DEVICE void operator()(std::int64_t, std::int64_t level) const {
    const int length = static_cast<int>(level);
    if (ahead.size > 0) ahead.at(length, 0) = length == 0 ? ahead.place(kRoot, 0) : ahead.at(length, ahead.size);
  }
};

// groups(size x levels): the evidence on tokens from `token` on, were each the next.
struct LookEach {
  Ahead ahead;
  std::uint32_t token;

  template <class Lanes>
  NGRAM_HOST_DEVICE void operator()(const Lanes& lanes, std::int64_t item) const {
    const Counted& of = ahead.of;
    const std::int64_t i = item / of.levels;
    const int level = static_cast<int>(item % of.levels);
    const Place context = ahead.at(level, 0);
    if (!context.known()) return;
    Place next{};
    const Evidence seen = ahead.look(lanes, level, context, token + static_cast<std::uint32_t>(i), &next);
    if (!lanes.leads()) return;
    of.evidence[item] = seen;
    const bool longer_known = level + 1 < of.levels && ahead.at(level + 1, 0).known();
    if (!longer_known) of.depth[i] = static_cast<std::uint8_t>(level + 1);
  }
};

}  // namespace ngram::device
