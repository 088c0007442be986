// The bindings of exact counts and their model.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "exact/model.h"
#include "python/checks.h"
#include "python/families.h"
#include "python/shared.h"

namespace {

using ngram::ExactModel;
using py::literals::operator""_a;

std::unique_ptr<Shared<ExactModel>> make(int max_order, bool chain, const std::string& tilt, double tilt_factor,
                                         double tilt_confidence, int threads) {
  if (!(1 <= max_order && max_order <= ngram::kMaxLevels)) {
    fail("max_order is " + std::to_string(max_order) + ": give 1 to " + std::to_string(ngram::kMaxLevels));
  }
  const ngram::Tilt kind = tilt == "off"       ? ngram::Tilt::kOff
                           : tilt == "fixed"   ? ngram::Tilt::kFixed
                           : tilt == "learned" ? ngram::Tilt::kLearned
                                               : throw py::value_error("tilt is " + tilt + ": off, fixed or learned");
  if (threads < 1) fail("threads is " + std::to_string(threads) + ": give at least 1");
  if (!(tilt_factor > 0.0) || !(tilt_confidence >= 0.0)) {
    fail("tilt_factor must be positive, tilt_confidence not negative");
  }
  return std::make_unique<Shared<ExactModel>>(
      ngram::ExactModelConfig{max_order, chain, kind, tilt_factor, tilt_confidence, threads});
}

std::unique_ptr<Shared<ExactModel>> copy(const ExactModel& self, const py::dict&) {
  return std::make_unique<Shared<ExactModel>>(self);
}

void check_exact_tokens(const py::array& tokens) {
  check_tokens(tokens);
  if (!holds<std::uint32_t>(tokens)) return;
  const auto* data = static_cast<const std::uint32_t*>(tokens.data());
  for (py::ssize_t i = 0; i < tokens.size(); ++i) {
    if (data[i] >= ngram::kVocabularyLimit) {
      fail("token " + std::to_string(data[i]) + " at " + std::to_string(i) + ": the vocabulary has at most " +
           std::to_string(ngram::kVocabularyLimit) + " tokens");
    }
  }
}

// The base of `n` positions: (n,) probabilities of the targets, or whole rows, (n, V) or (1, V) for all.
ngram::Base check_base(const py::array& base, const py::array& entropy, py::ssize_t n) {
  const bool rows = base.ndim() == 2 && (base.shape(0) == n || base.shape(0) == 1);
  if (!holds<double>(base) || !(base.flags() & py::array::c_style) ||
      !(rows || (base.ndim() == 1 && base.size() == n))) {
    fail("base must be contiguous float64 of shape (" + std::to_string(n) + ",), (" + std::to_string(n) +
         ", V) or (1, V), not " + describe(base));
  }
  if (!holds<float>(entropy) || !is_vector(entropy) || entropy.size() != n) {
    fail("entropy must be float32 of shape (" + std::to_string(n) + ",), not " + describe(entropy));
  }
  const auto* values = static_cast<const double*>(base.data());
  return {rows ? nullptr : values, rows ? values : nullptr, rows && base.shape(0) > 1 ? base.shape(1) : 0,
          static_cast<const float*>(entropy.data())};
}

void check_vocabulary(const py::array& tokens, py::ssize_t vocab_size) {
  const auto check = [&](auto* data) {
    for (py::ssize_t i = 0; i < tokens.size(); ++i) {
      if (data[i] >= vocab_size) {
        fail("token " + std::to_string(data[i]) + " for rows of " + std::to_string(vocab_size) + " probabilities");
      }
    }
  };
  holds<std::uint16_t>(tokens) ? check(static_cast<const std::uint16_t*>(tokens.data()))
                               : check(static_cast<const std::uint32_t*>(tokens.data()));
}

// Whole distributions have an entry for every token that was counted.
void check_counted(const ExactModel& self, py::ssize_t vocab_size) {
  if (self.counts().positions() > 0 && self.largest_token() >= vocab_size) {
    fail("rows of " + std::to_string(vocab_size) + " probabilities, but token " + std::to_string(self.largest_token()) +
         " was counted");
  }
}

void append(ExactModel& self, const py::array& tokens) {
  check_exact_tokens(tokens);
  with_tokens(tokens, [&](auto data) { self.append(data, tokens.size()); });
}

py::tuple score(ExactModel& self, const py::array& tokens, const py::array& base, const py::array& entropy,
                bool together) {
  check_exact_tokens(tokens);
  const ngram::Base of = check_base(base, entropy, tokens.size());
  if (of.rows) check_vocabulary(tokens, base.shape(1));
  const bool tilted = self.config().tilt != ngram::Tilt::kOff;
  if (tilted && !of.rows) fail("a tilt needs whole base distributions, not those of the targets alone");
  if (tilted) check_counted(self, base.shape(1));
  if (tilted && together) fail("a tilt scores position by position");
  py::array_t<double> p(tokens.size());
  py::array_t<std::uint8_t> order(tokens.size());
  double* const charged = p.mutable_data();
  std::uint8_t* const orders = order.mutable_data();
  const auto n = tokens.size();
  with_tokens(tokens, [&](auto data) {
    together ? self.score_together(data, n, of, charged, orders) : self.score(data, n, of, charged, orders);
  });
  return py::make_tuple(p, order);
}

// Evidence on `n` tokens as counts kept elsewhere give it: (n, levels, bytes of one), and the levels known of each.
const ngram::Evidence* check_evidence(const ExactModel& self, const py::array& evidence, const py::array& depth,
                                      py::ssize_t n) {
  const auto bytes = static_cast<py::ssize_t>(sizeof(ngram::Evidence));
  if (!holds<std::uint8_t>(evidence) || !(evidence.flags() & py::array::c_style) || evidence.ndim() != 3 ||
      evidence.shape(0) != n || evidence.shape(1) != self.config().levels || evidence.shape(2) != bytes) {
    fail("evidence must be contiguous uint8 of shape (" + std::to_string(n) + ", " +
         std::to_string(self.config().levels) + ", " + std::to_string(bytes) + "), not " + describe(evidence));
  }
  if (!holds<std::uint8_t>(depth) || !is_vector(depth) || depth.size() != n) {
    fail("depth must be uint8 of shape (" + std::to_string(n) + ",), not " + describe(depth));
  }
  if (reinterpret_cast<std::uintptr_t>(evidence.data()) % alignof(ngram::Evidence) != 0) {
    fail("evidence is misaligned: its entries are read as numbers of 8 bytes (copy it)");
  }
  const auto* levels = static_cast<const std::uint8_t*>(depth.data());
  if (std::any_of(levels, levels + n, [&](int level) { return level > self.config().levels; })) {
    fail("depth has entries above " + std::to_string(self.config().levels));
  }
  return static_cast<const ngram::Evidence*>(evidence.data());
}

void check(const ExactModel&, const py::array& tokens, const py::array& base, const py::array& entropy) {
  check_exact_tokens(tokens);
  if (check_base(base, entropy, tokens.size()).rows) check_vocabulary(tokens, base.shape(1));
}

py::array score_recalled(ExactModel& self, const py::array& tokens, const py::array& evidence, const py::array& depth,
                         const py::array& base, const py::array& entropy, bool together) {
  check(self, tokens, base, entropy);
  const ngram::Base of = check_base(base, entropy, tokens.size());
  const ngram::Evidence* const seen = check_evidence(self, evidence, depth, tokens.size());
  if (self.config().tilt != ngram::Tilt::kOff) fail("a tilt needs counts of its own");
  py::array_t<double> p(tokens.size());
  double* const charged = p.mutable_data();
  const auto* levels = static_cast<const std::uint8_t*>(depth.data());
  const auto n = tokens.size();
  with_tokens(tokens, [&](auto data) { self.score_recalled(data, n, seen, levels, of, together, charged); });
  return p;
}

py::array distribution_recalled(ExactModel& self, const py::array& evidence, const py::array& depth,
                                const py::array& base, float entropy) {
  if (!holds<double>(base) || !is_vector(base) || base.size() == 0) {
    fail("base must be float64 of shape (V,), not " + describe(base));
  }
  const ngram::Evidence* const seen = check_evidence(self, evidence, depth, base.size());
  if (self.config().tilt != ngram::Tilt::kOff) fail("a tilt needs counts of its own");
  py::array_t<double> p(base.size());
  self.distribution_recalled(seen, *static_cast<const std::uint8_t*>(depth.data()),
                             static_cast<const double*>(base.data()), entropy, base.size(), p.mutable_data());
  return p;
}

void check_row(const ExactModel& self, const py::array& row) {
  if (!holds<double>(row) || !is_vector(row)) fail("base must be float64 of shape (V,), not " + describe(row));
  check_counted(self, row.size());
}

py::array distribution(ExactModel& self, const py::array& base, float entropy) {
  check_row(self, base);
  py::array_t<double> p(base.size());
  double* const to = p.mutable_data();
  const auto* row = static_cast<const double*>(base.data());
  const auto vocab_size = base.size();
  const py::gil_scoped_release release;
  self.distribution(row, entropy, vocab_size, to);
  return p;
}

py::array distribution_after(ExactModel& self, const py::array& tokens, const py::array& base, float entropy) {
  check_exact_tokens(tokens);
  check_row(self, base);
  check_vocabulary(tokens, base.size());
  if (self.config().tilt != ngram::Tilt::kOff) fail("a tilt scores position by position");
  py::array_t<double> p(base.size());
  double* const to = p.mutable_data();
  const auto* row = static_cast<const double*>(base.data());
  const auto n = tokens.size(), vocab_size = base.size();
  with_tokens(tokens, [&](auto data) { self.distribution_after(data, n, row, entropy, vocab_size, to); });
  return p;
}

// The distribution before each of the tokens, each token then scored.
py::array distributions(ExactModel& self, const py::array& tokens, const py::array& base, const py::array& entropy) {
  check_exact_tokens(tokens);
  const ngram::Base of = check_base(base, entropy, tokens.size());
  if (!of.rows) fail("distributions need whole base distributions, (n, V) or (1, V)");
  const auto vocab_size = base.shape(1);
  check_vocabulary(tokens, vocab_size);
  check_counted(self, vocab_size);
  py::array_t<double> p({tokens.size(), vocab_size});
  double* const to = p.mutable_data();
  const auto n = tokens.size();
  with_tokens(tokens, [&](auto data) {
    for (py::ssize_t i = 0; i < n; ++i) {
      self.distribution(of.row(i), of.entropy[i], vocab_size, to + i * vocab_size);
      const ngram::Base here{nullptr, of.row(i), 0, of.entropy + i};
      double charged;
      std::uint8_t order;
      self.score(data + i, 1, here, &charged, &order);
    }
  });
  return p;
}

py::dict size(const ExactModel& self) {
  return py::dict("positions"_a = self.counts().positions(), "nodes"_a = self.counts().nodes() - 1,
                  "bytes"_a = self.counts().bytes());
}

template <class T>
py::array_t<T> copied(py::array::ShapeContainer shape, const T* from) {
  return py::array_t<T>(std::move(shape), from);
}

py::dict learned(const ExactModel& self) {
  const ExactModel::Learned now = self.learned();
  const auto levels = static_cast<py::ssize_t>(self.config().levels);
  const auto entries = static_cast<py::ssize_t>(now.tilt.size() / 2);
  const double rates[] = {now.base_weight, now.recent_cost};
  const std::uint64_t steps[] = {now.scored, now.surprises};
  return py::dict(
      "weights"_a = copied({levels, py::ssize_t{ExactModel::weights_per_level()}, py::ssize_t{2}, py::ssize_t{4}},
                           now.weights.data()),
      "tilt"_a = copied({py::ssize_t{2}, entries}, now.tilt.data()), "rates"_a = copied({py::ssize_t{2}}, rates),
      "steps"_a = copied({py::ssize_t{2}}, steps));
}

template <class T>
const T* learned_part(const py::dict& from, const py::dict& like, const char* name) {
  if (!from.contains(name) || !py::isinstance<py::array>(from[name])) fail(std::string("no array ") + name);
  const auto array = from[name].cast<py::array>();
  if (!holds<T>(array) || !(array.flags() & py::array::c_style) ||
      !array.attr("shape").equal(like[name].attr("shape"))) {
    fail(std::string(name) + " must be like " + describe(like[name].cast<py::array>()) + ", not " + describe(array));
  }
  return static_cast<const T*>(array.data());
}

void load_learned(ExactModel& self, const py::dict& from) {
  const py::dict like = learned(self);
  ExactModel::Learned to = self.learned();
  std::copy_n(learned_part<float>(from, like, "weights"), to.weights.size(), to.weights.begin());
  std::copy_n(learned_part<double>(from, like, "tilt"), to.tilt.size(), to.tilt.begin());
  const auto* rates = learned_part<double>(from, like, "rates");
  const auto* steps = learned_part<std::uint64_t>(from, like, "steps");
  to.base_weight = rates[0];
  to.recent_cost = rates[1];
  to.scored = steps[0];
  to.surprises = static_cast<std::uint32_t>(steps[1]);
  self.learned(to);
}

// What the counts know of `token` as the next one: a row a level, (total, novel_total, distinct, run, count, novel,
// recent); for tests and for looking inside.
py::array evidence(const ExactModel& self, std::uint32_t token) {
  const auto& counts = self.counts();
  py::array_t<std::uint64_t> rows({static_cast<py::ssize_t>(counts.tip_depth()), py::ssize_t{7}});
  auto to = rows.mutable_unchecked<2>();
  for (int level = 0; level < counts.tip_depth(); ++level) {
    const ngram::Context context = counts.tip(level);
    const ngram::Successor successor = counts.tip_successor(level, token);
    const std::uint64_t row[] = {context.total,   context.novel_total, context.distinct, context.run,
                                 successor.count, successor.novel,     successor.recent};
    for (int i = 0; i < 7; ++i) to(level, i) = row[i];
  }
  return rows;
}

}  // namespace

