// A mixer of hashed n-gram memory and a neural model, whose probabilities sum to 1 by construction; for vocabularies of 2
// tokens or more. `ngram_eval/scorers/mixer/reference.py` is the specification: every number equals it bit for bit, since
// floats are only added, subtracted, multiplied and divided, in a fixed order.
//
// The decisions. Leaves of a binary tree are the tokens in the order of what they spell; a node parts the range [low,
// high) of ranks at mid = (low + high + 1) / 2. A token is its path of 0s (left) and 1s (right), each charged with a
// probability between 0 and 1, so that the tokens' products sum to 1, whatever collides.
//
// One decision. Inputs are logits ln(p / (1 - p)): the neural model's (of sums over subtrees), a constant, that of the
// longest repetition, of adaptive probabilities by node and context (direct), of bit histories by hash of (context,
// node) (`bit_history.h`), read through one adaptive map a context, of the token that came last after a context (`Run`), of
// exact counts (`exact_paths.h`), and of a recurrent network (`recurrent.h`). Several sets of weights, each chosen by
// something else that is known, add them up; a second layer adds up those sums, and two adaptive maps of (its sum, node or
// last token) fix what is left: p = 1/2 squash + 1/4 map + 1/4 map. When the token is known, each layer moves by its error
// times its input at every decision: all are charged by what was known before the token. This is the logistic mixing of
// Mahoney's PAQ7 (2005), over tokens, with a language model for an input.
//
// The switch. What is charged is b neural + (1 - b) mixed, decision by decision, b the posterior weight of the neural
// model from 1/2, with a share of 1 / (t + 2) spread evenly after position t (Herbster and Warmuth, 1998): over T positions
// this never costs more than 1 + log2(T + 1) bits against the neural model alone, whatever the text (but for tokens that
// have less than 2^-22 at a decision, which nothing is charged below).
//
// Nothing but the weights, the two last maps and the switch depends on the neural model, so the rest is made again from
// the tokens.
//
// Memory: 16 bytes a group, 4 for direct probabilities, and 4 with runs; 40 MiB; some 320 bytes a token of the vocabulary.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/prefetch.h"
#include "common/zero_pages.h"
#include "mixer/contexts.h"
#include "mixer/estimate.h"
#include "mixer/exact_paths.h"
#include "mixer/groups.h"
#include "mixer/lanes.h"
#include "mixer/recurrent.h"

namespace ngram {

struct MixerConfig {
  int hashed;            // contexts with bit histories, the first of `Contexts::hashed`
  int sets;              // of weights
  std::uint64_t groups;  // of bit histories, a power of two from 4
  float weight;          // at the start, of every n-gram input; the neural one has 1
  int matches;           // repetitions that are followed
  int exact_order;       // of exact counts as an input, 0 for none
  int runs;              // contexts whose last token is an input, the first ones
  int cells;             // of the recurrent network, 0 for none
};

// The decisions of tokens in a row, for a coder of bits.
struct Decisions {
  std::vector<std::uint8_t> bits;
  std::vector<double> ones;  // probabilities of a 1
};

// What the neural model says of tokens in a row.
struct Neural {
  enum {
    kRows,
    kPaths
  } form;  // distributions of V; or, of the decisions on each token's path, the probabilities of a 1
  const double* numbers;
  std::int64_t stride;  // from one token's to the next's; 0: one row for all
};

class Mixer {
 public:
  static constexpr int kMostSets = 8, kMostDecisions = 19;  // decisions: a vocabulary has at most 2^19 tokens

  // Decisions of the longest path.
  int depth() const { return std::bit_width(by_rank_.size() - 1); }

  Mixer(const MixerConfig& config, Spelling spelling);

  // Learns from `n` tokens all that does not depend on the neural model, without charging for them.
  template <class Token>
  void append(const Token* tokens, std::int64_t n);

  // Charges each token, learns from it; then the next. `order` is the longest context of up to 6 tokens that had
  // occurred, its tokens plus one; 1 where only the empty one had, 0 at the start. `decisions` may be null.
  template <class Token>
  void score(const Token* tokens, std::int64_t n, const Neural& neural, double* p, std::uint8_t* order,
             Decisions* decisions);

  // What `score` would charge each token with, bit for bit.
  void distribution(const double* row, double* p);

