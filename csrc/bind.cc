// Python bindings: checks arguments, releases the GIL, calls. Arrays are never copied or converted.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <bit>
#include <memory>
#include <string>
#include <utility>

#include "hash.h"
#include "hashed_counts.h"
#include "increment_limit.h"

namespace py = pybind11;

namespace {

using ngram::HashedCounts;
using py::literals::operator""_a;

[[noreturn]] void fail(const std::string& message) { throw py::value_error(message); }

std::string describe(const py::array& array) {
  return py::str("{} of shape {}").format(array.dtype(), array.attr("shape")).cast<std::string>();
}

template <class T>
bool holds(const py::array& array) {
  return array.dtype().is(py::dtype::of<T>()) || array.dtype().equal(py::dtype::of<T>());
}

bool is_vector(const py::array& array) { return array.ndim() == 1 && (array.flags() & py::array::c_style); }

void check_tokens(const py::array& tokens) {
  if (!is_vector(tokens) || !(holds<std::uint16_t>(tokens) || holds<std::uint32_t>(tokens))) {
    fail("tokens must be contiguous, one-dimensional, uint16 or uint32, not " + describe(tokens));
  }
}

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

// Calls work(pointer to the tokens) without the GIL.
template <class Work>
void with_tokens(const py::array& tokens, const Work& work) {
  const void* data = tokens.data();
  const bool narrow = holds<std::uint16_t>(tokens);
  const py::gil_scoped_release release;
  if (narrow) {
    work(static_cast<const std::uint16_t*>(data));
  } else {
    work(static_cast<const std::uint32_t*>(data));
  }
}

std::unique_ptr<HashedCounts> make(int min_order, int max_order, std::uint64_t buckets, std::uint32_t min_count,
                                   int context_lag, bool target_backoff, int threads) {
  if (!(1 <= min_order && min_order <= max_order && max_order <= ngram::kMaxOrder)) {
    fail("orders " + std::to_string(min_order) + " to " + std::to_string(max_order) + " outside 1 to " +
         std::to_string(ngram::kMaxOrder));
  }
  if (!std::has_single_bit(buckets) || buckets > std::uint64_t{1} << 32) {
    fail("buckets is " + std::to_string(buckets) + ": give a power of two from 1 to 4294967296");
  }
  if (min_count < 1) fail("min_count is 0: give at least 1");
  if (context_lag != 0 && context_lag != 1) fail("context_lag is " + std::to_string(context_lag) + ": give 0 or 1");
  if (threads < 1) fail("threads is " + std::to_string(threads) + ": give at least 1");
  return std::make_unique<HashedCounts>(
      ngram::CountsConfig{min_order, max_order, buckets, min_count, context_lag, target_backoff}, threads);
}

void update(HashedCounts& self, const py::array& tokens, std::int64_t start, std::int64_t stop) {
  check_tokens(tokens);
  check_span(tokens, start, stop);
  with_tokens(tokens, [&](auto data) { self.update(data, start, stop); });
}

py::tuple lookup(const HashedCounts& self, const py::array& tokens, std::int64_t start, std::int64_t stop) {
  check_tokens(tokens);
  check_span(tokens, start, stop);
  const py::array::ShapeContainer shape{static_cast<py::ssize_t>(self.orders()), static_cast<py::ssize_t>(stop - start)};
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
py::array state(const py::object& self) {
  auto& counts = self.cast<HashedCounts&>();
  return py::array_t<std::uint32_t>(
      {static_cast<py::ssize_t>(counts.orders()), py::ssize_t{2}, static_cast<py::ssize_t>(counts.buckets())},
      counts.data(), self);
}

void random_increments(HashedCounts& self, std::uint64_t increments, std::uint64_t ahead) {
  if (!std::has_single_bit(self.size())) {
    fail("the tables hold " + std::to_string(self.size()) + " counts: not a power of two");
  }
  const py::gil_scoped_release release;
  ngram::random_increments(self.data(), self.size(), increments, ahead);
}

#if defined(__clang__)
constexpr const char* kCompiler = __VERSION__;
#elif defined(__GNUC__)
constexpr const char* kCompiler = "g++ " __VERSION__;
#else
constexpr const char* kCompiler = "unknown";
#endif

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "C++ core of ngram_eval.";
  m.attr("compiler") = kCompiler;
  m.def("random_increments", &random_increments, py::kw_only(), "counts"_a, "increments"_a, "ahead"_a,
        "For benchmarks: random increments over all tables, each requested `ahead` increments early.");
  py::class_<HashedCounts>(m, "HashedCounts", "Hashed n-gram counts; see ngram_eval.counts.cpu.")
      .def(py::init(&make), py::kw_only(), "min_order"_a, "max_order"_a, "buckets"_a, "min_count"_a, "context_lag"_a,
           "target_backoff"_a, "threads"_a)
      .def("update", &update, "tokens"_a.noconvert(), "start"_a, "stop"_a)
      .def("lookup", &lookup, "tokens"_a.noconvert(), "start"_a, "stop"_a)
      .def("score_windows", &score_windows, "tokens"_a.noconvert(), "firsts"_a.noconvert(), "stops"_a.noconvert())
      .def("state", &state);
}
