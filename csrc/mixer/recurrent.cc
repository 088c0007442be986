#include "mixer/recurrent.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "common/clones.h"
#include "mixer/contexts.h"
#include "mixer/lanes.h"

namespace ngram {
namespace {

constexpr double kRate = 0.004, kRateTokens = 100000.0;  // falling
constexpr float kRowRate = 8.0f;                         // times the others': a row moves seldom
constexpr float kKept = 0.9998f, kLeastSquare = 1e-12f;  // of a running mean
constexpr float kLeastLogit = -20.0f;                    // less the largest: no token's probability is lost in a sum
constexpr float kFirst = 0.3f;                           // the largest weight of a row at the start
constexpr std::uint64_t kRows = 107, kAgain = 108;       // of hashes

NGRAM_INLINE Lanes tangent(Lanes z) { return 2.0f * logistic(2.0f * z) - 1.0f; }

// 1 / sqrt(x) from -, x alone: Newton's method, from a first guess by halving the exponent.
NGRAM_INLINE Lanes inverse_root(Lanes x) {
  Lanes root = (Lanes)(0x5F3759DFu - ((Bits)x >> 1));
  for (int i = 0; i < 2; ++i) root = root * (1.5f - 0.5f * x * root * root);
  return root;
}

// Numbers from -most to most that look random.
void draw(std::vector<float>& weights, std::uint64_t kind, float most) {
  for (std::size_t i = 0; i < weights.size(); ++i) {
    weights[i] = (static_cast<float>(mix(kind, i) >> 40) * 0x1p-23f - 1.0f) * most;
  }
}

// `to` = `start` + the sum over rows of a factor times the row, in some columns.
template <int kVectors>
NGRAM_INLINE void add_columns(const float* start, const float* rows, std::size_t width, const float* factors,
                              std::size_t n, float* to) {
  std::array<Lanes, kVectors> sums;
  for (int v = 0; v < kVectors; ++v) sums[v] = load<Lanes>(start + v * kLanes);
  for (std::size_t j = 0; j < n; ++j) {
    for (int v = 0; v < kVectors; ++v) sums[v] += load<Lanes>(rows + j * width + v * kLanes) * factors[j];
  }
  for (int v = 0; v < kVectors; ++v) store(to + v * kLanes, sums[v]);
}

// The same in all columns; `start` may be `to`.
NGRAM_INLINE void add_rows(const float* start, const float* rows, std::size_t width, const float* factors,
                           std::size_t n, float* to) {
  constexpr int kVectors = 8;
  std::size_t i = 0;
  for (; i + kVectors * kLanes <= width; i += kVectors * kLanes) {
    add_columns<kVectors>(start + i, rows + i, width, factors, n, to + i);
  }
  for (; i < width; i += kLanes) add_columns<1>(start + i, rows + i, width, factors, n, to + i);
}

// Adds to n numbers the products of as many rows with a vector.
NGRAM_INLINE void add_products(const float* rows, std::size_t width, const float* vector, std::size_t n, float* to) {
  for (std::size_t j = 0; j < n; j += kLanes) {
    std::array<Lanes, kLanes> sums{};
    for (std::size_t i = 0; i < width; i += kLanes) {
      const Lanes some = load<Lanes>(vector + i);
      for (int k = 0; k < kLanes; ++k) sums[k] += load<Lanes>(rows + (j + k) * width + i) * some;
    }
    store(to + j, load<Lanes>(to + j) + across(sums));
  }
}

}  // namespace

Recurrent::Recurrent(std::uint32_t vocab_size, int cells)
    : vocab_size_(vocab_size),
      cells_(static_cast<std::size_t>(cells)),
      gates_(4 * cells_),
      in_(vocab_size, gates_),
      again_(cells_, gates_),
      out_(cells_, (vocab_size + kLanes - 1) / kLanes * kLanes),
      ranks_(kSteps + 1),
      outputs_((kSteps + 1) * cells_),
      states_((kSteps + 1) * cells_),
      squashed_(kSteps * cells_),
      opened_(kSteps * gates_),
      errors_(kSteps * out_.width),
      blames_(kSteps * gates_),
      below_(vocab_size + 1) {
  draw(in_.weights, kRows, kFirst);
  draw(again_.weights, kAgain, static_cast<float>(1.0 / std::sqrt(static_cast<double>(cells))));
  predict();  // as if the token of rank 0 had come
}

// The next step: what comes after the newest token.
NGRAM_CLONES void Recurrent::predict() {
  const float* const before = of(outputs_, cells_, step_);
  float* const gates = of(opened_, gates_, step_);
  add_rows(in_.row(ranks_[step_]), again_.weights.data(), gates_, before, cells_, gates);
  for (std::size_t k = 0; k < cells_; k += kLanes) {
    const Lanes input = logistic(load<Lanes>(gates + k)), forget = logistic(load<Lanes>(gates + cells_ + k));
    const Lanes candidate = tangent(load<Lanes>(gates + 2 * cells_ + k));
    const Lanes output = logistic(load<Lanes>(gates + 3 * cells_ + k));
    const Lanes state = forget * load<Lanes>(of(states_, cells_, step_) + k) + input * candidate;
    const Lanes squashed = tangent(state);
    store(gates + k, input), store(gates + cells_ + k, forget);
    store(gates + 2 * cells_ + k, candidate), store(gates + 3 * cells_ + k, output);
    store(of(states_, cells_, step_ + 1) + k, state), store(of(squashed_, cells_, step_) + k, squashed);
    store(of(outputs_, cells_, step_ + 1) + k, output * squashed);
  }
  float* const p = of(errors_, out_.width, step_);
  std::fill_n(p, out_.width, 0.0f);
  add_rows(p, out_.weights.data(), out_.width, of(outputs_, cells_, step_ + 1), cells_, p);
  const float most = *std::max_element(p, p + vocab_size_);
  for (std::size_t k = 0; k < out_.width; k += kLanes) {
    const Lanes least = Lanes{} + kLeastLogit, logits = load<Lanes>(p + k) - most;
    store(p + k, exponential(logits > least ? logits : least));
  }
  std::fill(p + vocab_size_, p + out_.width, 0.0f);
  double sum = 0.0;
  for (std::size_t k = 0; k < vocab_size_; ++k) below_[k + 1] = sum += p[k];
  const auto share = static_cast<float>(1.0 / sum);
  for (std::size_t k = 0; k < out_.width; k += kLanes) store(p + k, load<Lanes>(p + k) * share);
}

void Recurrent::learn(std::uint32_t rank) {
  of(errors_, out_.width, step_)[rank] -= 1.0f;
  ranks_[++step_] = rank;
  tokens_ += 1.0;
  if (step_ == kSteps) update();
  predict();
}

// The derivatives of the cost by what goes into the gates, from the last step to the first.
NGRAM_INLINE void Recurrent::go_back() {
  std::vector<float> by_output(cells_), by_state(cells_);
  for (int step = kSteps - 1; step >= 0; --step) {
    add_products(out_.weights.data(), out_.width, of(errors_, out_.width, step), cells_, by_output.data());
    const float* const gates = of(opened_, gates_, step);
    float* const blames = of(blames_, gates_, step);
    for (std::size_t k = 0; k < cells_; k += kLanes) {
      const Lanes input = load<Lanes>(gates + k), forget = load<Lanes>(gates + cells_ + k);
      const Lanes candidate = load<Lanes>(gates + 2 * cells_ + k), output = load<Lanes>(gates + 3 * cells_ + k);
      const Lanes squashed = load<Lanes>(of(squashed_, cells_, step) + k), blame = load<Lanes>(by_output.data() + k);
      const Lanes state = blame * output * (1.0f - squashed * squashed) + load<Lanes>(by_state.data() + k);
      store(blames + k, state * candidate * (input * (1.0f - input)));
      store(blames + cells_ + k, state * load<Lanes>(of(states_, cells_, step) + k) * (forget * (1.0f - forget)));
      store(blames + 2 * cells_ + k, state * input * (1.0f - candidate * candidate));
      store(blames + 3 * cells_ + k, blame * squashed * (output * (1.0f - output)));
      store(by_state.data() + k, state * forget);
    }
    std::fill(by_output.begin(), by_output.end(), 0.0f);
    add_products(again_.weights.data(), gates_, blames, cells_, by_output.data());
  }
}

NGRAM_INLINE void Recurrent::Matrix::move(std::size_t at, Lanes gradient, float rate) {
  float* const square = squares.data() + at;
  float* const weight = weights.data() + at;
  const Lanes mean = kKept * load<Lanes>(square) + (1.0f - kKept) * (gradient * gradient);
  store(square, mean);
  store(weight, load<Lanes>(weight) - rate * gradient * inverse_root(mean + kLeastSquare));
}

// Moves all weights of a matrix from `cells_` numbers, of which each step had `factors`, to those that it blames.
NGRAM_INLINE void Recurrent::move(Matrix& matrix, const float* factors, const float* blames, float rate) const {
  constexpr int kRows = 8;  // whose gradients are added up side by side
  for (std::size_t j = 0; j < cells_; j += kRows) {
    for (std::size_t i = 0; i < matrix.width; i += kLanes) {
      std::array<Lanes, kRows> gradients{};
      for (int step = 0; step < kSteps; ++step) {
        const Lanes blame = load<Lanes>(blames + step * matrix.width + i);
        for (int k = 0; k < kRows; ++k) gradients[k] += blame * factors[step * cells_ + j + k];
      }
      for (int k = 0; k < kRows; ++k) matrix.move((j + k) * matrix.width + i, gradients[k], rate);
    }
  }
}

// Moves the rows of the tokens that came in, each once.
NGRAM_INLINE void Recurrent::move_rows(float rate) {
  for (int first = 0; first < kSteps; ++first) {
    const auto begin = ranks_.begin();
    const std::uint32_t rank = ranks_[first];
    if (std::find(begin, begin + first, rank) != begin + first) continue;
    for (std::size_t i = 0; i < gates_; i += kLanes) {
      Lanes gradient{};
      for (int step = first; step < kSteps; ++step) {
        if (ranks_[step] == rank) gradient += load<Lanes>(of(blames_, gates_, step) + i);
      }
      in_.move(rank * gates_ + i, gradient, rate);
    }
  }
}

NGRAM_CLONES void Recurrent::update() {
  remembered_ *= double{kKept};
  const auto rate = static_cast<float>(kRate * std::sqrt((1.0 - remembered_) / (1.0 + tokens_ / kRateTokens)));
  go_back();
  move(out_, of(outputs_, cells_, 1), errors_.data(), rate);
  move(again_, outputs_.data(), blames_.data(), rate);
  move_rows(kRowRate * rate);
  std::copy_n(of(outputs_, cells_, kSteps), cells_, outputs_.begin());
  std::copy_n(of(states_, cells_, kSteps), cells_, states_.begin());
  ranks_[0] = ranks_[kSteps];
  step_ = 0;
}

}  // namespace ngram