  // What the contexts with bit histories have to say of a token, in `hashed` values each: how often the context occurred,
  // as far as its state at the first decision remembers; how often the last decision on the token's path went its way;
  // and the share of the mixed logits, by size, over all the path's decisions. `shares` has a last value more, the neural
  // model's.
  void evidence(std::uint32_t token, const double* row, std::int64_t* occurred, std::int64_t* followed, double* shares);

  // One token, decision by decision: the probability of a 1 at the first; then, told each outcome, at the next. When
  // `token_known`, the token has been learned from, and the number returned means nothing. `row` may be null for that of
  // the last call.
  double begin(const double* row);
  double decide(int bit);
  bool token_known() const { return path_->last().is_leaf(); }
  std::uint32_t token() const { return by_rank_[path_->last().low]; }

  const MixerConfig& config() const { return config_; }
  std::uint32_t vocab_size() const { return static_cast<std::uint32_t>(by_rank_.size()); }

  // Learned besides what `append` makes again, to be read or written in place.
  std::vector<std::pair<const char*, std::span<float>>> learned();
  struct Believed {  // weights of the neural model and of exact counts; the rest is the mixture's
    double neural, exact;
  };
  struct Switch {
    Believed believed;
    double charged = 0.0;  // positions
  };
  Switch& chosen() { return switch_; }
  ExactModel* exact() { return exact_ ? &exact_->model() : nullptr; }  // null without exact counts

  // A mixer that continues as `of` would.
  struct Copy {
    const Mixer& of;
  };
  explicit Mixer(const Copy& copy);

 private:
  static constexpr int kInputs = 88;  // 3 + kMostMatches + kDirect + 2 kMostHashed + 1, and zeros
  static constexpr int kNeural = 0, kConstant = 1, kExact = 2, kRepetition = 3,
                       kFirstDirect = kRepetition + kMostMatches;
  static constexpr int kFirstHashed = kFirstDirect + kDirect;
  static constexpr int kLevels = 4;                         // of the tree in a group
  static constexpr int kAsks = 4, kCountingAsks = 2;        // calls of `ask` a decision, in `score` and in `append`
  static constexpr int kDirectPlaces = 16;                  // of a group, the first unused
  static constexpr int kCells = 33;                         // of a last map, over logits from -8 to 8
  static constexpr int kHashedSets = 14, kHashedMaps = 16;  // bits of a row
  static constexpr int kFewSets = 5;                        // that are added up in any case
  static constexpr int kLengths = 32, kMisses = 4;          // of repetitions: classes
  static constexpr int kRunLengths = 16, kRunDepths = 4;    // of runs: classes
  static constexpr int kMostGroups = (kMostDecisions + kLevels - 1) / kLevels;
  static constexpr int kPadded = (kMostHashed + kLanes - 1) / kLanes * kLanes;

  // A node on the way to a token.
  struct Node {
    std::uint32_t low, high;
    int place;  // 1 to 15 in its group

    std::uint32_t mid() const { return (low + high + 1) / 2; }
    bool is_leaf() const { return high - low == 1; }
  };

  // What came last after a context, and how often in a row: a check of 8 bits, a length of 5, a rank of 19.
  struct Run {
    static constexpr std::uint32_t kMost = 31;

    std::uint32_t check() const { return bits & 255; }
    std::uint32_t length() const { return bits >> 8 & kMost; }
    std::uint32_t rank() const { return bits >> 13; }

    std::uint32_t bits;
  };

  // The way to the next token as far as it is known, and what the tokens before it say of it.
  struct Path {
    std::uint64_t position;
    Contexts contexts;
    struct Expected {
      std::uint32_t rank;  // of what it says comes next
      int row;             // in the repetitions' map; -1: there is none
      int length;          // tokens that were alike
    };
    std::array<Expected, kMostMatches> expected;
    int depth;   // of the last node
    int groups;  // that a whole path goes through
    std::array<Node, kMostDecisions + 1> nodes;
    std::array<std::uint8_t, kMostDecisions> bits;
    std::array<std::uint64_t, (kMostGroups + 1) * kMostHashed> keys;  // of groups, those of a node in a row
    std::array<std::array<Estimate*, kDirect>, kMostGroups> direct;   // places 0 to 15 of a node's group
    std::array<Run*, kMostHashed> runs;
    struct Rows {  // of the node, or of hashes with what came before
      std::array<float*, 3> weights;
      float* last_weights;
      std::array<float*, 2> maps;
    };
    std::array<Rows, kMostDecisions> rows;

    const Node& last() const { return nodes[depth]; }
  };

