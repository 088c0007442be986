// The bindings of the mixer.
#include "python/families.h"

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "mixer/mixer.h"
#include "python/checks.h"
#include "python/shared.h"

namespace {

using ngram::Mixer;
using py::literals::operator""_a;

std::unique_ptr<Shared<Mixer>> make(const py::array& rank, const py::list& surfaces, int hashed, int sets, int matches,
                                    int exact_order, int runs, int cells, std::uint64_t groups, float weight) {
  if (!(is_vector(rank) && holds<std::uint32_t>(rank)) || rank.size() < 2 || rank.size() > 1 << Mixer::kMostDecisions) {
    fail("rank must be contiguous, one-dimensional, uint32, of 2 to 2^" + std::to_string(Mixer::kMostDecisions) +
         " tokens, not " + describe(rank));
  }
  if (static_cast<py::ssize_t>(surfaces.size()) != rank.size()) fail("as many surfaces as ranks");
  if (hashed < 0 || hashed > ngram::kMostHashed) fail("hashed must be 0 to " + std::to_string(ngram::kMostHashed));
  if (sets < 1 || sets > Mixer::kMostSets) fail("sets must be 1 to " + std::to_string(Mixer::kMostSets));
  if (matches < 0 || matches > ngram::kMostMatches) fail("matches must be 0 to " + std::to_string(ngram::kMostMatches));
  if (exact_order < 0 || exact_order > ngram::kMaxLevels) {
    fail("exact_order must be 0 to " + std::to_string(ngram::kMaxLevels));
  }
  if (runs < 0 || runs > hashed) fail("runs must be 0 to hashed");
  using ngram::Recurrent;
  if (cells < 0 || cells > Recurrent::kMostCells || cells % Recurrent::kCellsBy != 0) {
    fail("cells must be a multiple of " + std::to_string(Recurrent::kCellsBy) + " from 0 to " +
         std::to_string(Recurrent::kMostCells));
  }
  if (cells > 0 && rank.size() > Recurrent::kMostTokens) {
    fail("cells take up to " + std::to_string(Recurrent::kMostTokens) + " tokens, not " + std::to_string(rank.size()));
  }
  if (groups < 4 || (groups & (groups - 1)) != 0) fail("groups must be a power of two from 4");
  ngram::Spelling spelling;
  const auto* ranks = static_cast<const std::uint32_t*>(rank.data());
  spelling.rank.assign(ranks, ranks + rank.size());
  std::vector<bool> taken(rank.size());
  for (const std::uint32_t r : spelling.rank) {
    if (r >= taken.size() || taken[r]) fail("rank must be a permutation");
    taken[r] = true;
  }
  spelling.offsets.push_back(0);
  for (const auto& surface : surfaces) {
    spelling.bytes += surface.cast<std::string>();
    spelling.offsets.push_back(static_cast<std::uint32_t>(spelling.bytes.size()));
  }
  return std::make_unique<Shared<Mixer>>(
      ngram::MixerConfig{hashed, sets, groups, weight, matches, exact_order, runs, cells}, std::move(spelling));
}

std::unique_ptr<Shared<Mixer>> copy(const Mixer& self, const py::dict&) {
  return std::make_unique<Shared<Mixer>>(Mixer::Copy{self});
}

template <class Token>
void check_below(const Token* tokens, py::ssize_t n, std::uint32_t vocab_size) {
  const Token* const largest = std::max_element(tokens, tokens + n);
  if (n > 0 && *largest >= vocab_size) {
    fail("token " + std::to_string(*largest) + " is outside the vocabulary of " + std::to_string(vocab_size));
  }
}

void check_tokens_of(const Mixer& self, const py::array& tokens) {
  check_tokens(tokens);
  holds<std::uint16_t>(tokens)
      ? check_below(static_cast<const std::uint16_t*>(tokens.data()), tokens.size(), self.vocab_size())
      : check_below(static_cast<const std::uint32_t*>(tokens.data()), tokens.size(), self.vocab_size());
}

ngram::Neural rows_of(const Mixer& self, const py::array& base, py::ssize_t n) {
  if (!holds<double>(base) || base.ndim() != 2 || !(base.flags() & py::array::c_style) ||
      base.shape(1) != self.vocab_size() || (base.shape(0) != 1 && base.shape(0) != n)) {
    fail("base must be float64 of shape (n, V) or (1, V) with V = " + std::to_string(self.vocab_size()) + ", not " +
         describe(base));
  }
  return {ngram::Neural::kRows, static_cast<const double*>(base.data()), base.shape(0) == 1 ? 0 : base.shape(1)};
}

ngram::Neural paths_of(const Mixer& self, const py::array& branches, py::ssize_t n) {
  if (!holds<double>(branches) || branches.ndim() != 2 || !(branches.flags() & py::array::c_style) ||
      branches.shape(0) != n || branches.shape(1) != self.depth()) {
    fail("branches must be float64 of shape (n, D) with n = " + std::to_string(n) +
         " and D = " + std::to_string(self.depth()) + ", not " + describe(branches));
  }
  const auto* const numbers = static_cast<const double*>(branches.data());
  // Of what is no probability the logarithm is taken, and a weight chosen by it.
  if (!std::all_of(numbers, numbers + branches.size(), [](double p) { return p >= 0.0 && p <= 1.0; })) {
    fail("branches must be probabilities, from 0 to 1");
  }
  return {ngram::Neural::kPaths, numbers, branches.shape(1)};
}

const double* check_row(const Mixer& self, const py::array& base) {
  if (!is_vector(base) || !holds<double>(base) || base.size() != self.vocab_size()) {
    fail("base must be float64 of shape (V,) with V = " + std::to_string(self.vocab_size()) + ", not " +
         describe(base));
  }
  return static_cast<const double*>(base.data());
}

void append(Mixer& self, const py::array& tokens) {
  check_tokens_of(self, tokens);
  with_tokens(tokens, [&](auto data) { self.append(data, tokens.size()); });
}

struct Scored {
  py::array_t<double> p;
  py::array_t<std::uint8_t> order;
};

Scored charge(Mixer& self, const py::array& tokens, const ngram::Neural& neural, ngram::Decisions* decisions) {
  const py::ssize_t n = tokens.size();
  Scored scored{py::array_t<double>(n), py::array_t<std::uint8_t>(n)};
  double* const p = scored.p.mutable_data();
  std::uint8_t* const order = scored.order.mutable_data();
  with_tokens(tokens, [&](auto data) { self.score(data, n, neural, p, order, decisions); });
  return scored;
}

py::tuple score(Mixer& self, const py::array& tokens, const py::array& base) {
  check_tokens_of(self, tokens);
  Scored scored = charge(self, tokens, rows_of(self, base, tokens.size()), nullptr);
  return py::make_tuple(std::move(scored.p), std::move(scored.order));
}

py::tuple score_paths(Mixer& self, const py::array& tokens, const py::array& branches) {
  check_tokens_of(self, tokens);
  Scored scored = charge(self, tokens, paths_of(self, branches, tokens.size()), nullptr);
  return py::make_tuple(std::move(scored.p), std::move(scored.order));
}

// (probabilities of the tokens, outcomes of all decisions, probabilities of a 1).
py::tuple decisions(Mixer& self, const py::array& tokens, const py::array& base) {
  check_tokens_of(self, tokens);
  ngram::Decisions made;
  Scored scored = charge(self, tokens, rows_of(self, base, tokens.size()), &made);
  const auto n = static_cast<py::ssize_t>(made.bits.size());
  return py::make_tuple(std::move(scored.p), py::array_t<std::uint8_t>(n, made.bits.data()),
                        py::array_t<double>(n, made.ones.data()));
}

py::array distribution(Mixer& self, const py::array& base) {
  const double* const row = check_row(self, base);
  py::array_t<double> p(base.size());
  double* const to = p.mutable_data();
  const py::gil_scoped_release release;
  self.distribution(row, to);
  return p;
}

// (times each context occurred, times the token followed, shares of the logits and last the neural model's).
py::tuple evidence(Mixer& self, std::uint32_t token, const py::array& base) {
  const double* const row = check_row(self, base);
  check_below(&token, 1, self.vocab_size());
  const py::ssize_t n = self.config().hashed;
  py::array_t<std::int64_t> occurred(n), followed(n);
  py::array_t<double> shares(n + 1);
  self.evidence(token, row, occurred.mutable_data(), followed.mutable_data(), shares.mutable_data());
  return py::make_tuple(std::move(occurred), std::move(followed), std::move(shares));
}

double neural_weight(Mixer& self) { return self.chosen().believed.neural; }

double begin(Mixer& self, const py::array& base) { return self.begin(check_row(self, base)); }

double decide(Mixer& self, int bit) {
  if (self.token_known()) fail("no decision is under way: begin with a distribution");
  if (bit != 0 && bit != 1) fail("bit is " + std::to_string(bit) + ": give 0 or 1");
  return self.decide(bit);
}

py::dict learned(Mixer& self) {
  py::dict arrays;
  for (const auto& [name, array] : self.learned()) {
    arrays[name] = py::array_t<float>(static_cast<py::ssize_t>(array.size()), array.data());
  }
  const auto& [believed, charged] = self.chosen();
  const double now[3] = {believed.neural, believed.exact, charged};
  arrays["switch"] = py::array_t<double>(3, now);
  if (const ngram::ExactModel* const exact = self.exact()) {
    const ngram::ExactModel::Learned from = exact->learned();
    arrays["exact_weights"] = py::array_t<float>(static_cast<py::ssize_t>(from.weights.size()), from.weights.data());
    const double state[4] = {from.base_weight, from.recent_cost, static_cast<double>(from.scored),
                             static_cast<double>(from.surprises)};
    arrays["exact_state"] = py::array_t<double>(4, state);
  }
  return arrays;
}

template <class Number>
std::span<const Number> array_of(const py::dict& from, const char* name, std::size_t size) {
  if (!from.contains(name)) fail(std::string("no ") + name);
  const auto given = py::cast<py::array>(from[name]);
  if (!is_vector(given) || !holds<Number>(given) || given.size() != static_cast<py::ssize_t>(size)) {
    fail(std::string(name) + " must be " + (std::is_same_v<Number, float> ? "float32" : "float64") + " of " +
         std::to_string(size) + ", not " + describe(given));
  }
  return {static_cast<const Number*>(given.data()), size};
}

void load_learned(Mixer& self, const py::dict& from) {
  const auto to = self.learned();
  ngram::ExactModel* const exact = self.exact();
  const std::size_t arrays = to.size() + (exact ? 3 : 1);
  if (from.size() != arrays) fail(std::to_string(from.size()) + " arrays for " + std::to_string(arrays));
  const auto now = array_of<double>(from, "switch", 3);
  for (const auto& [name, array] : to) array_of<float>(from, name, array.size());
  if (exact) {
    ngram::ExactModel::Learned learned = exact->learned();
    const auto weights = array_of<float>(from, "exact_weights", learned.weights.size());
    const auto state = array_of<double>(from, "exact_state", 4);
    learned.weights.assign(weights.begin(), weights.end());
    learned.base_weight = state[0], learned.recent_cost = state[1];
    learned.scored = static_cast<std::uint64_t>(state[2]), learned.surprises = static_cast<std::uint32_t>(state[3]);
    exact->learned(learned);
  }
  for (const auto& [name, array] : to) {
    std::ranges::copy(array_of<float>(from, name, array.size()), array.begin());
  }
  self.chosen() = {{now[0], now[1]}, now[2]};
}

}  // namespace

