#include "source/touched_pages.h"

#include <cerrno>

#include <algorithm>
#include <string>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace vmi {

namespace {

constexpr uint64_t kInMemory = uint64_t{1} << 63;
constexpr uint64_t kInSwap = uint64_t{1} << 62;
// Entries read at a time: 2 MiB of the process around a page that is asked for, 16 MiB of it where
// memory is searched.
constexpr size_t kAround = 512;
constexpr size_t kAhead = 4096;

}  // namespace

PageMap::PageMap(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/pagemap";
  fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
}

PageMap::~PageMap() {
  if (fd_ >= 0) close(fd_);
}

size_t PageMap::Read(uint64_t page, uint64_t* entries, size_t count) const {
  const auto offset = static_cast<off_t>(page * sizeof *entries);
  ssize_t read;
  do {
    read = pread(fd_, entries, count * sizeof *entries, offset);
  } while (read < 0 && errno == EINTR);
  return read < 0 ? 0 : static_cast<size_t>(read) / sizeof *entries;
}

TouchedPages::TouchedPages(std::shared_ptr<PageMap> map, uint64_t address, uint64_t length)
    : map_(std::move(map)), first_page_(address / kPageSize), pages_(length / kPageSize) {
  if (map_->usable()) known_.reset(static_cast<uint8_t*>(std::calloc(pages_, 1)));
}

TouchedPages::Part TouchedPages::NextSlow(uint64_t from, size_t length) {
  if (known_ == nullptr) return {true, length};
  uint64_t entries[kAround];
  // The block of pages that was looked at last.
  uint64_t first = 0;
  size_t read = 0;
  const auto is_touched = [&](uint64_t page) {
    if (IsKnown(page)) return true;
    if (page - first >= read) {
      first = page - page % kAround;
      const auto count = static_cast<size_t>(std::min<uint64_t>(kAround, pages_ - first));
      read = map_->Read(first_page_ + first, entries, count);
      for (size_t i = 0; i < read; ++i) {
        if ((entries[i] & (kInMemory | kInSwap)) != 0) Know(first + i);
      }
    }
    // Where nothing tells, as the process ends, whoever reads the page is told what is amiss.
    return page - first >= read || (entries[page - first] & (kInMemory | kInSwap)) != 0;
  };
  const uint64_t end = (from + length - 1) / kPageSize + 1;
  uint64_t page = from / kPageSize;
  const bool touched = is_touched(page);
  do {
    ++page;
  } while (page < end && is_touched(page) == touched);
  return {touched, static_cast<size_t>(std::min<uint64_t>(length, page * kPageSize - from))};
}

bool TouchedPages::IsInMemory(uint64_t page, uint64_t entry) const {
  if ((entry & kInMemory) != 0) return true;
  if ((entry & kInSwap) == 0) return false;
  // A page that is being moved looks as if it were in swap, for as long as that takes.
  uint64_t again = 0;
  return map_->Read(first_page_ + page, &again, 1) == 1 && (again & kInMemory) != 0;
}

bool TouchedPages::NextInMemory(uint64_t from, uint64_t last, uint64_t limit, Range* run) {
  *run = {from, last - from < limit ? last - from + 1 : limit};
  if (known_ == nullptr) return true;
  uint64_t entries[kAhead];
  const uint64_t end = last / kPageSize + 1;
  uint64_t page = from / kPageSize;
  // Further ahead the longer nothing is found: mostly there is something.
  for (size_t ahead = kAround; page < end; ahead = std::min(2 * ahead, kAhead)) {
    const auto count = static_cast<size_t>(std::min<uint64_t>(ahead, end - page));
    const size_t read = map_->Read(first_page_ + page, entries, count);
    if (read == 0) return true;
    size_t first = 0;
    while (first < read && !IsInMemory(page + first, entries[first])) ++first;
    if (first == read) {
      page += read;
      continue;
    }
    size_t next = first;
    while (next < read && IsInMemory(page + next, entries[next])) {
      Know(page + next);
      ++next;
    }
    const uint64_t start = std::max(from, (page + first) * kPageSize);
    const uint64_t run_last = std::min(last, (page + next) * kPageSize - 1);
    *run = {start, std::min(run_last - start + 1, limit)};
    return true;
  }
  return false;
}

}  // namespace vmi