  // What a decision was made of.
  struct Decision {
    alignas(32) std::array<float, kInputs> inputs;
    alignas(32) std::array<float, kLanes> logits;
    alignas(32) std::array<std::uint32_t, kPadded> states;  // of the contexts' histories, plus 256 times the context
    std::array<float*, kMostSets> weights;
    float* last_weights;
    std::array<float*, 2> cells;
    std::array<Estimate*, kMostMatches> repetitions;  // or null
    std::array<Estimate*, kPadded> runs;              // of those that have not failed
    int known_runs;                                   // these
    float right;                                      // share of the second of two neighbouring cells
    double neural;                                    // probability of a 1 by the neural model
    double exact;                                     // the same by exact counts
    double mass;                                      // that the neural model gives to the node
    float mixed;                                      // before the last maps
    float fixed;                                      // after them
  };

  // What the contexts hold of a group's nodes.
  struct Group {
    std::array<Groups::Found, kMostHashed> hashed;
    std::array<Estimate*, kDirect> direct;  // by place
  };

  Estimate* direct_line(std::uint64_t hash) { return direct_.data() + (hash >> 8 & direct_mask_) * kDirectPlaces; }
  int recurrent_input() const { return kFirstHashed + config_.hashed + config_.runs; }  // the last
  void start(Path& path);
  float* weights(int set, std::uint64_t row) const { return first_weights_[set] + row * row_width_[set]; }
  void choose(Path& path);
  void descend(Path& path, int bit) const;
  void plan(Path& path, std::uint32_t token, int times);
  template <int kPart>
  void ask(int depth);
  void find(const Path& path, int group);
  void sum_up(const double* row);
  void branches(const Path& path, int from, int to);
  void look(const Path& path, int from, int to);
  void look_at_runs(const Path& path, int from, int to);
  template <int kSets>
  void select(const Path& path, int depth);
  void predict(const Path& path, int from, int to);
  void predict_last(Path& path);
  template <class F>
  void with_vectors(F f) const;
  template <int kSets, class Vectors>
  void add_up(const Path& path, int from, int to, float* z, Vectors vectors);
  template <class Vectors>
  void move_sets(Decision& decision, const std::array<float, kLanes>& steps, Vectors vectors) const;
  double charge(int depth, const Believed& weight) const;
  Believed told(int depth, const Believed& weight, double one, int bit) const;
  void counted(const Path& path, int from, int to);
  void finish(const Path& path);
  int order(const Path& path) const;
  double charge(Path& path, Decisions* decisions);
  void learn(const Path& path);
  void count(const Path& path);

  Mixer(const Mixer&) = default;  // with pointers into the other one

  MixerConfig config_;
  std::shared_ptr<const Spelling> shared_;  // by its copies
  const Spelling& spelling_;
  std::vector<std::uint32_t> by_rank_;
  MixerContexts past_;
  int used_;   // inputs
  int width_;  // these, rounded up to whole lanes

  Groups groups_;
  ZeroPages<Estimate> direct_;
  std::uint64_t direct_mask_;
  std::vector<Estimate> maps_;  // (hashed contexts, 256 states)
  ZeroPages<Run> runs_;
  Estimate no_run_;                          // in lanes that have none
  std::vector<Estimate> run_maps_;           // (contexts, count, depth, what is expected)
  std::vector<Estimate> repetitions_;        // (length, first or later decision, what is expected)
  std::deque<ZeroPages<float>> weights_;     // by set: (selected, width)
  std::array<float, kInputs> no_weights_{};  // of sets that are not in use: their only row
  std::array<float*, kMostSets> first_weights_;
  std::array<std::size_t, kMostSets> row_width_;
  ZeroPages<float> last_weights_;              // (V, lanes)
  std::array<ZeroPages<float>, 2> last_maps_;  // (V, cells), (hash of last token and node, cells)

  Switch switch_;
  std::optional<ExactPaths> exact_;
  std::optional<Recurrent> recurrent_;
  std::vector<double> below_;  // neural probability of all ranks below each, V + 1

  std::array<Path, 2> paths_{};
  Path* path_ = &paths_[0];   // the token under way
  Path* ahead_ = &paths_[1];  // the one after it
  int asked_ = 0;             // keys of that one whose groups have been asked for
  int at_once_ = 0;           // so many in a call of `ask`
  Believed weight_;           // given the decisions so far
  double one_ = 0.5;          // what a 1 is charged with at the newest decision
  std::array<Decision, kMostDecisions> decisions_{};
  std::array<Group, kMostGroups> found_;
};

}  // namespace ngram
