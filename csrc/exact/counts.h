// Exact n-gram counts: every context's successors, counted after each position, for contexts of 0 to levels - 1 tokens.
// `ngram_eval/scorers/exact/reference.py` is the specification; every number equals it.
//
// What is stored
//   A tree of n-grams. A node is an n-gram that has occurred; its parent is the n-gram without its newest token, so the
//   context of a position is a node and its successors are that node's children. An only child is found by its parent's
//   link; the children of others in an index by (parent, token), whole: no collision ever changes a number.
//   An n-gram that has occurred once gets no children: its only successor is read off the stored stream when it occurs
//   again ("expanded"). So nodes exist for n-grams whose context occurred at least twice, whatever `levels` is.
//   A node's children are chained, the newest first. Contexts with many of them also get a list, but only once they are
//   visited: whole distributions need it (half the time on 3 million tokens), scoring does not.
//
// Statistics of a context, over the times it occurred before: how often (total), how many different successors
// (distinct), how often the last one came in a row (run). Of a successor: how often it followed (count); before how
// many different longer contexts it was new (novel: the continuation count of Kneser and Ney, 1995); at which of the
// last 32 times it followed (recent: the newest is the highest bit, so the sum over successors is 2^32 - 2^(32 - times)).
//
// Cost
//   A node has 36 bytes: 32 that counting reads and writes, half a cache line, and 4 apart that it only writes. The index
//   has 16 to 32 bytes for each node that has siblings, and the stream 4 bytes a token. A position costs a level one
//   random node line, and one of the index where the context has had several successors. Both are requested ahead of
//   use: `append` works level by level over a chunk, which leaves every statistic as it stood before its position, since
//   levels only wait for their lower neighbour; what lies ahead of a level's last positions is the next level.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "common/growing_pages.h"
#include "common/prefetch.h"
#include "exact/child_index.h"
#include "exact/evidence.h"

namespace ngram {

class ExactCounts {
 public:
  static constexpr int kChunk = 256;  // most positions of one call

  explicit ExactCounts(int levels);

  // What was known of each position of a chunk before it was counted: of position i `evidence(level, i)`, level <
  // depth[i].
  struct Chunk {
    explicit Chunk(int levels) : known(static_cast<std::size_t>(levels) * kChunk) {}

    Evidence& evidence(int level, int i) { return known[level * kChunk + i]; }
    const Evidence& evidence(int level, int i) const { return known[level * kChunk + i]; }

    std::array<int, kChunk> depth{};
    std::vector<Evidence> known;
  };

  // Counts the next `n` tokens, and says what was known of them unless `chunk` is null. Throws std::length_error when a
  // count or the nodes would pass 32 bits.
  void append(const std::uint32_t* tokens, int n, Chunk* chunk);

  // Makes room for a text of `tokens` that comes next; it has about one n-gram with siblings a token.
  void reserve(std::uint64_t tokens) { index_.reserve(tokens); }

  // The same evidence for tokens that follow the stream, without counting any. Calls go on from each other until
  // `rewind` or `append`: so a window is scored from the counts before it.
  void peek(const std::uint32_t* tokens, int n, Chunk& chunk);
  void rewind() { peeking_.reset(); }

  // The contexts of the next token: those with level < tip_depth() have occurred before.
  int tip_depth() const;
  Context tip(int level) const;
  Successor tip_successor(int level, std::uint32_t token) const;
  // Calls visit(token, Successor) for every token that followed the context.
  template <class Visit>
  void visit_successors(int level, const Visit& visit);

  int levels() const { return levels_; }
  std::uint64_t positions() const { return positions_; }
  std::uint64_t nodes() const { return nodes_; }
  std::uint64_t bytes() const;
  std::uint32_t token(std::uint64_t position) const { return stream_.data()[position]; }

 private:
  struct Node {
    std::uint32_t token : kTokenBits;
    std::uint32_t position_high : 32 - kTokenBits;
    std::uint32_t count;
    std::uint32_t link;  // not expanded: position (low bits) of its newest token; else its newest child
    std::uint32_t distinct : kTokenBits;
    std::uint32_t run : 32 - kTokenBits;
    std::uint32_t novel;
    std::uint32_t novel_total;
    std::uint32_t recent;     // as of last_seen
    std::uint32_t last_seen;  // the parent's total when this child last followed
  };
  static_assert(sizeof(Node) == 32);

  static constexpr std::uint32_t kRoot = 0;  // the empty n-gram
  static constexpr std::uint32_t kNone = ChildIndex::kNone;

