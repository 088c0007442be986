#include "exact/counts.h"

#include <algorithm>
#include <stdexcept>

#include "common/prefetch.h"

namespace ngram {

namespace {

constexpr int kRequestAhead = 64, kResolveAhead = 32;  // positions before their counting

}  // namespace

ExactCounts::ExactCounts(int levels)
    : levels_(levels),
      tip_((levels + 1) * (kChunk + 1), kNone),
      tip_total_((levels + 1) * (kChunk + 1)),
      child_(levels * kChunk, kNone),
      ending_(levels + 1, kNone) {
  add_segment();
  nodes_ = 1;  // the root
  for (int i = 0; i <= kChunk; ++i) tip_node(0, i) = kRoot;
  ending_[0] = kRoot;
}

void ExactCounts::add_segment() {
  segments_.push_back(std::make_unique<Segment>());
  segment_.push_back(segments_.back()->nodes.data());
}

std::uint64_t ExactCounts::bytes() const {
  std::uint64_t lists = 0;
  for (const auto& [id, list] : lists_) {
    lists += sizeof(id) + sizeof(list) + list.nodes.capacity() * sizeof(std::uint32_t);
  }
  return lists + nodes_ * (sizeof(Node) + sizeof(std::uint32_t)) + index_.bytes() +
         stream_.size() * sizeof(std::uint32_t);
}

std::uint32_t ExactCounts::find(std::uint32_t parent, std::uint32_t token) const {
  const Node& context = node(parent);
  if (context.distinct > 1) return index_.find(parent, token);
  return context.distinct == 1 && node(context.link).token == token ? context.link : kNone;
}

// A child that has not followed yet; the caller counts it.
std::uint32_t ExactCounts::add_child(std::uint32_t parent, std::uint32_t token, std::uint64_t position) {
  if (nodes_ == kNone) throw std::length_error("more than 4294967294 distinct n-grams: use a lower highest order");
  const auto id = static_cast<std::uint32_t>(nodes_);
  if (id >> kSegmentBits == segments_.size()) add_segment();
  Node& up = node(parent);
  if (up.distinct == 1) index_.insert(parent, node(up.link).token, up.link);
  if (up.distinct > 0) index_.insert(parent, token, id);
  ++nodes_;
  Node& added = node(id);
  added.token = token;
  added.link = static_cast<std::uint32_t>(position);
  added.position_high = static_cast<std::uint32_t>(position >> 32);
  older(id) = up.distinct ? up.link : 0;
  up.link = id;
  up.distinct = up.distinct + 1;
  return id;
}

// Gives the nodes in `expanding_` the child that followed when their n-gram occurred for the first time.
void ExactCounts::expand_all() {
  for (const std::uint32_t id : expanding_) NGRAM_PREFETCH(stream_.data() + newest(node(id)) + 1);
  for (const std::uint32_t id : expanding_) {
    const std::uint64_t position = newest(node(id)) + 1;
    Node& only = node(add_child(id, stream_[position], position));
    only.count = 1;
    only.novel = 1;
    only.recent = std::uint32_t{1} << 31;
    node(id).novel_total = 1;
    node(id).run = 1;
  }
  expanding_.clear();
}

void ExactCounts::request(int level, int i, std::uint32_t token) {
  const std::uint32_t context = tip_node(level, i);
  if (context == kNone) return;
  const Node& up = node(context);
  if (up.distinct > 1) {
    index_.request(context, token);
  } else if (up.distinct == 1) {
    NGRAM_PREFETCH(&node(up.link));
  }
}

void ExactCounts::resolve(int level, int i, std::uint32_t token) {
  const std::uint32_t context = tip_node(level, i);
  child(level, i) = kNone;
  if (context == kNone || node(context).distinct < 2) return;
  const std::uint32_t id = child(level, i) = index_.find(context, token);
  if (id != kNone) NGRAM_PREFETCH(&node(id));
}

// The successor at `level` - 1 of position i, whose longer context is at `level`, has just been counted.
void ExactCounts::count_novel(int level, int i, bool is_new, Chunk& chunk) {
  const std::uint32_t id = child(level - 1, i);
  if (id == kNone) return;
  Node& lower = node(id);
  Node& up = node(tip_node(level - 1, i));
  Evidence& seen = chunk.evidence(level - 1, i);
  seen.target.novel = lower.novel;
  seen.context.novel_total = up.novel_total;
  if (is_new) {
    ++lower.novel;
    ++up.novel_total;
  }
}

void ExactCounts::count(int level, int i, std::uint32_t token, std::uint64_t position, Chunk& chunk) {
  const std::uint32_t context = tip_node(level, i);
  tip_node(level + 1, i + 1) = kNone;
  if (context == kNone) {
    child(level, i) = kNone;
    ending_[level + 1] = kNone;
    if (level > 0) count_novel(level, i, true, chunk);
    return;
  }
  const std::uint64_t times = context == kRoot ? position : tip_total(level, i);
  Evidence& seen = chunk.evidence(level, i);
  Node& up = node(context);
  seen.context = {times, 0, up.distinct, up.run};
  std::uint32_t id = child(level, i);
  if (id == kNone) id = find(context, token);  // it may have become known since it was sought
  const bool is_new = id == kNone;
  if (is_new) id = add_child(context, token, position);
  Node& target = node(id);
  seen.target = is_new ? Successor{} : successor(target, times, level > 0);
  if (target.count == kNone) throw std::length_error("an n-gram occurred more than 4294967294 times");
  if (level > 0) {
    const bool again = !is_new && target.last_seen + 1 == times;
    up.run = again ? std::min<std::uint32_t>(up.run + 1, kRunLimit) : 1;
    target.recent = seen.target.recent >> 1 | std::uint32_t{1} << 31;
    target.last_seen = static_cast<std::uint32_t>(times);
  }
  const std::uint32_t before = target.count++;
  child(level, i) = id;
  ending_[level + 1] = id;
  if (times > 0) chunk.depth[i] = level + 1;
  if (before > 0 && level + 1 < levels_) {
    if (before == 1) expanding_.push_back(id);  // its children are not needed before the next level
    tip_node(level + 1, i + 1) = id;
    tip_total(level + 1, i + 1) = before;
  }
  if (level > 0) count_novel(level, i, is_new, chunk);
}

void ExactCounts::append(const std::uint32_t* tokens, int n, Chunk& chunk) {
  rewind();
  const std::uint64_t first = stream_.size();
  stream_.insert(stream_.end(), tokens, tokens + n);
  std::fill_n(chunk.depth.begin(), n, 0);
  // What is ahead by up to n positions was left by counting its lower neighbour, n + 1 positions before it.
  const int requested = std::min(kRequestAhead, n), resolved = std::min(kResolveAhead, n);
  for (int i = 0; i < requested; ++i) request(0, i, tokens[i]);
  for (int i = 0; i < resolved; ++i) resolve(0, i, tokens[i]);
  for (int level = 0; level < levels_; ++level) {
    for (int i = 0; i < n; ++i) {
      const auto ahead = [&](int by, auto step) {
        const int at = i + by < n ? i + by : i + by - n, above = level + (i + by >= n);
        if (above < levels_) (this->*step)(above, at, tokens[at]);
      };
      ahead(requested, &ExactCounts::request);
      ahead(resolved, &ExactCounts::resolve);
      count(level, i, tokens[i], first + i, chunk);
    }
    expand_all();
  }
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
  const std::uint64_t position = newest(found);
  return {kNone, position, position + 1 < stream_.size()};
}

void ExactCounts::peek(const std::uint32_t* tokens, int n, Chunk& chunk) {
  if (!peeking_) {
    peeking_.emplace(levels_ + 1);
    for (int level = 0; level < tip_depth(); ++level) {
      (*peeking_)[level] = place(tip_node(level, 0), level);
    }
  }
  for (int i = 0; i < n; ++i) {
    std::vector<Place> next(levels_ + 1);
    if (!stream_.empty()) next[0] = place(kRoot, 0);
    chunk.depth[i] = 0;
    for (int level = 0; level < levels_; ++level) {
      const Place& at = (*peeking_)[level];
      if (at.node == kNone && !at.once) break;
      chunk.depth[i] = level + 1;
      Evidence& seen = chunk.evidence(level, i);
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
