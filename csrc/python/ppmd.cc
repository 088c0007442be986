// The bindings of the byte mixture.
#include "ppmd/ppmd.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "python/checks.h"
#include "python/families.h"
#include "python/shared.h"

namespace {

using ngram::Ppmd;
using py::literals::operator""_a;

std::unique_ptr<Shared<Ppmd>> make(std::vector<std::string> surfaces, std::vector<std::string> bare, int max_order,
                                   bool target_gate, bool marginal, double sure_above, double weight,
                                   double weight_sure) {
  if (surfaces.empty() || surfaces.size() != bare.size()) fail("as many bare surfaces as surfaces, at least one");
  if (max_order < 1 || max_order > ngram::kMostByteOrder) fail("max_order must be 1 to 7");
  const ngram::PpmdConfig config{max_order, target_gate, marginal, sure_above, weight, weight_sure};
  return std::make_unique<Shared<Ppmd>>(config, std::move(surfaces), std::move(bare));
}

void check_token(const Ppmd& self, std::uint32_t token) {
  if (token >= self.vocab_size()) {
    fail("token " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(self.vocab_size()));
  }
}

void check_tokens_of(const Ppmd& self, const py::array& tokens) {
  check_tokens(tokens);
  const py::ssize_t n = tokens.size();
  with_tokens(tokens, [&](auto data) {
    if (n > 0) check_token(self, *std::max_element(data, data + n));
  });
}

void append(Ppmd& self, const py::array& tokens) {
  check_tokens_of(self, tokens);
  const py::ssize_t n = tokens.size();
  with_tokens(tokens, [&](auto data) {
    for (py::ssize_t i = 0; i < n; ++i) self.append(data[i]);
  });
}

// (values, orders, weights of the n-grams), (n,) each.
py::tuple score(Ppmd& self, const py::array& tokens, const py::array& p, const std::optional<py::array>& rows) {
  check_tokens_of(self, tokens);
  const py::ssize_t n = tokens.size();
  if (!is_vector(p) || !holds<double>(p) || p.size() != n) {
    fail("p must be float64 of shape (" + std::to_string(n) + ",), not " + describe(p));
  }
  if (rows.has_value() != self.config().marginal) fail("rows are for marginal shares, which need them");
  if (rows && (!holds<double>(*rows) || rows->ndim() != 2 || !(rows->flags() & py::array::c_style) ||
               rows->shape(1) != self.vocab_size() || (rows->shape(0) != 1 && rows->shape(0) != n))) {
    fail("rows must be float64 of shape (n, V) or (1, V) with V = " + std::to_string(self.vocab_size()) + ", not " +
         describe(*rows));
  }
  py::array_t<double> values(n), weights(n);
  py::array_t<std::uint8_t> orders(n);
  double *const value = values.mutable_data(), *const weight = weights.mutable_data();
  std::uint8_t* const order = orders.mutable_data();
  const auto* given = static_cast<const double*>(p.data());
  const double* row = rows ? static_cast<const double*>(rows->data()) : nullptr;
  const std::int64_t stride = rows && rows->shape(0) > 1 ? self.vocab_size() : 0;
  with_tokens(tokens, [&](auto data) {
    for (py::ssize_t i = 0; i < n; ++i) {
      value[i] = self.score(data[i], given[i], row ? row + i * stride : nullptr, order + i, weight + i);
    }
  });
  return py::make_tuple(std::move(values), std::move(orders), std::move(weights));
}

py::array distribution(Ppmd& self, const py::array& base, std::optional<std::uint32_t> target) {
  if (!is_vector(base) || !holds<double>(base) || base.size() != self.vocab_size()) {
    fail("base must be float64 of shape (V,) with V = " + std::to_string(self.vocab_size()) + ", not " +
         describe(base));
  }
  if (target) check_token(self, *target);
  py::array_t<double> values(base.size());
  double* const to = values.mutable_data();
  const auto* row = static_cast<const double*>(base.data());
  const py::gil_scoped_release release;
  self.distribution(row, target ? &*target : nullptr, to);
  return values;
}

// (times each context occurred, different bytes, times the first byte followed, shares of the token, first of no order), by order.
py::tuple evidence(Ppmd& self, std::uint32_t token) {
  check_token(self, token);
  const py::ssize_t n = self.config().max_order;
  py::array_t<std::int64_t> occurred(n), distinct(n), followed(n);
  py::array_t<double> shares(n + 1);
  self.evidence(token, occurred.mutable_data(), distinct.mutable_data(), followed.mutable_data(),
                shares.mutable_data());
  return py::make_tuple(std::move(occurred), std::move(distinct), std::move(followed), std::move(shares));
}

}  // namespace

void bind_ppmd(py::module_& m) {
  py::class_<Shared<Ppmd>>(m, "Ppmd", "A model mixed with a byte-level PPM-D; see ngram_eval.scorers.ppmd.")
      .def(py::init(&make), py::kw_only(), "surfaces"_a, "bare"_a, "max_order"_a, "target_gate"_a, "marginal"_a,
           "sure_above"_a, "weight"_a, "weight_sure"_a)
      .def("append", locked(&append), "tokens"_a.noconvert())
      .def("score", locked(&score), "tokens"_a.noconvert(), "p"_a.noconvert(), "rows"_a.noconvert())
      .def("distribution", locked(&distribution), "base"_a.noconvert(), "target"_a = py::none())
      .def("evidence", locked(&evidence), "token"_a);
}