void bind_mixer(py::module_& m) {
  py::class_<Shared<Mixer>>(m, "Mixer",
                            "Hashed n-gram memory mixed over binary decisions; see ngram_eval.scorers.mixer.")
      .def(py::init(&make), py::kw_only(), "rank"_a.noconvert(), "surfaces"_a, "hashed"_a, "sets"_a, "matches"_a,
           "exact_order"_a, "runs"_a, "cells"_a, "groups"_a, "weight"_a)
      .def("append", locked(&append), "tokens"_a.noconvert())
      .def("score", locked(&score), "tokens"_a.noconvert(), "base"_a.noconvert())
      .def("score_paths", locked(&score_paths), "tokens"_a.noconvert(), "branches"_a.noconvert())
      .def("decisions", locked(&decisions), "tokens"_a.noconvert(), "base"_a.noconvert())
      .def("distribution", locked(&distribution), "base"_a.noconvert())
      .def("evidence", locked(&evidence), "token"_a, "base"_a.noconvert())
      .def("begin", locked(&begin), "base"_a.noconvert())
      .def("decide", locked(&decide), "bit"_a)
      .def_property_readonly("neural_weight", locked(&neural_weight))
      .def_property_readonly("token_known", locked(&Mixer::token_known))
      .def_property_readonly("token", locked(&Mixer::token))
      .def("learned", locked(&learned))
      .def("load_learned", locked(&load_learned), "learned"_a)
      .def("__deepcopy__", locked(&copy), "memo"_a);
}
