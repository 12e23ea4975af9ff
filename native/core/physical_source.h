// Where the bytes of guest-physical memory come from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "result.h"

namespace vmi {

constexpr uint64_t kPageSize = 4096;
constexpr uint64_t kPageMask = kPageSize - 1;

// A run of addresses. Ends are kept as the last address: one more may be 2^64.
struct Range {
  uint64_t start = 0;
  uint64_t length = 0;

  uint64_t last() const { return start + (length - 1); }
  bool Contains(uint64_t address) const { return address - start < length; }
};

// One element of a batch.
struct ReadRequest {
  uint64_t physical = 0;
  uint8_t* into = nullptr;
  size_t length = 0;
  // Set by the source: bytes read before the first one that cannot be read.
  size_t transferred = 0;
};

// A run of physical memory that lies in one piece on the host.
struct FlatRun {
  // Host address of its first byte.
  const uint8_t* host = nullptr;
  // One bit per host page, set once the page may be loaded; null: all may. `first_page` is the bit of `host`'s page,
  // `skew` where in that page `host` lies.
  const uint64_t* known = nullptr;
  uint64_t first_page = 0;
  uint64_t skew = 0;

  // Host address of `length` bytes, or nullptr when a page of theirs is not known to be loadable.
  const uint8_t* At(uint64_t from, size_t length) const {
    if (known != nullptr) {
      const uint64_t last = PageOf(from + length - 1);
      for (uint64_t page = PageOf(from); page <= last; ++page) {
        if (!IsKnown(page)) return nullptr;
      }
    }
    return host + from;
  }

  // The same for no more than kPageSize. A branch tells whether a word crosses a page, as it nearly never does; what is longer
  // does so by chance, and both its pages are looked at.
  const uint8_t* AtShort(uint64_t from, size_t length) const {
    if (known == nullptr) return host + from;
    const uint64_t first = PageOf(from);
    const uint64_t last = PageOf(from + length - 1);
    if (length <= 64) {
      if (!IsKnown(first) || (last != first && !IsKnown(last))) return nullptr;
    } else if ((int{IsKnown(first)} & int{IsKnown(last)}) == 0) {
      return nullptr;
    }
    return host + from;
  }

 private:
  uint64_t PageOf(uint64_t from) const { return first_page + ((from + skew) >> 12); }
  bool IsKnown(uint64_t page) const { return (__atomic_load_n(&known[page / 64], __ATOMIC_RELAXED) >> (page % 64) & 1) != 0; }
};

// One kind of source. Every call may come from several threads at once, Close only when no other runs;
// a source whose library is not thread-safe takes a lock of its own.
class PhysicalSource {
 public:
  virtual ~PhysicalSource() = default;

  // RAM, ascending, page-aligned, no overlap, neighbours merged. Never changes.
  virtual const std::vector<Range>& ranges() const = 0;

  // Whether Direct answers for every byte that is not zero.
  virtual bool mapped() const = 0;

  // Whether two threads that read at once are done sooner than one.
  virtual bool parallel() const { return false; }

  // Fills every request as far as it goes; an address that is not RAM only ends its own request.
  // An error means that the source as a whole is gone: no later call will work either, unless it `recovers`.
  virtual Status Read(ReadRequest* requests, size_t count) = 0;

  // Host address of `length` bytes that can be loaded without a system call, or nullptr: then Read
  // them. Valid until Close. Loads go under a BusGuard: the file behind it may have been truncated.
  virtual const uint8_t* Direct(uint64_t physical, size_t length) {
    (void)physical;
    (void)length;
    return nullptr;
  }

  // The same for a whole run that is used often; false: ask Direct. Valid until Close.
  virtual bool Flat(uint64_t physical, uint64_t length, FlatRun* run) {
    (void)physical;
    (void)length;
    (void)run;
    return false;
  }

  // The first run of at most `limit` bytes in [from, last] that may hold anything but zeroes; false: none.
  // `from` must be in RAM; the run does not leave the range that holds it.
  virtual bool NextData(uint64_t from, uint64_t last, uint64_t limit, Range* run) {
    *run = {from, last - from < limit ? last - from + 1 : limit};
    return true;
  }

  // Starts an operation: drops caches; kClosed when the guest is gone.
  virtual Status Begin() = 0;
  // Whether Begin may work after an error.
  virtual bool recovers() const { return false; }

  // Within an operation: what the next Read brings is the guest's memory of now, all of one moment, not what a cache kept
  // of some earlier one. A list that changes is not repaired, and a row is torn, by pages of different age.
  virtual void Refresh() {}

  virtual void Close() = 0;
};

}  // namespace vmi
