// The module `ngram_eval._cuda`: bindings check arguments, release the GIL and call. Tensors are torch's, used through
// their attributes alone, so that no header of torch is needed; arrays are numpy's, of the host.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string>

#include "cuda/device.h"
#include "python/checks.h"
#include "python/shared.h"

namespace {

using ngram::device::ExactCounts;
using ngram::device::HashedTables;
using py::literals::operator""_a;

// A contiguous tensor on `device` of one of the dtypes and, unless negative, of `size` entries.
struct Tensor {
  void* data;
  std::string dtype;
  std::int64_t size;
};

Tensor check_tensor(const py::handle& tensor, const char* name, int device, std::initializer_list<const char*> dtypes,
                    std::int64_t size = -1) {
  if (!py::hasattr(tensor, "data_ptr")) fail(std::string(name) + " must be a tensor");
  const Tensor found{reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<std::uintptr_t>()),
                     py::str(tensor.attr("dtype")).cast<std::string>(), tensor.attr("numel")().cast<std::int64_t>()};
  const auto is = [&](const char* dtype) { return found.dtype == std::string("torch.") + dtype; };
  if (std::none_of(dtypes.begin(), dtypes.end(), is)) {
    std::string wanted;
    for (const char* dtype : dtypes) wanted += (wanted.empty() ? "" : " or ") + std::string(dtype);
    fail(std::string(name) + " must be " + wanted + ", not " + found.dtype);
  }
  if (!tensor.attr("is_contiguous")().cast<bool>()) fail(std::string(name) + " must be contiguous");
  if (reinterpret_cast<std::uintptr_t>(found.data) % tensor.attr("element_size")().cast<std::uintptr_t>() != 0) {
    fail(std::string(name) + " is misaligned: clone it");
  }
  if (size >= 0 && found.size != size) {
    fail(std::string(name) + " must have " + std::to_string(size) + " entries, not " + std::to_string(found.size));
  }
  if (found.size > 0 && !ngram::device::holds(device, found.data)) {
    fail(std::string(name) + " is on " + py::str(tensor.attr("device")).cast<std::string>() +
         ", not in the memory of GPU " + std::to_string(device));
  }
  return found;
}

template <class T>
T* entries(const py::handle& tensor, const char* name, int device, const char* dtype, std::int64_t size) {
  return static_cast<T*>(check_tensor(tensor, name, device, {dtype}, size).data);
}

void* stream_of(std::uintptr_t stream) { return reinterpret_cast<void*>(stream); }

std::unique_ptr<Shared<HashedTables>> make_hashed(int device, int min_order, int max_order, std::uint64_t buckets,
                                                  std::uint32_t min_count, int context_lag, bool target_backoff) {
  return std::make_unique<Shared<HashedTables>>(
      device, counts_config(min_order, max_order, buckets, min_count, context_lag, target_backoff));
}

std::int64_t orders(const HashedTables& self) { return self.config().max_order - self.config().min_order + 1; }

std::uint32_t* check_tables(const HashedTables& self, const py::handle& tables) {
  const auto size = 2 * orders(self) * static_cast<std::int64_t>(self.config().buckets);
  return entries<std::uint32_t>(tables, "tables", self.device(), "int32", size);
}

// Tokens from `base` of the stream on, which must hold what positions [start, stop) and their contexts read.
Tensor check_tokens(const HashedTables& self, const py::handle& tokens, std::int64_t base, std::int64_t start,
                    std::int64_t stop) {
  const Tensor found = check_tensor(tokens, "tokens", self.device(), {"uint16", "int32"});
  const ngram::CountsConfig& config = self.config();
  const std::int64_t first = std::max<std::int64_t>(start + 1 - config.context_lag - (config.max_order - 1), 0);
  if (!(0 <= base && 0 <= start && start <= stop) || (start < stop && !(base <= first && stop < base + found.size))) {
    fail("positions [" + std::to_string(start) + ", " + std::to_string(stop) + ") read outside the tokens [" +
         std::to_string(base) + ", " + std::to_string(base + found.size) + ")");
  }
  return found;
}

