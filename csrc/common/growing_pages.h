// Zeroed memory that grows and stays where it is.
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

// An array of zeros, owned, whose end moves up. On Linux the addresses of `most` entries are set aside at once, which
// takes no memory, and made usable in steps that ask for huge pages: growing copies nothing and leaves addresses as they
// are. Elsewhere a larger array is made and the entries are copied, so that addresses change.
template <class T>
class GrowingPages {
 public:
  explicit GrowingPages(std::size_t most) {
#ifdef __linux__
    // Where addresses are limited, too, as many as there are.
    for (reserved_ = most * sizeof(T) / kStep * kStep + 2 * kStep;; reserved_ = reserved_ / 2 / kStep * kStep) {
      if (reserved_ < 2 * kStep) throw std::bad_alloc();
      mapped_ = mmap(nullptr, reserved_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (mapped_ != MAP_FAILED) break;
    }
    const auto address = reinterpret_cast<std::uintptr_t>(mapped_);
    data_ = reinterpret_cast<T*>((address + kStep - 1) / kStep * kStep);
#else
    (void)most;
#endif
  }

#ifdef __linux__
  ~GrowingPages() { munmap(mapped_, reserved_); }
#endif

  GrowingPages(const GrowingPages&) = delete;
  GrowingPages& operator=(const GrowingPages&) = delete;

  // Makes `size` entries usable; throws std::bad_alloc.
  void extend(std::size_t size) {
    if (size > size_) extend_beyond(size);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }

 private:
  static constexpr std::size_t kStep = std::size_t{4} << 20;
  static_assert(kStep % sizeof(T) == 0);

  void extend_beyond(std::size_t size) {
#ifdef __linux__
    const std::size_t from = size_ * sizeof(T), to = (size * sizeof(T) + kStep - 1) / kStep * kStep;
    if (to > reserved_ - kStep) throw std::bad_alloc();
    char* const end = reinterpret_cast<char*>(data_) + from;
    if (mprotect(end, to - from, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    madvise(end, to - from, MADV_HUGEPAGE);  // a hint: without it only slower
    size_ = to / sizeof(T);
#else
    auto larger = std::make_unique<ZeroPages<T> >(std::max(size, size_ + size_ / 2 + kStep / sizeof(T)));
    if (size_ > 0) std::memcpy(static_cast<void*>(larger->data()), data_, size_ * sizeof(T));
    pages_ = std::move(larger);
    data_ = pages_->data();
    size_ = pages_->size();
#endif
  }

  T* data_ = nullptr;
  std::size_t size_ = 0;  // usable
#ifdef __linux__
  void* mapped_;
  std::size_t reserved_;
#else
  std::unique_ptr<ZeroPages<T> > pages_;
#endif
};

}  // namespace ngram
