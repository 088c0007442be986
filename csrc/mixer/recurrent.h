// A recurrent network that learns the tokens online: one layer of long short-term memory (Hochreiter and Schmidhuber,
// 1997), each token's row of gates in, the softmax of the next token out. `ngram_eval/scorers/mixer/recurrent.py` is the
// specification, equal bit for bit.
//
// After every `kSteps` tokens the weights move by the gradient of what these cost, through time as far as the first of
// them (backpropagation, truncated). A step is the rate times the gradient over the root of its running mean square, as in
// Adam (Kingma and Ba, 2015) without momentum. A token's row moves only where the token occurred.
//
// Cost: some 3 cells x (4 cells + V) products a token. Memory: 8 cells x (4 cells + 5 V) bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mixer/lanes.h"

namespace ngram {

class Recurrent {
 public:
  static constexpr int kCellsBy = kLanes, kMostCells = 512;  // cells: a multiple, up to that many
  static constexpr int kMostTokens = 4096;                   // of a vocabulary

  Recurrent(std::uint32_t vocab_size, int cells);

  // The probability of a 1 at a node.
  double one(std::uint32_t low, std::uint32_t mid, std::uint32_t high) const {
    return (below_[high] - below_[mid]) / (below_[high] - below_[low]);
  }

  // The token of this rank comes next.
  void learn(std::uint32_t rank);

 private:
  static constexpr int kSteps = 16;

  // Rows of weights, and the running mean square of each weight's gradient.
  struct Matrix {
    Matrix(std::size_t rows, std::size_t width) : width(width), weights(rows * width), squares(rows * width) {}

    const float* row(std::size_t i) const { return weights.data() + i * width; }
    void move(std::size_t at, Lanes gradient, float rate);  // the weights from `at` on

    std::size_t width;
    std::vector<float> weights, squares;
  };

  // A step's part of an array of `width` numbers a step.
  static float* of(std::vector<float>& array, std::size_t width, int step) { return array.data() + step * width; }

  void predict();
  void go_back();
  void move(Matrix& matrix, const float* factors, const float* blames, float rate) const;
  void move_rows(float rate);
  void update();

  std::size_t vocab_size_, cells_, gates_;  // gates: input, forget, candidate, output, `cells_` of each
  Matrix in_;                               // (V, gates)
  Matrix again_;                            // (cells, gates)
  Matrix out_;                              // (cells, V up to whole lanes)

  // Of the steps since the last update. Outputs and states begin with those before the first step.
  int step_ = 0;
  std::vector<std::uint32_t> ranks_;                // of the tokens that come in
  std::vector<float> outputs_, states_, squashed_;  // (steps, cells); squashed: the states
  std::vector<float> opened_;                       // (steps, gates)
  std::vector<float> errors_;                       // (steps, V up to whole lanes): probabilities, less the outcomes
  std::vector<float> blames_;                       // (steps, gates): derivatives of the cost
  std::vector<double> below_;                       // probability of all ranks below each, to a factor, V + 1

  double tokens_ = 0.0;
  double remembered_ = 1.0;  // of a running mean's start
};

}  // namespace ngram
