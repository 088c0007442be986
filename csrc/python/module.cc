// The module `ngram_eval._core`, one file a family. Bindings check arguments, release the GIL and call; arrays are not
// copied or converted. Only this folder knows Python.
#include <pybind11/pybind11.h>

#include "common/clones.h"
#include "python/families.h"

namespace {

#if defined(__clang__)
constexpr const char* kCompiler = __VERSION__;
#elif defined(__GNUC__)
constexpr const char* kCompiler = "g++ " __VERSION__;
#else
constexpr const char* kCompiler = "unknown";
#endif

// The instruction set that NGRAM_CLONES run with here.
const char* simd() {
#if defined(NGRAM_CLONED)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512vl")) return "x86-64-v4 (AVX-512)";
  if (__builtin_cpu_supports("avx2")) return "x86-64-v3 (AVX2)";
  return "x86-64 (SSE2)";
#elif defined(__aarch64__)
  return "aarch64 (NEON)";
#else
  return "as compiled";
#endif
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "C++ core of ngram_eval.";
  m.attr("compiler") = kCompiler;
  m.attr("simd") = simd();
  bind_exact(m);
  bind_hashed(m);
  bind_mixer(m);
  bind_ppmd(m);
  bind_codec(m);  // takes objects of the others
}