  static constexpr std::uint32_t kListed = 16;    // contexts with so many successors get a list when they are visited
  static constexpr std::size_t kVisitAhead = 12;  // nodes by which a visit of a list runs ahead of itself

  // The children of a visited node, in any order. Along their chain every node would have to be waited for; the chain
  // begins with the newest, so a later visit only adds what has come before `newest`.
  struct List {
    std::vector<std::uint32_t> nodes;
    std::uint32_t newest = 0;
  };

  // A context of a position: its node, or kNone where it had not occurred, and how often it had.
  struct Tip {
    std::uint32_t node;
    std::uint32_t total;  // of the root nothing: the stream's length says it
  };

  // A context while peeking: an expanded node and how often it occurred, or an n-gram that occurred once and the
  // position of its newest token there, or (neither) one that never occurred.
  struct Place {
    std::uint32_t node = kNone;
    std::uint64_t times_or_position = 0;
    bool once = false;
  };

  Node& node(std::uint32_t id) { return node_.data()[id]; }
  const Node& node(std::uint32_t id) const { return node_.data()[id]; }
  // The node's next older sibling, 0 at the end.
  std::uint32_t& older(std::uint32_t id) { return older_.data()[id]; }
  std::uint64_t total(std::uint32_t id, std::uint32_t count) const { return id == kRoot ? positions_ : count; }
  Tip* tips(int level) { return tip_.data() + level * (kChunk + 1); }
  const Tip& tip_of(int level) const { return tip_[level * (kChunk + 1)]; }
  std::uint32_t* children(int level) { return child_.data() + level * kChunk; }

  // `append` of positions [from, to) at a level: ask for what names the successors' nodes, ask for the nodes, count.
  void request(int level, const std::uint32_t* tokens, int from, int to);
  void resolve(int level, const std::uint32_t* tokens, int from, int to);
  template <bool kRootLevel, bool kTold>
  void count(int level, const std::uint32_t* tokens, int from, int to, std::uint64_t first, Chunk* chunk);
  std::uint64_t newest(const Node& of) const { return std::uint64_t{of.position_high} << 32 | of.link; }
  std::uint32_t find(std::uint32_t parent, std::uint32_t token) const;
  std::uint32_t add_child(std::uint32_t parent, std::uint32_t token, std::uint64_t position);
  void expand_all();
  Successor successor(const Node& child, std::uint64_t total, bool recency) const;
  Place place(std::uint32_t id, int length) const;

  int levels_;
  GrowingPages<std::uint32_t> stream_{std::size_t{1} << 33};
  std::uint64_t positions_ = 0;
  GrowingPages<Node> node_{std::size_t{1} << 32};
  GrowingPages<std::uint32_t> older_{std::size_t{1} << 32};
  std::uint64_t nodes_ = 1;                        // the root
  std::unordered_map<std::uint32_t, List> lists_;  // by node
  ChildIndex index_;                               // of nodes that have siblings

  // By level, then position in the chunk; of tips entry 0 is before the chunk's first token.
  std::vector<Tip> tip_;
  std::vector<std::uint32_t> child_;
  std::vector<std::uint32_t> expanding_;       // nodes that have just occurred for the second time
  std::vector<std::uint32_t> ending_;          // node of the newest n-gram of each length, new ones too, or kNone
  std::optional<std::vector<Place>> peeking_;  // by level; empty unless peeking
};

inline Successor ExactCounts::successor(const Node& child, std::uint64_t total, bool recency) const {
  return {child.count, child.novel, recency ? aged(child.recent, total - 1 - child.last_seen) : 0};
}

template <class Visit>
void ExactCounts::visit_successors(int level, const Visit& visit) {
  const auto [id, count] = tip_of(level);
  const Node& context = node(id);
  const std::uint64_t times = total(id, count);
  const auto call = [&](const Node& child) {
    visit(static_cast<std::uint32_t>(child.token), successor(child, times, level > 0));
  };
  if (context.distinct < kListed) {
    for (std::uint32_t c = context.link; c != 0; c = older(c)) call(node(c));
    return;
  }
  List& list = lists_[id];
  for (std::uint32_t c = context.link; c != list.newest; c = older(c)) list.nodes.push_back(c);
  list.newest = context.link;
  for (std::size_t i = 0; i < list.nodes.size(); ++i) {
    if (i + kVisitAhead < list.nodes.size()) NGRAM_PREFETCH(&node(list.nodes[i + kVisitAhead]));
    call(node(list.nodes[i]));
  }
}

}  // namespace ngram
