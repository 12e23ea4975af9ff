// RAM that is a file: shared memory, a memfd, an image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "core/physical_source.h"
#include "core/result.h"

namespace vmi {

// Which pages of a run a dump holds: one bit a page, the lowest bit of a byte first.
class PageSet {
 public:
  PageSet() = default;
  explicit PageSet(std::vector<uint8_t> bits) : bits_(std::move(bits)) {}

  // No bits: every page is held.
  bool all() const { return bits_.empty(); }
  bool Holds(uint64_t page) const { return all() || (bits_[page >> 3] >> (page & 7) & 1) != 0; }
  // The first page from `page` on, before `end`, that is held, or is not; `end` where there is
  // none.
  uint64_t Next(uint64_t page, uint64_t end, bool held) const;

 private:
  std::vector<uint8_t> bits_;
};

// A duplicate of the caller's descriptor, shared by all segments that are in the same file.
class SegmentFile {
 public:
  static Result<std::shared_ptr<SegmentFile>> Open(int fd);
  ~SegmentFile();
  SegmentFile(const SegmentFile&) = delete;
  SegmentFile& operator=(const SegmentFile&) = delete;

  int fd() const { return fd_; }
  // Bytes; UINT64_MAX where the file does not tell (a character device).
  uint64_t size() const { return size_; }
  // Bytes of the smallest unit that can be mapped: a huge page on hugetlbfs.
  uint64_t granule() const { return granule_; }
  // Whether every byte had its block when the file was opened: no hole to look out for.
  bool full() const { return full_; }

  // The first run of data at or after `offset`, as lseek(2) reports it. `end_known`: SEEK_HOLE was
  // asked for; it visits every page of a run on tmpfs (28 ns each), so not for the sake of one
  // page.
  struct Data {
    bool supported = false;
    bool found = false;
    uint64_t start = 0;
    uint64_t end = 0;
  };
  Data SeekData(uint64_t offset, bool want_end) const;

 private:
  SegmentFile() = default;

  int fd_ = -1;
  // A description of our own: seeking must not move the caller's position. -1: not to be had.
  int seek_fd_ = -1;
  uint64_t size_ = 0;
  uint64_t granule_ = kPageSize;
  bool full_ = false;
  bool cheap_extents_ = false;
};

// One run of a file, mapped read-only.
//
// Touching a hole of tmpfs through a mapping allocates the page on the host, and a guest has many:
// pages are touched only once they are known to hold data. What is known is never forgotten.
class FileMapping {
 public:
  // `present`: of the run's pages; what it lacks is never read. It needs an `offset` at a page.
  static Result<std::unique_ptr<FileMapping>> Map(std::shared_ptr<SegmentFile> file,
                                                  uint64_t offset, uint64_t length,
                                                  PageSet present);
  ~FileMapping();
  FileMapping(const FileMapping&) = delete;
  FileMapping& operator=(const FileMapping&) = delete;

  // `from` is relative to the run. Returns bytes read; the end of a truncated file ends the read,
  // and so does a page that is not present.
  size_t Read(uint64_t from, uint8_t* into, size_t length);

  // Through the descriptor: the mapping stays read-only. Returns bytes written; what a dump lacks,
  // and the end of a truncated file, end it. kAttach where the host refuses.
  Result<size_t> Write(uint64_t from, const uint8_t* bytes, size_t length);

  // nullptr when a page of it is a hole or not known to hold data.
  const uint8_t* Direct(uint64_t from, size_t length) {
    if (known_ == nullptr) return base_ + from;
    const uint64_t first = (from + skew_) / kPageSize;
    const uint64_t last = (from + skew_ + length - 1) / kPageSize;
    for (uint64_t page = first; page <= last; ++page) {
      if (!IsKnown(page) && Probe(page) != Page::kData) return nullptr;
    }
    return base_ + from;
  }

  FlatRun Flat(uint64_t from) const {
    return {base_ + from, known_ == nullptr ? nullptr : known_.get() + (from + skew_) / kPageSize};
  }

  // The first run of at most `limit` bytes in [from, last] that may hold data; what it reports
  // counts as known.
  bool NextData(uint64_t from, uint64_t last, uint64_t limit, Range* run);

  bool IsPresent(uint64_t from) const { return present_.Holds(from / kPageSize); }

 private:
  enum class Page { kData, kHole, kUnknown, kAbsent };
  struct FreeDeleter {
    void operator()(uint8_t* bytes) const { std::free(bytes); }
  };

  FileMapping() = default;
  bool IsKnown(uint64_t page) const {
    return __atomic_load_n(&known_.get()[page], __ATOMIC_RELAXED) != 0;
  }
  // How many pages from `page` on, before `end`, are known, or are not.
  uint64_t CountKnown(uint64_t page, uint64_t end, bool known) const;
  void Know(uint64_t first, uint64_t end);
  // NextData, whatever is present.
  bool NextInFile(uint64_t from, uint64_t last, uint64_t limit, Range* run);
  size_t ReadPresent(uint64_t from, uint8_t* into, size_t length);
  Page Probe(uint64_t page);
  size_t ReadUnknown(uint64_t from, uint8_t* into, size_t length);
  Result<size_t> WriteMapped(uint64_t offset, const uint8_t* bytes, size_t length);

  std::shared_ptr<SegmentFile> file_;
  void* map_ = nullptr;
  size_t map_length_ = 0;
  const uint8_t* base_ = nullptr;
  // Offset in the file where the mapping starts, and from there to the run.
  uint64_t map_offset_ = 0;
  uint64_t skew_ = 0;
  uint64_t length_ = 0;
  // What it lacks never becomes known.
  PageSet present_;
  // One byte per page of the mapping, 1 or 0 (a bit takes more instructions to find); null: all
  // are.
  std::unique_ptr<uint8_t[], FreeDeleter> known_;
};

}  // namespace vmi
