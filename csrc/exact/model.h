// A normalised blend of exact counts and any base distribution. `ngram_eval/scorers/exact/reference.py` is the
// specification: every number equals it bit for bit, since only +, -, x, / and comparisons of IEEE numbers are used.
//
// The chain. With contexts of 0, 1, ... tokens (levels), q the probability one level below (at level 0 the base's) and a
// successor's statistics u (`exact/counts.h`):
//     p = a4 raw + (1 - a4) (a3 recent + (1 - a3) (a1 first + a2 more + rest q)),
//     raw = count / total, recent = recent / recent_total, first = [count > 0] / N, more = (count - 1) / N,
//     rest = ((1 - a1) distinct + (1 - a2) (N - distinct)) / N,
// where below the longest context that occurred, count and N are the continuation counts of Kneser and Ney (1995). The
// weights a1..a4 in (0, 1) belong to the context: the target chooses nothing, and every level sums to 1 if the one below
// does. a = logistic(sum of the weights of five features of the context), learned online after each position from the
// gradient of its log-loss, with per-weight rates as in AdaGrad (Duchi, Hazan, Singer, 2011).
//
// The switch. p = b base + (1 - b) chain, b the posterior weight of the base from 1/2, with a share of 1 / (t + 2)
// spread evenly after position t (Herbster and Warmuth, 1998): over T positions this never costs more than
// 1 + log2(T + 1) bits against the base alone, whatever the text.
//
// The tilt. p'(a) = p(a) e^(beta [a = h]) / Z, Z = 1 + p(h) (e^beta - 1); h is the most frequent and recent successor of
// the longest context. beta is fixed, or learned: a map from p(h) to how often hints so sure came true.
//
// Cost: some 30 ns a level and position besides what `exact/counts.h` states, which a second thread can do meanwhile; a
// distribution is levels x V multiply-adds and one step for each successor of each context. Weights: 42 kB a level.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/portable_math.h"
#include "exact/counts.h"

namespace ngram {

enum class Tilt { kOff, kFixed, kLearned };

struct ExactModelConfig {
  int levels;  // context lengths 0 to levels - 1
  bool chain;  // else the base alone, for the tilt
  Tilt tilt;
  double tilt_factor;      // e^beta, if fixed
  double tilt_confidence;  // smallest share of the hint among the successors of its context
  int threads;             // from 2 on, one counts ahead of the one that charges and learns
};

// The base distribution of positions in a row: of each target, or whole rows (`stride` 0: the same row for all).
struct Base {
  const double* p_target;  // or null
  const double* rows;      // or null
  std::int64_t stride;
  const float* entropy;  // nats

  double target(std::int64_t i, std::uint32_t token) const { return p_target ? p_target[i] : rows[i * stride + token]; }
  const double* row(std::int64_t i) const { return rows + i * stride; }
};

class ExactModel {
 public:
  explicit ExactModel(const ExactModelConfig& config);

  // Counts `n` tokens without charging for them or learning from them.
  template <class Token>
  void append(const Token* tokens, std::int64_t n);

  // Charges each token, counts it, learns from it; then the next. `order` is the longest context that had occurred,
  // its tokens plus one; 1 where only the empty one had, 0 at the start. A tilt needs `base.rows`.
  template <class Token>
  void score(const Token* tokens, std::int64_t n, const Base& base, double* p, std::uint8_t* order);

  // The same with counts and weights as before the first of these tokens for all of them. Not with a tilt.
  template <class Token>
  void score_together(const Token* tokens, std::int64_t n, const Base& base, double* p, std::uint8_t* order);

  // What `score_together` would charge each token with after the `n` tokens. Takes as long as that many charges.
  template <class Token>
  void distribution_after(const Token* tokens, std::int64_t n, const double* row, float entropy,
                          std::int64_t vocab_size, double* p);

  // With counts that are kept elsewhere (`cuda/device.h`), nothing being counted here: charges each token and learns from
  // it, given what was known of it, `evidence` (n, levels) of which `depth[i]` levels, before it was counted. Or,
  // `together`, before the first of them was. No tilt.
  template <class Token>
  void score_recalled(const Token* tokens, std::int64_t n, const Evidence* evidence, const std::uint8_t* depth,
                      const Base& base, bool together, double* p);

  // What each token would be charged with, `evidence` (vocab_size, levels) being that on each as the next.
  void distribution_recalled(const Evidence* evidence, int depth, const double* row, float entropy,
                             std::int64_t vocab_size, double* p);

  // The token before the next one, where it was neither appended nor scored here.
  void follow(std::uint32_t token) { newest_ = token; }

  // What `score` would charge each token with. `row` and `p` have `vocab_size` entries.
  void distribution(const double* row, float entropy, std::int64_t vocab_size, double* p);

  // The chain at the next position in parts, for sums over tokens: calls visit(token, part) for every successor of every
  // context, a token as often as it has contexts, and returns the base's factor. A token's probability by the chain is the
  // sum of its parts and the factor times its base probability.
  template <class Visit>
  double parts(float entropy, const Visit& visit);
  // Charges, counts and learns from the token of which `parts` has just told.
  void follow_parts(std::uint32_t token, double base);

