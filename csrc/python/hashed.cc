// The bindings of hashed counts.
#include <memory>
#include <string>
#include <utility>

#include "hashed/counts.h"
#include "python/checks.h"
#include "python/families.h"
#include "python/shared.h"

namespace {

using ngram::HashedCounts;
using py::literals::operator""_a;

void check_span(const py::array& tokens, std::int64_t start, std::int64_t stop) {
  if (!(0 <= start && start <= stop && stop <= tokens.size() - 1)) {
    fail("positions [" + std::to_string(start) + ", " + std::to_string(stop) + ") outside [0, " +
         std::to_string(tokens.size() - 1) + ") of " + std::to_string(tokens.size()) + " tokens");
  }
}

ngram::Windows check_windows(const py::array& tokens, const py::array& firsts, const py::array& stops) {
  for (const auto& [array, name] : {std::pair{&firsts, "firsts"}, std::pair{&stops, "stops"}}) {
    if (!is_vector(*array) || !holds<std::int64_t>(*array)) {
      fail(std::string(name) + " must be contiguous, one-dimensional, int64, not " + describe(*array));
    }
  }
  if (firsts.size() != stops.size()) {
    fail(std::to_string(firsts.size()) + " firsts for " + std::to_string(stops.size()) + " stops");
  }
  const ngram::Windows windows{static_cast<const std::int64_t*>(firsts.data()),
                               static_cast<const std::int64_t*>(stops.data()), static_cast<std::size_t>(stops.size())};
  for (std::size_t i = 0; i < windows.size; ++i) check_span(tokens, windows.firsts[i], windows.stops[i]);
  return windows;
}

std::unique_ptr<Shared<HashedCounts>> make(int min_order, int max_order, std::uint64_t buckets, std::uint32_t min_count,
                                           int context_lag, bool target_backoff, int threads) {
  const ngram::CountsConfig config =
      counts_config(min_order, max_order, buckets, min_count, context_lag, target_backoff);
  if (threads < 1) fail("threads is " + std::to_string(threads) + ": give at least 1");
  return std::make_unique<Shared<HashedCounts>>(config, threads);
}

void update(HashedCounts& self, const py::array& tokens, std::int64_t start, std::int64_t stop) {
  check_tokens(tokens);
  check_span(tokens, start, stop);
  with_tokens(tokens, [&](auto data) { self.update(data, start, stop); });
}

py::tuple lookup(const HashedCounts& self, const py::array& tokens, std::int64_t start, std::int64_t stop) {
  check_tokens(tokens);
  check_span(tokens, start, stop);
  const py::array::ShapeContainer shape{static_cast<py::ssize_t>(self.orders()),
                                        static_cast<py::ssize_t>(stop - start)};
  py::array_t<std::uint32_t> context(shape), full(shape);
  std::uint32_t *const c = context.mutable_data(), *const f = full.mutable_data();
  with_tokens(tokens, [&](auto data) { self.lookup(data, start, stop, c, f); });
  return py::make_tuple(context, full);
}

py::tuple score_windows(HashedCounts& self, const py::array& tokens, const py::array& firsts, const py::array& stops) {
  check_tokens(tokens);
  const ngram::Windows windows = check_windows(tokens, firsts, stops);
  py::ssize_t positions = 0;
  for (std::size_t i = 0; i < windows.size; ++i) positions += windows.length(i);
  py::array_t<std::uint8_t> order(positions);
  py::array_t<std::uint32_t> context(positions), full(positions);
  const ngram::Best best{order.mutable_data(), context.mutable_data(), full.mutable_data()};
  with_tokens(tokens, [&](auto data) { self.score_windows(data, windows, best); });
  return py::make_tuple(order, context, full);
}

// A view: `self`, its owner, lives as long as the array does.
py::array state(HashedCounts& counts, const py::object& self) {
  return py::array_t<std::uint32_t>(
      {static_cast<py::ssize_t>(counts.orders()), py::ssize_t{2}, static_cast<py::ssize_t>(counts.buckets())},
      counts.data(), self);
}

}  // namespace

void bind_hashed(py::module_& m) {
  py::class_<Shared<HashedCounts>>(m, "HashedCounts", "Hashed n-gram counts; see ngram_eval.scorers.hashed.cpu.")
      .def(py::init(&make), py::kw_only(), "min_order"_a, "max_order"_a, "buckets"_a, "min_count"_a, "context_lag"_a,
           "target_backoff"_a, "threads"_a)
      .def("update", locked(&update), "tokens"_a.noconvert(), "start"_a, "stop"_a)
      .def("lookup", locked(&lookup), "tokens"_a.noconvert(), "start"_a, "stop"_a)
      .def("score_windows", locked(&score_windows), "tokens"_a.noconvert(), "firsts"_a.noconvert(),
           "stops"_a.noconvert())
      .def(
          "state", [](const py::object& self) { return self.cast<Shared<HashedCounts>&>().call(&state, self); },
          "A view, of which no lock keeps other threads' calls.");
}
