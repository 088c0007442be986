// What the bindings check of their arguments, and say where it does not hold.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <bit>
#include <cstdint>
#include <string>

#include "hashed/counts.h"
#include "hashed/hash.h"

namespace py = pybind11;

[[noreturn]] inline void fail(const std::string& message) { throw py::value_error(message); }

// Whether entries lie where the processor may want them: not those of `numpy.frombuffer` from an odd byte on.
inline bool is_aligned(const py::array& array) { return array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_; }

inline std::string describe(const py::array& array) {
  const char* const how = is_aligned(array) ? "{} of shape {}" : "misaligned {} of shape {} (copy it)";
  return py::str(how).format(array.dtype(), array.attr("shape")).cast<std::string>();
}

template <class T>
bool holds(const py::array& array) {
  return is_aligned(array) && (array.dtype().is(py::dtype::of<T>()) || array.dtype().equal(py::dtype::of<T>()));
}

inline bool is_vector(const py::array& array) { return array.ndim() == 1 && (array.flags() & py::array::c_style); }

inline void check_tokens(const py::array& tokens) {
  if (!is_vector(tokens) || !(holds<std::uint16_t>(tokens) || holds<std::uint32_t>(tokens))) {
    fail("tokens must be contiguous, one-dimensional, uint16 or uint32, not " + describe(tokens));
  }
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

// Raises `ValueError` for settings that hashed tables can't have.
inline ngram::CountsConfig counts_config(int min_order, int max_order, std::uint64_t buckets, std::uint32_t min_count,
                                         int context_lag, bool target_backoff) {
  if (!(1 <= min_order && min_order <= max_order && max_order <= ngram::kMaxOrder)) {
    fail("orders " + std::to_string(min_order) + " to " + std::to_string(max_order) + " outside 1 to " +
         std::to_string(ngram::kMaxOrder));
  }
  if (!std::has_single_bit(buckets) || buckets > std::uint64_t{1} << 32) {
    fail("buckets is " + std::to_string(buckets) + ": give a power of two from 1 to 4294967296");
  }
  if (min_count < 1) fail("min_count is 0: give at least 1");
  if (context_lag != 0 && context_lag != 1) fail("context_lag is " + std::to_string(context_lag) + ": give 0 or 1");
  return {min_order, max_order, buckets, min_count, context_lag, target_backoff};
}