// Calls work(pointer to the tokens) without the GIL.
template <class Work>
void with_tokens(const Tensor& tokens, const Work& work) {
  const py::gil_scoped_release release;
  if (tokens.dtype == "torch.uint16") {
    work(static_cast<const std::uint16_t*>(tokens.data));
  } else {
    work(static_cast<const std::uint32_t*>(tokens.data));
  }
}

void update(HashedTables& self, std::uintptr_t stream, const py::object& tables, const py::object& tokens,
            std::int64_t base, std::int64_t start, std::int64_t stop) {
  std::uint32_t* const counts = check_tables(self, tables);
  with_tokens(check_tokens(self, tokens, base, start, stop),
              [&](auto* data) { self.update(stream_of(stream), counts, data, base, start, stop); });
}

void lookup(HashedTables& self, std::uintptr_t stream, const py::object& tables, const py::object& tokens,
            std::int64_t base, std::int64_t start, std::int64_t stop, const py::object& context,
            const py::object& full) {
  std::uint32_t* const counts = check_tables(self, tables);
  const Tensor read = check_tokens(self, tokens, base, start, stop);
  const std::int64_t size = orders(self) * (stop - start);
  auto* const c = entries<std::uint32_t>(context, "context", self.device(), "int32", size);
  auto* const f = entries<std::uint32_t>(full, "full", self.device(), "int32", size);
  with_tokens(read, [&](auto* data) { self.lookup(stream_of(stream), counts, data, base, start, stop, c, f); });
}

const std::int64_t* check_bounds(const py::array& bounds, const char* name) {
  if (!is_vector(bounds) || !holds<std::int64_t>(bounds)) {
    fail(std::string(name) + " must be contiguous, one-dimensional, int64, not " + describe(bounds));
  }
  return static_cast<const std::int64_t*>(bounds.data());
}

// `bounds` is (3, windows): firsts, stops, and how many positions a window and all before it have; firsts and stops of the
// host are checked. `best` is (order, context, full); `charges` (gate, p_target, entropy, values, sums, hits, bad) or None, the gate
// as 13 numbers: base, range, slope, then the centre of each order from 0 on.
void score_windows(HashedTables& self, std::uintptr_t stream, const py::object& tables, const py::object& tokens,
                   std::int64_t base, const py::array& firsts, const py::array& stops, const py::object& bounds,
                   const py::tuple& best, const py::object& charges) {
  std::uint32_t* const counts = check_tables(self, tables);
  if (firsts.size() != stops.size()) {
    fail(std::to_string(firsts.size()) + " firsts for " + std::to_string(stops.size()) + " stops");
  }
  const ngram::Windows windows{check_bounds(firsts, "firsts"), check_bounds(stops, "stops"),
                               static_cast<std::size_t>(stops.size())};
  const int device = self.device();
  std::int64_t positions = 0;
  Tensor read = check_tensor(tokens, "tokens", device, {"uint16", "int32"});
  for (std::size_t i = 0; i < windows.size; ++i) {
    read = check_tokens(self, tokens, base, windows.firsts[i], windows.stops[i]);
    positions += windows.length(i);
  }
  const ngram::Best matches{entries<std::uint8_t>(best[0], "order", device, "uint8", positions),
                            entries<std::uint32_t>(best[1], "context", device, "int32", positions),
                            entries<std::uint32_t>(best[2], "full", device, "int32", positions)};
  ngram::device::Charging charging{};
  const bool charges_given = !charges.is_none();
  if (charges_given) {
    const auto parts = charges.cast<py::tuple>();
    const auto gate = parts[0].cast<py::tuple>();
    if (gate.size() != 3 + ngram::kMaxOrder + 1) fail("a gate has 13 numbers, not " + std::to_string(gate.size()));
    charging.gate = {gate[0].cast<double>(), gate[1].cast<double>(), gate[2].cast<double>(), {}};
    for (int order = 0; order <= ngram::kMaxOrder; ++order) {
      charging.gate.centre[order] = gate[3 + order].cast<double>();
    }
    charging.p_target = entries<double>(parts[1], "p_target", device, "float64", positions);
    charging.entropy = entries<float>(parts[2], "entropy", device, "float32", positions);
    charging.values = entries<double>(parts[3], "values", device, "float64", positions);
    const Tensor sums = check_tensor(parts[4], "sums", device, {"int64"});
    if (sums.size < 4 || sums.size % 4 != 0) fail("sums must have rows of 4 entries, not " + std::to_string(sums.size));
    charging.sums = static_cast<std::int64_t*>(sums.data);
    charging.rows = sums.size / 4;
    charging.hits = entries<std::int64_t>(parts[5], "hits", device, "int64", ngram::kMaxOrder + 1);
    charging.bad = entries<std::int64_t>(parts[6], "bad", device, "int64", 1);
  }
  const auto size = static_cast<std::int64_t>(windows.size);
  auto* const all = entries<std::int64_t>(bounds, "bounds", device, "int64", 3 * size);
  const ngram::Windows there{all, all + size, windows.size};
  const std::int64_t* const ends = all + 2 * size;
  with_tokens(read, [&](auto* data) {
    self.score_windows(stream_of(stream), counts, data, base, there, ends, positions, matches,
                       charges_given ? &charging : nullptr);
  });
}

