// The module `ngram_eval._core`, one file a family. Bindings check arguments, release the GIL and call; arrays are not
// copied or converted. Only this folder knows Python.
#include <pybind11/pybind11.h>

#include "python/families.h"

namespace {

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
  bind_exact(m);
  bind_hashed(m);
  bind_mixer(m);
  bind_ppmd(m);
}
