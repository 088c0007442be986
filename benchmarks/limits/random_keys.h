// The limit that exact counts on the device are compared with: pseudo-random keys into their table, nothing else.
#pragma once

#include <cstdint>

#include "cuda/exact_table.h"
#include "cuda/parallel.h"

namespace ngram::device {

NGRAM_HOST_DEVICE Key random_key(std::uint64_t number) {
  const std::uint64_t h = number * 0xD6E8FEB86659FD93u;
  return {static_cast<std::uint32_t>(h >> 32), static_cast<std::uint32_t>(h) & ((1u << 18) - 1)};
}

struct AddKeys {
  ExactTable table;
  std::uint64_t begin;

  template <class Lanes>
  NGRAM_HOST_DEVICE void operator()(const Lanes& lanes, std::int64_t i) const {
    const ExactTable::Place place = table.find_or_add(lanes, random_key(begin + i));
    if (lanes.leads() && place.added) table.slots[place.slot].node = static_cast<std::uint32_t>(begin + i);
  }
};

struct FindKeys {
  static constexpr std::uint32_t kMissing = ~std::uint32_t{0};

  ExactTable table;
  std::uint64_t begin;
  std::uint64_t* missed;

  template <class Lanes>
  NGRAM_HOST_DEVICE void operator()(const Lanes& lanes, std::int64_t i) const {
    const std::uint32_t node = table.find(lanes, random_key(begin + i), kMissing);
    if (lanes.leads() && node == kMissing) parallel::add(missed, std::uint64_t{1});  // rare, so that it costs nothing
  }
};

// Callers check arguments: a table that is full makes a look-up go on for ever.
class RandomKeys {
 public:
  RandomKeys(int device, std::uint64_t slots, int lanes)
      : own_(device), executor_(device, own_.handle()), lanes_(lanes), slots_(slots), missed_(1) {
    executor_.zero(slots_.data(), slots_.bytes());
    executor_.zero(missed_.data(), missed_.bytes());
  }

  // Keys numbered begin to end - 1.
  void add(std::uint64_t begin, std::uint64_t end) { launch(begin, end, AddKeys{table(), begin}); }
  void find(std::uint64_t begin, std::uint64_t end) {
    asked_ += end - begin;
    launch(begin, end, FindKeys{table(), begin, missed_.data()});
  }

  // Keys that `find` found, all calls together.
  std::uint64_t found() {
    std::uint64_t missed = 0;
    executor_.copy(&missed, missed_.data(), sizeof(missed));
    executor_.wait();
    return asked_ - missed;
  }

 private:
  ExactTable table() const { return {slots_.data(), slots_.size()}; }

  template <class Body>
  void launch(std::uint64_t begin, std::uint64_t end, const Body& body) {
    executor_.use();
    launch_groups(executor_, lanes_, static_cast<std::int64_t>(end - begin), body);
  }

  parallel::Stream own_;
  parallel::Executor executor_;
  int lanes_;
  parallel::Array<Slot> slots_;
  parallel::Array<std::uint64_t> missed_;
  std::uint64_t asked_ = 0;
};

}  // namespace ngram::device