// Exact counts ------------------------------------------------------------------------------------------------------

struct Statistics {
  py::array evidence;  // (n, levels, 40) bytes: `ngram::Evidence`, for `_core.ExactModel`
  py::array_t<std::uint8_t> depth;

  Statistics(std::int64_t n, int levels)
      : evidence(py::array_t<std::uint8_t>({static_cast<py::ssize_t>(n), static_cast<py::ssize_t>(levels),
                                            static_cast<py::ssize_t>(sizeof(ngram::Evidence))})),
        depth(n) {}
  ngram::Evidence* entries() { return static_cast<ngram::Evidence*>(evidence.mutable_data()); }
  py::tuple both() const { return py::make_tuple(evidence, depth); }
};

template <class Work>
void with_exact_tokens(const py::array& tokens, const Work& work) {
  ::check_tokens(tokens);
  const bool wide = holds<std::uint32_t>(tokens);
  const auto* data = static_cast<const std::uint32_t*>(tokens.data());
  for (py::ssize_t i = 0; wide && i < tokens.size(); ++i) {
    if (data[i] >= ngram::kVocabularyLimit) {
      fail("token " + std::to_string(data[i]) + " at " + std::to_string(i) + ": the vocabulary has at most " +
           std::to_string(ngram::kVocabularyLimit) + " tokens");
    }
  }
  const py::gil_scoped_release release;
  wide ? work(data) : work(static_cast<const std::uint16_t*>(tokens.data()));
}

std::unique_ptr<Shared<ExactCounts>> make_exact(int device, int max_order, int lanes, int batch) {
  if (!(1 <= max_order && max_order <= ngram::kMaxLevels)) {
    fail("max_order is " + std::to_string(max_order) + ": give 1 to " + std::to_string(ngram::kMaxLevels));
  }
  if (lanes != 1 && lanes != 2 && lanes != 4 && lanes != 8) {
    fail("lanes is " + std::to_string(lanes) + ": give 1, 2, 4 or 8");
  }
  if (!(1 <= batch && batch <= 1 << 16)) fail("batch is " + std::to_string(batch) + ": give 1 to 65536");
  return std::make_unique<Shared<ExactCounts>>(device, max_order, lanes, batch);
}

void exact_append(ExactCounts& self, const py::array& tokens) {
  with_exact_tokens(tokens, [&](auto* data) { self.append(data, tokens.size(), nullptr, nullptr); });
}

