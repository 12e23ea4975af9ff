// Where the bytes of guest-physical memory come from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/result.h"

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
  // One byte per host page, 1 once the page may be loaded, 0 before; null: all may. The first is of
  // `host`'s page.
  const uint8_t* known = nullptr;

  // Host address of `length` bytes, or nullptr when a page of theirs is not known to be loadable.
  const uint8_t* At(uint64_t from, size_t length) const {
    if (known != nullptr) {
      const uint64_t skew = reinterpret_cast<uintptr_t>(host) % kPageSize;
      const uint64_t last = (from + length - 1 + skew) / kPageSize;
      for (uint64_t page = (from + skew) / kPageSize; page <= last; ++page) {
        if (__atomic_load_n(&known[page], __ATOMIC_RELAXED) == 0) return nullptr;
      }
    }
    return host + from;
  }
};

// One kind of source. Every call may come from several threads at once, Close only when no other
// runs; a source whose library is not thread-safe takes a lock of its own.
class PhysicalSource {
 public:
  virtual ~PhysicalSource() = default;

  // RAM, ascending, page-aligned, no overlap, neighbours merged. Never changes.
  virtual const std::vector<Range>& ranges() const = 0;

  // Whether this is mapped memory: Direct answers for every byte that is not zero. All other is
  // copied memory, where a read is a system call or more.
  virtual bool mapped() const = 0;

  // Whether two threads that read at once are done sooner than one.
  virtual bool parallel() const { return false; }

  // Fills every request as far as it goes; an address that is not RAM only ends its own request.
  // An error means that the source as a whole is gone: no later call will work either, unless it
  // `recovers`.
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

  // The first run of at most `limit` bytes in [from, last] that may hold anything but zeroes;
  // false: none. `from` must be in RAM; the run does not leave the range that holds it.
  virtual bool NextData(uint64_t from, uint64_t last, uint64_t limit, Range* run) {
    *run = {from, last - from < limit ? last - from + 1 : limit};
    return true;
  }

  // Whether `physical` is RAM whose content the source does not have: a page that a dump leaves
  // out.
  virtual bool Absent(uint64_t physical) {
    (void)physical;
    return false;
  }

  // Whether it was opened for writing, too.
  virtual bool writable() const { return false; }

  // Writes as far as it goes, and returns how far: what is written first is first in memory. Only
  // where writable(). Memory that is mapped stays mapped read-only, so that no stray store of this
  // process changes a guest.
  virtual Result<size_t> Write(uint64_t physical, const uint8_t* from, size_t length) {
    (void)physical;
    (void)from;
    (void)length;
    return {Code::kUnsupported, "this memory cannot be written"};
  }

  // Starts an operation: drops caches; kClosed when the guest is gone.
  virtual Status Begin() = 0;
  // Whether Begin may work after an error.
  virtual bool recovers() const { return false; }

  // Within an operation: what the next Read brings is the guest's memory of now, all of one moment,
  // not what a cache kept of some earlier one. A list that changes is not repaired, and a row is
  // torn, by pages of different age.
  virtual void Refresh() {}

  virtual void Close() = 0;
};

}  // namespace vmi
