// Where device code runs: on a GPU, compiled by nvcc; or on threads of the host that stand for it, compiled by any C++
// compiler, so that tests execute (and sanitizers watch) everything but the launch itself. Bodies are written once.
//
// Four forms of work, all of which return before it is done on a GPU and after it on the host; later calls see what
// earlier ones wrote, as kernels of one stream do:
//   rows(rows, columns, body)   body(row, column), all at once; one row after another is a hint, not a promise
//   groups<L>(items, body)      body(Lanes<L>, item): L neighbouring threads together
//   team(body)                  body(Team): one block of threads that stays, with a barrier among them
//   fill, copy_in, copy_out     memory
//
// Memory order. What one call reads and another thread of the *same* call writes goes through the functions below:
// atomic, relaxed, at the scope of the device (performed in L2, never served from an L1 line). Order comes from
// the barrier of a team and from the end of a call, nothing else.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "common/host_device.h"

#ifdef __CUDACC__
#include <cooperative_groups.h>
#include <cuda_runtime.h>
#include <cuda/atomic>
#else
#include <array>
#include <barrier>
#include <thread>
#include <vector>
#endif

namespace ngram::parallel {

// Atomics --------------------------------------------------------------------------------------------------------

#ifdef __CUDA_ARCH__
template <class T>
using Shared = cuda::atomic_ref<T, cuda::thread_scope_device>;
#define NGRAM_RELAXED cuda::memory_order_relaxed
#else
template <class T>
using Shared = std::atomic_ref<T>;
#define NGRAM_RELAXED std::memory_order_relaxed
#endif

template <class T>
NGRAM_HOST_DEVICE T load(T* from) {
  return Shared<T>(*from).load(NGRAM_RELAXED);
}

template <class T>
NGRAM_HOST_DEVICE void store(T* to, T value) {
  Shared<T>(*to).store(value, NGRAM_RELAXED);
}

// Returns what was there before. On a GPU by the intrinsic, which is relaxed and of the device's scope too: where nobody
// wants the result it becomes RED, and `atomic_ref` an ATOM whose result is waited for and dropped.
template <class T>
NGRAM_HOST_DEVICE T add(T* to, T value) {
#ifdef __CUDA_ARCH__
  using Word = std::conditional_t<sizeof(T) == 4, unsigned int, unsigned long long>;
  return static_cast<T>(atomicAdd(reinterpret_cast<Word*>(to), static_cast<Word>(value)));
#else
  return Shared<T>(*to).fetch_add(value, NGRAM_RELAXED);
#endif
}

// Returns what was there before: `expected`, if `desired` is there now.
template <class T>
NGRAM_HOST_DEVICE T exchange_if(T* at, T expected, T desired) {
  Shared<T>(*at).compare_exchange_strong(expected, desired, NGRAM_RELAXED, NGRAM_RELAXED);
  return expected;
}

template <class T>
NGRAM_HOST_DEVICE void lower(T* to, T value) {
#ifdef __CUDA_ARCH__
  Shared<T>(*to).fetch_min(value, NGRAM_RELAXED);
#else
  T found = load(to);
  while (value < found && !Shared<T>(*to).compare_exchange_weak(found, value, NGRAM_RELAXED, NGRAM_RELAXED)) {
  }
#endif
}

#undef NGRAM_RELAXED

// 16 bytes on a 16-byte boundary by one load; of memory that nobody writes meanwhile.
template <class T>
NGRAM_HOST_DEVICE T load_whole(const T* from) {
  static_assert(sizeof(T) == 16 && alignof(T) == 16);
#ifdef __CUDA_ARCH__
  const uint4 words = *reinterpret_cast<const uint4*>(from);
  T whole;
  memcpy(&whole, &words, sizeof(whole));
  return whole;
#else
  return *from;
#endif
}

// Asks for the line of an address, in L2.
NGRAM_HOST_DEVICE void request(const void* address) {
#ifdef __CUDA_ARCH__
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#else
  __builtin_prefetch(address);
#endif
}

NGRAM_HOST_DEVICE int lowest_bit(unsigned mask) {  // of a mask that is not 0
#ifdef __CUDA_ARCH__
  return __ffs(static_cast<int>(mask)) - 1;
#else
  return std::countr_zero(mask);
#endif
}

#ifdef __CUDACC__

// A GPU ----------------------------------------------------------------------------------------------------------

inline void check(cudaError_t error, const char* what) {
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw std::bad_alloc();
  }
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

template <int kLanes>
class Lanes {
 public:
  static constexpr int kSize = kLanes;

  __device__ Lanes() : tile_(cooperative_groups::tiled_partition<kLanes>(cooperative_groups::this_thread_block())) {}