  // What is learned, besides the counts. With the same tokens appended, a model that is given another's goes on as it.
  // `weights` is (levels, kWeightsPerLevel, value or rate, part); `tilt` is (hits or tries, entry).
  struct Learned {
    std::vector<float> weights;
    std::vector<double> tilt;
    double base_weight, recent_cost;
    std::uint64_t scored;
    std::uint32_t surprises;
  };
  Learned learned() const;
  void learned(const Learned& from);  // arrays as long as `learned` returns
  static int weights_per_level();

  const ExactCounts& counts() const { return counts_; }
  std::uint32_t largest_token() const { return largest_token_; }
  const ExactModelConfig& config() const { return config_; }

 private:
  static constexpr int kFeatures = 5;
  static constexpr int kParts = 4;

  struct Weight {
    Four value;
    Four rate;
  };

  // The chain at one position, an entry a level: vectors of levels are worked on at once.
  struct Levels {
    template <class Number>
    struct alignas(32) Each : std::array<Number, kMaxLevels> {};

    // Of the contexts.
    Each<std::int32_t> size, variety, run;      // total (at most 2^25), distinct and run, for their classes
    Each<double> total, n, varied, per_recent;  // varied: distinct; per_recent: 1 / recent_total
    Each<std::int64_t> alone;                   // -1 where nothing is recent or raw: a3 = a4 = 0
    // What follows from them and the weights for any target.
    std::array<std::array<Weight*, kFeatures>, kMaxLevels> weights;
    Each<double> a[kParts];
    Each<double> per_count, per_total, distinct, repeats;  // 1 / N, 1 / total, distinct / N, (N - distinct) / N
    Each<double> first, more, recent, raw, rest;           // factors of the statistics and of q
    // The target's statistics, what they give, and its probability below each level.
    Each<double> counted, followed, lately, direct, below;
  };

  // The evidence on a position, level by level.
  struct Recalled {
    const Evidence* first;
    std::ptrdiff_t stride;

    const Evidence& operator[](int level) const { return first[level * stride]; }
  };

  // What the learned tilt knows of a hint: a place in the map from p(hint) to how often it came true.
  struct Hint {
    std::uint32_t token;
    double p, tilted;   // before and after
    std::size_t place;  // entry of the map; the next one is used too
    double between;     // 0 to 1: how far towards the next entry
  };

  // The chain, one position at a time (chain.cc).
  void begin_chain();
  template <class ContextOf>
  void prepare(int depth, const ContextOf& context_of, float entropy);
  void weigh(int depth, float entropy);
  void prepare_tip(float entropy);
  double chained(int depth, const Successor* target, double base);
  double blended(double base, double chained) const { return base_weight_ * base + (1.0 - base_weight_) * chained; }
  double charge(int depth, const Successor* target, std::uint32_t token, double base);
  double direct(int level, bool longest, const Successor& successor) const;
  void learn(int depth, double chained);
  void distribute_chain(const double* row, float entropy, std::int64_t vocab_size, double* p);
  void prepare_evidence(const Recalled& seen, int depth, float entropy, Successor* target);
  int prepare_evidence(const ExactCounts::Chunk& chunk, int i, float entropy, Successor* target);

  // The tilt (tilt.cc).
  void begin_tilt();
  double tip_probability(std::uint32_t token, double base);
  bool find_hint(const double* row, Hint& hint);
  void learn_tilt(const Hint& hint, bool came_true);
  void distribute_tilt(const double* row, std::int64_t vocab_size, double* p);
  template <class Token>
  void score_tilted(const Token* tokens, std::int64_t n, const Base& base, double* p, std::uint8_t* order);

  // Many positions (model.cc).
  template <class Token>
  int count(const Token* tokens, std::int64_t n, ExactCounts::Chunk* chunk);
  template <class Token, class Visit>
  void count_ahead(const Token* tokens, std::int64_t n, const Visit& visit);
  template <class Token, class Visit>
  void peek_each(const Token* tokens, std::int64_t n, const Visit& visit);

  ExactModelConfig config_;
  ExactCounts counts_;
  std::vector<ExactCounts::Chunk> chunks_;  // one, or what counting may be ahead by
  std::vector<Weight> weights_;
  Levels at_{};
  double base_weight_ = 0.5;
  std::uint64_t scored_ = 0;
  std::uint32_t surprises_ = 0;  // of the last positions, newest lowest: whether the longest context missed its target
  double recent_cost_ = 2.0;
  std::uint32_t newest_ = 0;  // token before the one being scored
  std::uint32_t largest_token_ = 0;
  std::vector<double> hits_, tries_;
};

// A successor's part of its level's probability, besides what comes from below; 0 if it never followed.
inline double ExactModel::direct(int level, bool longest, const Successor& successor) const {
  const std::uint32_t count = longest ? successor.count : successor.novel;
  const double seen = count > 0 ? 1.0 : 0.0;
  return at_.first[level] * seen + at_.more[level] * (static_cast<double>(count) - seen) +
         at_.recent[level] * static_cast<double>(successor.recent) +
         at_.raw[level] * static_cast<double>(successor.count);
}

template <class Visit>
double ExactModel::parts(float entropy, const Visit& visit) {
  prepare_tip(entropy);
  const int depth = counts_.tip_depth();
  double factor = 1.0;
  for (int level = depth - 1; level >= 0; --level) {
    counts_.visit_successors(level, [&](std::uint32_t token, const Successor& successor) {
      visit(token, factor * direct(level, level + 1 == depth, successor));
    });
    factor *= at_.rest[level];
  }
  return factor;
}

}  // namespace ngram
