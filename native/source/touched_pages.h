// Which pages of another process's anonymous memory have ever been touched.
//
// /proc/PID/pagemap: 8 bytes a page of the process, bit 63 set where the page is in memory, bit 62
// where it is in swap (proc_pid_pagemap(5)). A page of anonymous memory with neither was never
// touched, or was given back: it reads as zeroes. Reading it all the same would make the process
// have it, page for page, until all RAM of a guest is memory of the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include <sys/types.h>

#include "core/physical_source.h"

namespace vmi {

// /proc/PID/pagemap of one process.
class PageMap {
 public:
  // Not to be had: `usable` is false, and nothing is known of any page.
  explicit PageMap(pid_t pid);
  ~PageMap();
  PageMap(const PageMap&) = delete;
  PageMap& operator=(const PageMap&) = delete;

  bool usable() const { return fd_ >= 0; }
  // Entries of `count` pages from `page` of the process on; how many there are.
  size_t Read(uint64_t page, uint64_t* entries, size_t count) const;

 private:
  int fd_ = -1;
};

// One run of anonymous memory. Any thread.
class TouchedPages {
 public:
  // `address` in the process and `length` are of whole pages.
  TouchedPages(std::shared_ptr<PageMap> map, uint64_t address, uint64_t length);

  // Bytes from `from` on, at most `length`, whose pages are all touched, or all not. A page in swap
  // is touched: who asks for it by its address needs it.
  struct Part {
    bool touched = true;
    size_t length = 0;
  };
  Part Next(uint64_t from, size_t length) {
    if (length <= kPageSize - (from & kPageMask) && IsKnown(from / kPageSize))
      return {true, length};
    return NextSlow(from, length);
  }

  // The first run of at most `limit` bytes in [from, last] of pages that are in memory; pages in
  // swap are passed over.
  bool NextInMemory(uint64_t from, uint64_t last, uint64_t limit, Range* run);

 private:
  struct FreeDeleter {
    void operator()(uint8_t* bytes) const { std::free(bytes); }
  };

  bool IsKnown(uint64_t page) const {
    return known_ == nullptr || __atomic_load_n(&known_.get()[page], __ATOMIC_RELAXED) != 0;
  }
  void Know(uint64_t page) { __atomic_store_n(&known_.get()[page], uint8_t{1}, __ATOMIC_RELAXED); }
  Part NextSlow(uint64_t from, size_t length);
  bool IsInMemory(uint64_t page, uint64_t entry) const;

  std::shared_ptr<PageMap> map_;
  // Of the process.
  uint64_t first_page_;
  uint64_t pages_;
  // One byte a page, 1 once it was seen to be touched. Null: all may be, as nothing tells.
  std::unique_ptr<uint8_t, FreeDeleter> known_;
};

}  // namespace vmi