  // One value a lane, each asked for by its own thread at the same time.
  template <class Call>
  __device__ auto each(const Call& call) const {
    return call(static_cast<int>(tile_.thread_rank()));
  }

  // Bit l of the result: what the predicate says of lane l's value.
  template <class Value, class Predicate>
  __device__ unsigned ballot(const Value& values, const Predicate& predicate) const {
    return tile_.ballot(predicate(values));
  }

  // That of one lane, for all.
  template <class Value>
  __device__ Value of(const Value& values, int lane) const {
    return tile_.shfl(values, lane);
  }

  // What a call makes of each value.
  template <class Value, class Call>
  __device__ auto map(const Value& values, const Call& call) const {
    return call(values);
  }

  // Whether this thread speaks for the group.
  __device__ bool leads() const { return tile_.thread_rank() == 0; }

  // Calls once, on the thread of `lane`; all get the result.
  template <class Call>
  __device__ auto on(int lane, const Call& call) const {
    decltype(call()) result{};
    if (static_cast<int>(tile_.thread_rank()) == lane) result = call();
    return tile_.shfl(result, lane);
  }

 private:
  cooperative_groups::thread_block_tile<kLanes> tile_;
};

class Team {
 public:
  __device__ int rank() const { return static_cast<int>(threadIdx.x); }
  __device__ int size() const { return static_cast<int>(blockDim.x); }
  __device__ void wait() const { __syncthreads(); }
};

namespace kernel {

constexpr int kThreads = 256, kTeam = 512;

template <class Body>
__global__ void __launch_bounds__(kThreads, 1) rows(const Body body, std::int64_t columns) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < columns; i += step) {
    body(static_cast<std::int64_t>(blockIdx.y), i);
  }
}

template <int kLanes, class Body>
__global__ void __launch_bounds__(kThreads) groups(const Body body, std::int64_t items) {
  const Lanes<kLanes> lanes;
  const std::int64_t step = std::int64_t{gridDim.x} * (kThreads / kLanes);
  for (std::int64_t i = std::int64_t{blockIdx.x} * (kThreads / kLanes) + threadIdx.x / kLanes; i < items; i += step) {
    body(lanes, i);
  }
}

template <class Body>
__global__ void __launch_bounds__(kTeam) team(const Body body) {
  body(Team());
}

}  // namespace kernel

// A stream of its own, which waits for no other and goes first: its launches are small.
class Stream {
 public:
  explicit Stream(int device) {
    int lowest = 0, highest = 0;
    check(cudaSetDevice(device), "no such GPU");
    check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "no priorities");
    check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest), "no stream");
  }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  void* handle() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Executor {
 public:
  Executor(int device, void* stream) : device_(device), stream_(static_cast<cudaStream_t>(stream)) { use(); }

  // Makes this thread's calls go to the device; whoever else uses CUDA in this process may have chosen another.
  void use() const { check(cudaSetDevice(device_), "no such GPU"); }

  template <class Body>
  void rows(std::int64_t rows, std::int64_t columns, const Body& body) const {
    if (rows == 0 || columns == 0) return;
    const dim3 grid(blocks(columns), static_cast<unsigned>(rows));
    kernel::rows<<<grid, kernel::kThreads, 0, stream_>>>(body, columns);
    check(cudaGetLastError(), "a kernel could not be launched");
  }

  template <int kLanes, class Body>
  void groups(std::int64_t items, const Body& body) const {
    if (items == 0) return;
    kernel::groups<kLanes><<<blocks(items * kLanes), kernel::kThreads, 0, stream_>>>(body, items);
    check(cudaGetLastError(), "a kernel could not be launched");
  }

  template <class Body>
  void team(const Body& body) const {
    kernel::team<<<1, kernel::kTeam, 0, stream_>>>(body);
    check(cudaGetLastError(), "a kernel could not be launched");
  }

  void zero(void* to, std::size_t bytes) const {
    check(cudaMemsetAsync(to, 0, bytes, stream_), "memory of the GPU could not be cleared");
  }
  // `from` must stay as it is until the next `wait`.
  void copy(void* to, const void* from, std::size_t bytes) const {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "memory could not be copied");
  }
  void wait() const { check(cudaStreamSynchronize(stream_), "the GPU failed"); }

  static void* allocate(std::size_t bytes) {
    void* found = nullptr;
    check(cudaMalloc(&found, bytes), "no memory of the GPU");
    return found;
  }
  static void* allocate_host(std::size_t bytes) {
    void* found = nullptr;
    check(cudaMallocHost(&found, bytes), "no pinned memory");
    return found;
  }
  static void release(void* memory) { cudaFree(memory); }
  static void release_host(void* memory) { cudaFreeHost(memory); }

 private:
  static unsigned blocks(std::int64_t threads) {
    constexpr std::int64_t most = 1 << 20;
    return static_cast<unsigned>(std::min((threads + kernel::kThreads - 1) / kernel::kThreads, most));
  }

  int device_;
  cudaStream_t stream_;
};

