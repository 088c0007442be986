// Zeroed memory that grows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "common/zero_pages.h"

namespace ngram {

// An array of zeros, owned, whose end moves up. On Linux addresses of `reserved` entries are set aside at once, which
// takes no memory, and made usable in steps that ask for huge pages: growing copies nothing. Beyond them, where addresses
// are limited (ulimit -v) and elsewhere, the entries are copied into a larger array.
template <class T>
class GrowingPages {
 public:
  explicit GrowingPages(std::size_t reserved) {
#ifdef __linux__
    mapped_bytes_ = reserved * sizeof(T) + 2 * kStep;
    mapped_ = mmap(nullptr, mapped_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped_ == MAP_FAILED) return;
    const auto address = reinterpret_cast<std::uintptr_t>(mapped_);
    data_ = reinterpret_cast<T*>((address + kStep - 1) / kStep * kStep);
    reserved_ = reserved;
#else
    (void)reserved;
#endif
  }

#ifdef __linux__
  ~GrowingPages() {
    if (mapped_ != MAP_FAILED) munmap(mapped_, mapped_bytes_);
  }
#endif

  // Copies what is usable.
  GrowingPages(const GrowingPages& other) : GrowingPages(other.reserved()) {
    extend(other.size_);
    if (other.size_ > 0) std::memcpy(static_cast<void*>(data_), other.data_, other.size_ * sizeof(T));
  }
  GrowingPages& operator=(const GrowingPages&) = delete;

  // Makes `size` entries usable; their addresses may change. Throws std::bad_alloc.
  void extend(std::size_t size) {
    if (size > size_) grow(size);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }

 private:
  static constexpr std::size_t kStep = std::size_t{4} << 20;  // bytes
  static_assert(kStep % sizeof(T) == 0);

  std::size_t reserved() const {
#ifdef __linux__
    return reserved_;
#else
    return 0;
#endif
  }

  void grow(std::size_t size) {
#ifdef __linux__
    if (size <= reserved_) {
      char* const end = reinterpret_cast<char*>(data_ + size_);
      const std::size_t more = ((size - size_) * sizeof(T) + kStep - 1) / kStep * kStep;
      if (mprotect(end, more, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
      madvise(end, more, MADV_HUGEPAGE);  // a hint: without it only slower
      size_ += more / sizeof(T);
      return;
    }
#endif
    auto larger = std::make_unique<ZeroPages<T>>(std::max(size, size_ + size_ / 2 + kStep / sizeof(T)));
    if (size_ > 0) std::memcpy(static_cast<void*>(larger->data()), data_, size_ * sizeof(T));
    copied_ = std::move(larger);
    data_ = copied_->data();
    size_ = copied_->size();
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;                  // usable
  std::unique_ptr<ZeroPages<T>> copied_;  // once it does not lie where it was reserved
#ifdef __linux__
  std::size_t reserved_ = 0;
  void* mapped_;
  std::size_t mapped_bytes_;
#endif
};

}  // namespace ngram
