// Vectors of numbers that lie in arrays. These are aligned as their numbers are: where a stack protector is on, g++ 12 lays
// arrays of functions with clones out as if they asked for no more.
#pragma once

#include <cstring>

#include "common/clones.h"

namespace ngram {

template <class Vector, class Number>
NGRAM_INLINE Vector load(const Number* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class Number, class Vector>
NGRAM_INLINE void store(Number* to, Vector vector) {
  std::memcpy(to, &vector, sizeof vector);
}

}  // namespace ngram