#else

// Threads of the host --------------------------------------------------------------------------------------------

template <int kLanes>
class Lanes {
 public:
  static constexpr int kSize = kLanes;

  template <class Call>
  auto each(const Call& call) const {
    std::array<decltype(call(0)), kLanes> values;
    for (int lane = 0; lane < kLanes; ++lane) values[lane] = call(lane);
    return values;
  }
  template <class Values, class Predicate>
  unsigned ballot(const Values& values, const Predicate& predicate) const {
    unsigned mask = 0;
    for (int lane = 0; lane < kLanes; ++lane) mask |= static_cast<unsigned>(predicate(values[lane])) << lane;
    return mask;
  }
  template <class Values>
  auto of(const Values& values, int lane) const {
    return values[lane];
  }
  template <class Values, class Call>
  auto map(const Values& values, const Call& call) const {
    return each([&](int lane) { return call(values[lane]); });
  }
  bool leads() const { return true; }
  template <class Call>
  auto on(int, const Call& call) const {
    return call();
  }
};

class Team {
 public:
  Team(int rank, int size, std::barrier<>& barrier) : rank_(rank), size_(size), barrier_(barrier) {}
  int rank() const { return rank_; }
  int size() const { return size_; }
  void wait() const { barrier_.arrive_and_wait(); }

 private:
  int rank_, size_;
  std::barrier<>& barrier_;
};

class Stream {
 public:
  explicit Stream(int) {}
  void* handle() const { return nullptr; }
};

class Executor {
 public:
  Executor(int, void*) {}
  void use() const {}

  // How many threads stand for the GPU's, in this process.
  static inline int threads = 1;

  template <class Body>
  void rows(std::int64_t rows, std::int64_t columns, const Body& body) const {
    each(columns, [&](std::int64_t column) {
      for (std::int64_t row = 0; row < rows; ++row) body(row, column);
    });
  }

  template <int kLanes, class Body>
  void groups(std::int64_t items, const Body& body) const {
    each(items, [&](std::int64_t item) { body(Lanes<kLanes>(), item); });
  }

  template <class Body>
  void team(const Body& body) const {
    std::barrier<> barrier(threads);
    at_once([&](int thread) { body(Team(thread, threads, barrier)); });
  }

  void zero(void* to, std::size_t bytes) const {
    if (bytes > 0) std::memset(to, 0, bytes);
  }
  void copy(void* to, const void* from, std::size_t bytes) const {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void wait() const {}

  static void* allocate(std::size_t bytes) { return ::operator new(bytes, std::align_val_t(256)); }
  static void* allocate_host(std::size_t bytes) { return allocate(bytes); }
  static void release(void* memory) { ::operator delete(memory, std::align_val_t(256)); }
  static void release_host(void* memory) { release(memory); }

 private:
  // Neighbouring items go to different threads, so that they meet.
  template <class Call>
  void each(std::int64_t items, const Call& call) const {
    if (items == 0) return;
    at_once([&](int thread) {
      for (std::int64_t i = thread; i < items; i += threads) call(i);
    });
  }

  template <class Call>
  void at_once(const Call& call) const {
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(call, thread);
    call(0);
    for (auto& other : others) other.join();
  }
};

#endif

// Memory of the host that the device reads while this process goes on, owned, not initialised. Copies from other memory
// may read it after the call, on machines whose GPU can.
template <class T>
class Pinned {
 public:
  explicit Pinned(std::size_t size) : size_(size), data_(static_cast<T*>(Executor::allocate_host(size * sizeof(T)))) {}
  ~Pinned() { Executor::release_host(data_); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

  T* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_;
  T* data_;
};

// Memory of the device, owned, not initialised.
template <class T>
class Array {
 public:
  Array() = default;
  explicit Array(std::size_t size) : size_(size), data_(static_cast<T*>(Executor::allocate(size * sizeof(T)))) {}
  Array(Array&& from) noexcept : size_(std::exchange(from.size_, 0)), data_(std::exchange(from.data_, nullptr)) {}
  Array& operator=(Array&& from) noexcept {
    std::swap(size_, from.size_);
    std::swap(data_, from.data_);
    return *this;
  }
  ~Array() {
    if (data_ != nullptr) Executor::release(data_);
  }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }

 private:
  std::size_t size_ = 0;
  T* data_ = nullptr;
};

}  // namespace ngram::parallel
