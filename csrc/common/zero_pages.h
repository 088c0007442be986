// Zeroed memory for large tables that are hit at random.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace ngram {

// An array of `size` zeros, owned. On Linux arrays of 2 MiB and more start on a 2 MiB boundary and ask for huge pages:
// a random hit in 4 KiB pages usually costs a page walk on top of the cache miss. Pages are committed when first
// touched. Elsewhere it is a plain aligned allocation.
template <class T>
class ZeroPages {
 public:
  explicit ZeroPages(std::size_t size) : size_(size) {
    if (size > (SIZE_MAX - kHugePage) / sizeof(T)) throw std::bad_alloc();
#ifdef __linux__
    mapped_bytes_ = size * sizeof(T) + (size * sizeof(T) < kHugePage ? 0 : kHugePage);
    mapped_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped_ == MAP_FAILED) throw std::bad_alloc();
    auto address = reinterpret_cast<std::uintptr_t>(mapped_);
    if (mapped_bytes_ > kHugePage) {
      address = (address + kHugePage - 1) / kHugePage * kHugePage;
      madvise(reinterpret_cast<void*>(address), size * sizeof(T), MADV_HUGEPAGE);  // a hint: without it only slower
    }
    data_ = reinterpret_cast<T*>(address);
#else
    data_ = static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t(kCacheLine)));
    std::memset(data_, 0, size * sizeof(T));
#endif
  }

  ~ZeroPages() {
#ifdef __linux__
    munmap(mapped_, mapped_bytes_);
#else
    ::operator delete(data_, std::align_val_t(kCacheLine));
#endif
  }

  ZeroPages(const ZeroPages& other) : ZeroPages(other.size_) {
    std::memcpy(static_cast<void*>(data_), other.data_, size_ * sizeof(T));
  }
  ZeroPages& operator=(const ZeroPages&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;
  static constexpr std::size_t kCacheLine = 64;

  T* data_;
  std::size_t size_;
#ifdef __linux__
  void* mapped_;
  std::size_t mapped_bytes_;
#endif
};

}  // namespace ngram