void bind_exact(py::module_& m) {
  py::class_<Shared<ExactModel>>(m, "ExactModel",
                                 "Exact n-gram counts and their normalised blend; see ngram_eval.scorers.exact.")
      .def(py::init(&make), py::kw_only(), "max_order"_a, "chain"_a, "tilt"_a, "tilt_factor"_a, "tilt_confidence"_a,
           "threads"_a = 1)
      .def("append", locked(&append), "tokens"_a.noconvert())
      .def("score", locked(&score), "tokens"_a.noconvert(), "base"_a.noconvert(), "entropy"_a.noconvert(),
           py::kw_only(), "together"_a)
      .def("distribution", locked(&distribution), "base"_a.noconvert(), "entropy"_a)
      .def("distribution_after", locked(&distribution_after), "tokens"_a.noconvert(), "base"_a.noconvert(), "entropy"_a)
      .def("distributions", locked(&distributions), "tokens"_a.noconvert(), "base"_a.noconvert(),
           "entropy"_a.noconvert())
      .def("check", locked(&check), "tokens"_a.noconvert(), "base"_a.noconvert(), "entropy"_a.noconvert(),
           "Raises ValueError for arguments that `score` would refuse.")
      .def("score_recalled", locked(&score_recalled), "tokens"_a.noconvert(), "evidence"_a.noconvert(),
           "depth"_a.noconvert(), "base"_a.noconvert(), "entropy"_a.noconvert(), py::kw_only(), "together"_a)
      .def("distribution_recalled", locked(&distribution_recalled), "evidence"_a.noconvert(), "depth"_a.noconvert(),
           "base"_a.noconvert(), "entropy"_a)
      .def("follow", locked(&ExactModel::follow), "token"_a)
      .def("evidence", locked(&evidence), "token"_a)
      .def("learned", locked(&learned))
      .def("load_learned", locked(&load_learned), "learned"_a)
      .def("size", locked(&size))
      .def("__deepcopy__", locked(&copy), "memo"_a);
}
