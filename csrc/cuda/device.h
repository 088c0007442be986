// What the device does, for callers that know nothing of CUDA (`python/cuda.cc`, the tests): pointers are of the device's
// memory unless they say otherwise. `device.cu`, `hashed.cu` and `exact.cu` have the launches. Compiled by nvcc they run on
// a GPU; compiled as C++, on threads of the host, whose memory then is the device's.
//
// Callers check arguments. A failure of the device may show in a later call. Throws std::runtime_error with CUDA's reason,
// std::bad_alloc where the device has no memory left.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "exact/evidence.h"
#include "hashed/counts.h"
#include "hashed/gate.h"

namespace ngram::device {

// Whether this was compiled for threads of the host.
extern const bool kOnHost;

// How many threads stand for the GPU's; of a host build.
void use_threads(int threads);

// Why there is no GPU to run on, in CUDA's words; empty if there is one.
std::string problem();

// "name, sm_90, driver 13.0" of a GPU.
std::string describe(int device);

// Whether `memory` is that device's.
bool holds(int device, const void* memory);

// What windows are charged with.
struct Charging {
  Gate gate;
  const double* p_target;  // by position of the windows, one window after another
  const float* entropy;    // nats
  double* values;          // before the floor
  std::int64_t* sums;      // (rows, 4): nats in two limbs, the neural model's nats in two limbs; spread over the rows
  std::int64_t rows;
  std::int64_t* hits;  // by matched order, 0 for none; added to
  std::int64_t* bad;   // the first position whose entropy is NaN or a value no probability, if lower; charged nothing
};

// The tables of `hashed/counts.h`, in memory of the caller's: (orders, 2, buckets). `tokens` holds the stream from
// token `base` on, at least what the positions read. Calls return before the device is done.
class HashedTables {
 public:
  HashedTables(int device, const CountsConfig& config) : device_(device), config_(config) {}

  template <class Token>
  void update(void* stream, std::uint32_t* tables, const Token* tokens, std::int64_t base, std::int64_t start,
              std::int64_t stop);

  // `context` and `full` are (orders, stop - start).
  template <class Token>
  void lookup(void* stream, std::uint32_t* tables, const Token* tokens, std::int64_t base, std::int64_t start,
              std::int64_t stop, std::uint32_t* context, std::uint32_t* full);

  // Of each window there is also how many positions it and all before it have (`ends`). `charging` may be null.
  template <class Token>
  void score_windows(void* stream, std::uint32_t* tables, const Token* tokens, std::int64_t base, Windows windows,
                     const std::int64_t* ends, std::int64_t positions, Best best, const Charging* charging);

  const CountsConfig& config() const { return config_; }
  int device() const { return device_; }

 private:
  int device_;
  CountsConfig config_;
};

// Exact counts, as `exact/counts.h` describes them. Tokens and results are in the host's memory, and calls return
// when they are there. They have a stream of their own: a forward pass in another does not hold them up.
class ExactCounts {
 public:
  // `lanes` threads look at a bucket together: 1, 2, 4 or 8. `batch` is the most positions of one batch.
  ExactCounts(int device, int levels, int lanes, int batch);
  ~ExactCounts();

  // Counts the next tokens. Of each, if wanted, `evidence` (n, levels) and `depth` (n,): what had been known before it was
  // counted. Throws std::length_error when tokens or n-grams would pass 32 bits.
  template <class Token>
  void append(const Token* tokens, std::int64_t n, Evidence* evidence, std::uint8_t* depth);

  // The same evidence for tokens that follow the stream, without counting any. Calls go on from each other until
  // `rewind` or `append`.
  template <class Token>
  void peek(const Token* tokens, std::int64_t n, Evidence* evidence, std::uint8_t* depth);
  void rewind();

  // The evidence on each of `n` tokens from `token` on, were it the next after those peeked at.
  void peek_each(std::uint32_t token, std::int64_t n, Evidence* evidence, std::uint8_t* depth);

  int levels() const;
  std::uint64_t positions() const;
  std::uint64_t nodes() const;
  std::uint64_t slots() const;
  std::uint64_t bytes() const;

 private:
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

}  // namespace ngram::device
