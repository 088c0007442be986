#include "exact/counts.h"

#include <algorithm>
#include <stdexcept>

#include "common/prefetch.h"

namespace ngram {

namespace {

constexpr int kBlock = 32;  // positions that are requested, resolved and counted in one go

}  // namespace

ExactCounts::ExactCounts(int levels)
    : levels_(levels),
      tip_((levels + 1) * (kChunk + 1), Tip{kNone, 0}),
      child_(levels * kChunk, kNone),
      ending_(levels + 1, kNone) {
  node_.extend(1);
  older_.extend(1);
  for (int i = 0; i <= kChunk; ++i) tips(0)[i] = {kRoot, 0};
  ending_[0] = kRoot;
}

std::uint64_t ExactCounts::bytes() const {
  std::uint64_t lists = 0;
  for (const auto& [id, list] : lists_) {
    lists += sizeof(id) + sizeof(list) + list.nodes.capacity() * sizeof(std::uint32_t);
  }
  return lists + nodes_ * (sizeof(Node) + sizeof(std::uint32_t)) + index_.bytes() + positions_ * sizeof(std::uint32_t);
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
  node_.extend(nodes_ + 1);
  older_.extend(nodes_ + 1);
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
  for (const std::uint32_t id : expanding_) {
    const std::uint64_t position = newest(node(id)) + 1;
    Node& only = node(add_child(id, token(position), position));
    only.count = 1;
    only.novel = 1;
    only.recent = std::uint32_t{1} << 31;
    node(id).novel_total = 1;
    node(id).run = 1;
  }
  expanding_.clear();
}

void ExactCounts::request(int level, const std::uint32_t* tokens, int from, int to) {
  const Tip* const tip = tips(level);
  for (int i = from; i < to; ++i) {
    const std::uint32_t context = tip[i].node == kNone ? kRoot : tip[i].node;
    const Node& up = node(context);  // of one not yet expanded the link is no child, and the request useless
    const void* const entry = index_.home(context, tokens[i]);
    NGRAM_PREFETCH(up.distinct > 1 ? entry : &node(up.link));
  }
}

void ExactCounts::resolve(int level, const std::uint32_t* tokens, int from, int to) {
  const Tip* const tip = tips(level);
  std::uint32_t* const child = children(level);
  for (int i = from; i < to; ++i) {
    const std::uint32_t context = tip[i].node;
    child[i] = kNone;
    if (context == kNone) continue;
    const Node& up = node(context);
    if (up.distinct > 1) {
      child[i] = index_.find(context, tokens[i]);
      NGRAM_PREFETCH(&node(child[i] == kNone ? kRoot : child[i]));
    } else if (up.distinct == 1) {
      const Node& only = node(up.link);
      if (only.token == tokens[i]) {
        child[i] = up.link;
      } else {  // both will be put into the index
        NGRAM_PREFETCH(index_.home(context, tokens[i]));
        NGRAM_PREFETCH(index_.home(context, only.token));
      }
    }
  }
}

template <bool kRootLevel, bool kTold>
void ExactCounts::count(int level, const std::uint32_t* tokens, int from, int to, std::uint64_t first, Chunk* chunk) {
  const Tip* const tip = tips(level);
  Tip* const longer = tips(level + 1);
  std::uint32_t* const child = children(level);
  const Tip* const shorter = kRootLevel ? nullptr : tips(level - 1);
  const std::uint32_t* const lower_child = kRootLevel ? nullptr : children(level - 1);
  Evidence* const evidence = kTold ? &chunk->evidence(level, 0) : nullptr;
  Evidence* const lower_evidence = kRootLevel || !kTold ? nullptr : &chunk->evidence(level - 1, 0);
  for (int i = from; i < to; ++i) {
    // The successor of the next shorter context is new or not before this one: its continuation counts.
    const auto count_novel = [&](bool is_new) {
      if (kRootLevel || lower_child[i] == kNone) return;
      Node& lower = node(lower_child[i]);
      Node& up = node(shorter[i].node);
      if (kTold) {
        lower_evidence[i].target.novel = lower.novel;
        lower_evidence[i].context.novel_total = up.novel_total;
      }
      lower.novel += is_new;
      up.novel_total += is_new;
    };
    const std::uint32_t context = tip[i].node;
    longer[i + 1].node = kNone;
    if (context == kNone) {
      count_novel(true);
      continue;
    }
    const std::uint64_t times = kRootLevel ? first + i : tip[i].total;
    if (kTold) evidence[i].context = {times, 0, node(context).distinct, node(context).run};
    std::uint32_t id = child[i];
    if (id == kNone) id = find(context, tokens[i]);  // it may have become known since it was sought
    const bool is_new = id == kNone;
    if (is_new) id = add_child(context, tokens[i], first + i);
    Node& target = node(id);
    const Successor seen = is_new ? Successor{} : successor(target, times, !kRootLevel);
    if (kTold) evidence[i].target = seen;
    if (target.count == kNone) throw std::length_error("an n-gram occurred more than 4294967294 times");
    if (!kRootLevel) {
      Node& up = node(context);
      const bool again = !is_new && target.last_seen + 1 == times;
      up.run = again ? std::min<std::uint32_t>(up.run + 1, kRunLimit) : 1;
      target.recent = seen.recent >> 1 | std::uint32_t{1} << 31;
      target.last_seen = static_cast<std::uint32_t>(times);
    }
    const std::uint32_t before = target.count++;
    child[i] = id;
    if (kTold && times > 0) chunk->depth[i] = level + 1;
    if (before > 0 && level + 1 < levels_) {
      if (before == 1) {  // its children are not needed before the next level
        NGRAM_PREFETCH(stream_.data() + newest(target) + 1);
        expanding_.push_back(id);
      }
      longer[i + 1] = {id, before};
    }
    count_novel(is_new);
  }
}

void ExactCounts::append(const std::uint32_t* tokens, int n, Chunk* chunk) {
  rewind();
  const std::uint64_t first = positions_;
  stream_.extend(first + n);
  std::copy_n(tokens, n, stream_.data() + first);
  positions_ = first + n;
  if (chunk) std::fill_n(chunk->depth.begin(), n, 0);
  // Blocks of positions, level after level. A block's contexts are known once the one before it of the lower level, and
  // its first position's lower neighbour, are counted: so a chunk of one block is not looked ahead in.
  const int blocks = (n + kBlock - 1) / kBlock, all = levels_ * blocks;
  const int requested = std::min(2, blocks - 1), resolved = std::min(1, blocks - 1);
  const auto call = [&](auto step, int block) {
    if (block >= all) return;
    const int level = block / blocks, from = block % blocks * kBlock;
    step(level, from, std::min(from + kBlock, n));
  };
  const auto request = [&](int level, int from, int to) { this->request(level, tokens, from, to); };
  const auto count_root = chunk ? &ExactCounts::count<true, true> : &ExactCounts::count<true, false>;
  const auto count_longer = chunk ? &ExactCounts::count<false, true> : &ExactCounts::count<false, false>;
  const auto resolve = [&](int level, int from, int to) { this->resolve(level, tokens, from, to); };
  for (int block = 0; block < requested; ++block) call(request, block);
  for (int block = 0; block < resolved; ++block) call(resolve, block);
  for (int block = 0; block < all; ++block) {
    call(request, block + requested);
    call(resolve, block + resolved);
    call(
        [&](int level, int from, int to) {
          (this->*(level == 0 ? count_root : count_longer))(level, tokens, from, to, first, chunk);
          if (to == n) expand_all();
        },
        block);
  }
  for (int level = 0; level < levels_; ++level) {
    if (level > 0) tips(level)[0] = tips(level)[n];
    ending_[level + 1] = children(level)[n - 1];
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
  return {kNone, position, position + 1 < positions_};
}

void ExactCounts::peek(const std::uint32_t* tokens, int n, Chunk& chunk) {
  if (!peeking_) {
    peeking_.emplace(levels_ + 1);
    for (int level = 0; level < tip_depth(); ++level) {
      (*peeking_)[level] = place(tip_of(level).node, level);
    }
  }
  for (int i = 0; i < n; ++i) {
    std::vector<Place> next(levels_ + 1);
    if (positions_ > 0) next[0] = place(kRoot, 0);
    chunk.depth[i] = 0;
    for (int level = 0; level < levels_; ++level) {
      const Place& at = (*peeking_)[level];
      if (at.node == kNone && !at.once) break;
      chunk.depth[i] = level + 1;
      Evidence& seen = chunk.evidence(level, i);
      if (at.once) {
        const bool same = token(at.times_or_position + 1) == tokens[i];
        seen = {{1, 1, 1, 1}, same ? Successor{1, 1, std::uint32_t{1} << 31} : Successor{}};
        if (same && at.times_or_position + 2 < positions_) {
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
  int depth = positions_ > 0 ? 1 : 0;
  while (depth > 0 && depth < levels_ && tip_of(depth).node != kNone) ++depth;
  return depth;
}

Context ExactCounts::tip(int level) const {
  const auto [id, count] = tip_of(level);
  return {total(id, count), node(id).novel_total, node(id).distinct, node(id).run};
}

Successor ExactCounts::tip_successor(int level, std::uint32_t token) const {
  const auto [id, count] = tip_of(level);
  const std::uint32_t found = find(id, token);
  return found == kNone ? Successor{} : successor(node(found), total(id, count), level > 0);
}

}  // namespace ngram