py::tuple exact_append_recalling(ExactCounts& self, const py::array& tokens) {
  Statistics found(tokens.size(), self.levels());
  ngram::Evidence* const evidence = found.entries();
  std::uint8_t* const depth = found.depth.mutable_data();
  with_exact_tokens(tokens, [&](auto* data) { self.append(data, tokens.size(), evidence, depth); });
  return found.both();
}

py::tuple exact_peek(ExactCounts& self, const py::array& tokens) {
  Statistics found(tokens.size(), self.levels());
  ngram::Evidence* const evidence = found.entries();
  std::uint8_t* const depth = found.depth.mutable_data();
  with_exact_tokens(tokens, [&](auto* data) { self.peek(data, tokens.size(), evidence, depth); });
  return found.both();
}

py::tuple exact_peek_each(ExactCounts& self, std::uint32_t token, std::int64_t n) {
  if (n < 0 || token + n > ngram::kVocabularyLimit) {
    fail("tokens " + std::to_string(token) + " to " + std::to_string(token + n) + ": the vocabulary has at most " +
         std::to_string(ngram::kVocabularyLimit) + " tokens");
  }
  Statistics found(n, self.levels());
  ngram::Evidence* const evidence = found.entries();
  std::uint8_t* const depth = found.depth.mutable_data();
  {
    const py::gil_scoped_release release;
    self.peek_each(token, n, evidence, depth);
  }
  return found.both();
}

py::dict exact_size(const ExactCounts& self) {
  return py::dict("positions"_a = self.positions(), "nodes"_a = self.nodes() - 1, "slots"_a = self.slots(),
                  "bytes"_a = self.bytes());
}

}  // namespace

#ifndef NGRAM_MODULE
#define NGRAM_MODULE _cuda
#endif

PYBIND11_MODULE(NGRAM_MODULE, m) {
  m.doc() = "CUDA core of ngram_eval.";
  m.attr("on_host") = ngram::device::kOnHost;
  m.def("problem", &ngram::device::problem, "Why there is no GPU to run on; empty if there is one.");
  m.def("describe", &ngram::device::describe, "device"_a);
  m.def("use_threads", &ngram::device::use_threads, "threads"_a,
        "Of a build for the host: how many stand for a GPU's.");
  py::class_<Shared<HashedTables>>(m, "HashedTables", "Hashed counts in a tensor; see ngram_eval.scorers.hashed.cuda.")
      .def(py::init(&make_hashed), py::kw_only(), "device"_a, "min_order"_a, "max_order"_a, "buckets"_a, "min_count"_a,
           "context_lag"_a, "target_backoff"_a)
      .def("update", locked(&update), "stream"_a, "tables"_a, "tokens"_a, "base"_a, "start"_a, "stop"_a)
      .def("lookup", locked(&lookup), "stream"_a, "tables"_a, "tokens"_a, "base"_a, "start"_a, "stop"_a, "context"_a,
           "full"_a)
      .def("score_windows", locked(&score_windows), "stream"_a, "tables"_a, "tokens"_a, "base"_a,
           "firsts"_a.noconvert(), "stops"_a.noconvert(), "bounds"_a, py::kw_only(), "best"_a, "charges"_a);
  py::class_<Shared<ExactCounts>>(m, "ExactCounts", "Exact n-gram counts; see ngram_eval.scorers.exact.cuda.")
      .def(py::init(&make_exact), py::kw_only(), "device"_a, "max_order"_a, "lanes"_a, "batch"_a)
      .def("append", locked(&exact_append), "tokens"_a.noconvert())
      .def("append_recalling", locked(&exact_append_recalling), "tokens"_a.noconvert())
      .def("peek", locked(&exact_peek), "tokens"_a.noconvert())
      .def("peek_each", locked(&exact_peek_each), "token"_a, "n"_a)
      .def("rewind", locked(&ExactCounts::rewind))
      .def("size", locked(&exact_size));
}
