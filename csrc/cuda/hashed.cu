// The launches of hashed counts: compiled by nvcc for GPUs, or as C++ for threads of the host.
#include "cuda/hashed.h"

#include "cuda/device.h"
#include "cuda/parallel.h"

namespace ngram::device {

using parallel::Executor;

template <class Token>
void HashedTables::update(void* stream, std::uint32_t* tables, const Token* tokens, std::int64_t base,
                          std::int64_t start, std::int64_t stop) {
  const Tables of{config(), tables};
  Executor(device(), stream).rows(of.orders(), stop - start, Update<Token>{of, {tokens, base}, start});
}

template <class Token>
void HashedTables::lookup(void* stream, std::uint32_t* tables, const Token* tokens, std::int64_t base,
                          std::int64_t start, std::int64_t stop, std::uint32_t* context, std::uint32_t* full) {
  const Tables of{config(), tables};
  const Lookup<Token> body{of, {tokens, base}, start, stop - start, context, full};
  Executor(device(), stream).rows(of.orders(), stop - start, body);
}

template <class Token>
void HashedTables::score_windows(void* stream, std::uint32_t* tables, const Token* tokens, std::int64_t base,
                                 Windows windows, const std::int64_t* ends, std::int64_t positions, Best best,
                                 const Charging* charging) {
  if (windows.size == 0) return;
  const Executor executor(device(), stream);
  executor.team(MatchWindows<Token>{{config(), tables}, {tokens, base}, windows, best});
  if (charging != nullptr) executor.rows(1, positions, Charge{best, *charging, windows, ends});
}

#define NGRAM_INSTANTIATE(Token)                                                                                     \
  template void HashedTables::update(void*, std::uint32_t*, const Token*, std::int64_t, std::int64_t, std::int64_t); \
  template void HashedTables::lookup(void*, std::uint32_t*, const Token*, std::int64_t, std::int64_t, std::int64_t,  \
                                     std::uint32_t*, std::uint32_t*);                                                \
  template void HashedTables::score_windows(void*, std::uint32_t*, const Token*, std::int64_t, Windows,              \
                                            const std::int64_t*, std::int64_t, Best, const Charging*);
NGRAM_INSTANTIATE(std::uint16_t)
NGRAM_INSTANTIATE(std::uint32_t)
#undef NGRAM_INSTANTIATE

}  // namespace ngram::device
