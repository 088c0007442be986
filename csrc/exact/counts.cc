#include "exact/counts.h"

#include <algorithm>
#include <stdexcept>

#include "common/prefetch.h"
#include "exact/hash.h"

namespace ngram {

namespace {

constexpr int kIndexAhead = 64;  // positions by which an index line is requested before its use, and a node line
constexpr int kNodeAhead = 32;
constexpr std::uint64_t kFirstIndex = 1 << 12;

}  // namespace

ExactCounts::ExactCounts(int levels)
    : levels_(levels),
      index_(std::make_unique<ZeroPages<std::uint64_t>>(kFirstIndex)),
      tip_((levels + 1) * (kChunk + 1), kNone),
      tip_total_((levels + 1) * (kChunk + 1)),
      child_(levels * kChunk, kNone),
      evidence_(static_cast<std::size_t>(levels) * kChunk),
      ending_(levels + 1, kNone) {
  add_segment();
  nodes_ = 1;  // the root
  for (int i = 0; i <= kChunk; ++i) tip_node(0, i) = kRoot;
  ending_[0] = kRoot;
}

void ExactCounts::add_segment() {
  segments_.push_back(std::make_unique<ZeroPages<Node>>(std::size_t{1} << kSegmentBits));
  segment_.push_back(segments_.back()->data());
}

std::uint64_t ExactCounts::bytes() const {
  std::uint64_t lists = 0;
  for (const auto& [id, list] : lists_) {
    lists += sizeof(id) + sizeof(list) + list.nodes.capacity() * sizeof(std::uint32_t);
  }
  return lists + nodes_ * sizeof(Node) + index_->size() * sizeof(std::uint64_t) +
         stream_.size() * sizeof(std::uint32_t);
}

std::uint32_t ExactCounts::find(std::uint32_t parent, std::uint32_t token) const {
  const std::uint64_t h = child_hash(parent, token), mask = index_->size() - 1;
  for (std::uint64_t i = h & mask;; i = (i + 1) & mask) {
    const std::uint64_t entry = index_->data()[i];
    if (entry == 0) return kNone;
    if (entry >> 32 != h >> 32) continue;
    const Node& found = node(static_cast<std::uint32_t>(entry));
    if (found.parent == parent && found.token == token) return static_cast<std::uint32_t>(entry);
  }
}

void ExactCounts::insert(std::uint32_t id) {
  const Node& added = node(id);
  const std::uint64_t h = child_hash(added.parent, added.token), mask = index_->size() - 1;
  std::uint64_t i = h & mask;
  while (index_->data()[i] != 0) i = (i + 1) & mask;
  index_->data()[i] = (h >> 32) << 32 | id;
}

void ExactCounts::grow() {
  const std::uint64_t size = index_->size() * 2;
  index_.reset();  // it is made anew from the nodes: the old and the new one never exist together
  index_ = std::make_unique<ZeroPages<std::uint64_t>>(size);
  for (std::uint64_t id = 1; id < nodes_; ++id) {
    if (id + kIndexAhead < nodes_) {
      const Node& later = node(static_cast<std::uint32_t>(id + kIndexAhead));
      NGRAM_PREFETCH(index_->data() + (child_hash(later.parent, later.token) & (size - 1)));
    }
    insert(static_cast<std::uint32_t>(id));
  }
}

// A child that has not followed yet; the caller counts it.
std::uint32_t ExactCounts::add_child(std::uint32_t parent, std::uint32_t token, std::uint64_t position) {
  if (nodes_ == kNone) throw std::length_error("more than 4294967294 distinct n-grams: use a lower highest order");
  if (nodes_ * 2 > index_->size()) grow();  // at most half full: most look-ups are of n-grams that are new
  const auto id = static_cast<std::uint32_t>(nodes_++);
  if (id >> kSegmentBits == segments_.size()) add_segment();
  Node& up = node(parent);
  Node& added = node(id);
  added.parent = parent;
  added.token = token;
  added.link = static_cast<std::uint32_t>(position);
  added.position_high = static_cast<std::uint32_t>(position >> 32);
  added.next = up.distinct ? up.link : 0;
  up.link = id;
  up.distinct = up.distinct + 1;
  insert(id);
  return id;
}

// Gives the nodes in `expanding_` the child that followed when their n-gram occurred for the first time.
void ExactCounts::expand_all() {
  const auto first_successor = [this](std::uint32_t id) {
    return (std::uint64_t{node(id).position_high} << 32 | node(id).link) + 1;
  };
  for (const std::uint32_t id : expanding_) NGRAM_PREFETCH(stream_.data() + first_successor(id));
  for (const std::uint32_t id : expanding_) {
    NGRAM_PREFETCH(index_->data() + (child_hash(id, stream_[first_successor(id)]) & (index_->size() - 1)));
  }
  for (const std::uint32_t id : expanding_) {
    const std::uint64_t position = first_successor(id);
    Node& only = node(add_child(id, stream_[position], position));
    only.count = 1;
    only.novel = 1;
    only.recent = std::uint32_t{1} << 31;
    node(id).novel_total = 1;
    node(id).run = 1;
  }
  expanding_.clear();
}

// The successor at `level` - 1 of position i, whose longer context is at `level`, has just been counted.
void ExactCounts::count_novel(int level, int i, bool is_new) {
  const std::uint32_t id = child(level - 1, i);
  if (id == kNone) return;
  Node& lower = node(id);
  Node& up = node(lower.parent);
  Evidence& seen = evidence_[(level - 1) * kChunk + i];
  seen.target.novel = lower.novel;
  seen.context.novel_total = up.novel_total;
  if (is_new) {
    ++lower.novel;
    ++up.novel_total;
  }
}

void ExactCounts::append_level(int level, const std::uint32_t* tokens, int n, std::uint64_t first) {
  for (int i = 0; i < n; ++i) {
    const std::uint64_t mask = index_->size() - 1;
    if (i + kIndexAhead < n && tip_node(level, i + kIndexAhead) != kNone) {
      NGRAM_PREFETCH(index_->data() + (child_hash(tip_node(level, i + kIndexAhead), tokens[i + kIndexAhead]) & mask));
    }
    if (i + kNodeAhead < n && tip_node(level, i + kNodeAhead) != kNone) {
      const std::uint64_t entry =
          index_->data()[child_hash(tip_node(level, i + kNodeAhead), tokens[i + kNodeAhead]) & mask];
      const Node& candidate = node(static_cast<std::uint32_t>(entry));
      NGRAM_PREFETCH(&candidate);
      NGRAM_PREFETCH(&candidate.last_seen);  // half of the nodes lie on two lines
    }

    const std::uint32_t context = tip_node(level, i);
    tip_node(level + 1, i + 1) = kNone;
    child(level, i) = kNone;
    if (context == kNone) {
      ending_[level + 1] = kNone;
      if (level > 0) count_novel(level, i, true);
      continue;
    }
    const std::uint64_t times = context == kRoot ? first + i : tip_total(level, i);
    Evidence& seen = evidence_[level * kChunk + i];
    seen.context = {times, 0, node(context).distinct, node(context).run};
    std::uint32_t id = find(context, tokens[i]);
    const bool is_new = id == kNone;
    if (is_new) id = add_child(context, tokens[i], first + i);
    Node& target = node(id);
    seen.target = is_new ? Successor{} : successor(target, times, level > 0);
    if (target.count == kNone) throw std::length_error("an n-gram occurred more than 4294967294 times");
    if (level > 0) {
      Node& up = node(context);
      const bool again = !is_new && target.last_seen + 1 == times;
      up.run = again ? std::min<std::uint32_t>(up.run + 1, kRunLimit) : 1;
      target.recent = seen.target.recent >> 1 | std::uint32_t{1} << 31;
      target.last_seen = static_cast<std::uint32_t>(times);
    }
    const std::uint32_t before = target.count++;
    child(level, i) = id;
    ending_[level + 1] = id;
    if (times > 0) depth_[i] = level + 1;
    if (before > 0 && level + 1 < levels_) {
      if (before == 1) expanding_.push_back(id);  // its children are not needed before the next level
      tip_node(level + 1, i + 1) = id;
      tip_total(level + 1, i + 1) = before;
    }
    if (level > 0) count_novel(level, i, is_new);
  }
  expand_all();
}

void ExactCounts::append(const std::uint32_t* tokens, int n) {
  rewind();
  const std::uint64_t first = stream_.size();
  stream_.insert(stream_.end(), tokens, tokens + n);
  std::fill_n(depth_.begin(), n, 0);
  for (int level = 0; level < levels_; ++level) append_level(level, tokens, n, first);
  for (int level = 1; level < levels_; ++level) {
    tip_node(level, 0) = tip_node(level, n);
    tip_total(level, 0) = tip_total(level, n);
  }
}

// The n-gram of `id`, which has `length` tokens, as a context: an occurrence that ends the stream has no successor yet.
ExactCounts::Place ExactCounts::place(std::uint32_t id, int length) const {
  const Node& found = node(id);
  if (found.distinct > 0) {
    const std::uint64_t times = total(id, found.count) - (length > 0 && ending_[length] == id ? 1 : 0);
    return {times > 0 ? id : kNone, times, false};
  }
  const std::uint64_t position = std::uint64_t{found.position_high} << 32 | found.link;
  return {kNone, position, position + 1 < stream_.size()};
}

void ExactCounts::peek(const std::uint32_t* tokens, int n) {
  if (!peeking_) {
    peeking_.emplace(levels_ + 1);
    for (int level = 0; level < tip_depth(); ++level) {
      (*peeking_)[level] = place(tip_node(level, 0), level);
    }
  }
  for (int i = 0; i < n; ++i) {
    std::vector<Place> next(levels_ + 1);
    if (!stream_.empty()) next[0] = place(kRoot, 0);
    depth_[i] = 0;
    for (int level = 0; level < levels_; ++level) {
      const Place& at = (*peeking_)[level];
      if (at.node == kNone && !at.once) break;
      depth_[i] = level + 1;
      Evidence& seen = evidence_[level * kChunk + i];
      if (at.once) {
        const bool same = stream_[at.times_or_position + 1] == tokens[i];
        seen = {{1, 1, 1, 1}, same ? Successor{1, 1, std::uint32_t{1} << 31} : Successor{}};
        if (same && at.times_or_position + 2 < stream_.size()) {
          next[level + 1] = {kNone, at.times_or_position + 1, true};
        }
        continue;
      }
      const Node& context = node(at.node);
      seen = {{at.times_or_position, context.novel_total, context.distinct, context.run}, {}};
      const std::uint32_t id = find(at.node, tokens[i]);
      if (id == kNone) continue;
      seen.target = successor(node(id), at.times_or_position, level > 0);
      if (level + 1 < levels_) next[level + 1] = place(id, level + 1);
    }
    peeking_->swap(next);
  }
}

int ExactCounts::tip_depth() const {
  int depth = stream_.empty() ? 0 : 1;
  while (depth > 0 && depth < levels_ && tip_[depth * (kChunk + 1)] != kNone) ++depth;
  return depth;
}

Context ExactCounts::tip(int level) const {
  const std::uint32_t id = tip_[level * (kChunk + 1)];
  return {total(id, tip_total_[level * (kChunk + 1)]), node(id).novel_total, node(id).distinct, node(id).run};
}

Successor ExactCounts::tip_successor(int level, std::uint32_t token) const {
  const std::uint32_t id = tip_[level * (kChunk + 1)], found = find(id, token);
  if (found == kNone) return {};
  return successor(node(found), total(id, tip_total_[level * (kChunk + 1)]), level > 0);
}

}  // namespace ngram
