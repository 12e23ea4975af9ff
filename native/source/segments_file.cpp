#include "source/segments_file.h"

#include <cerrno>
#include <cstring>

#include <algorithm>
#include <string>

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/bus_guard.h"

namespace vmi {

namespace {

Status SystemError(const std::string& tried, int error) {
  return {Code::kAttach, tried + ": " + std::strerror(error)};
}

bool AllZero(const uint8_t* bytes, size_t length) {
  return length == 0 || (bytes[0] == 0 && std::memcmp(bytes, bytes + 1, length - 1) == 0);
}

// Reads as far as the file goes. A hole reads as zeroes and stays a hole.
size_t ReadFully(int fd, uint8_t* into, size_t length, uint64_t offset) {
  size_t done = 0;
  while (done < length) {
    const ssize_t part = pread(fd, into + done, length - done, static_cast<off_t>(offset + done));
    if (part < 0 && errno == EINTR) continue;
    if (part <= 0) break;
    done += static_cast<size_t>(part);
  }
  return done;
}

}  // namespace

uint64_t PageSet::Next(uint64_t page, uint64_t end, bool held) const {
  if (all()) return held ? page : end;
  const uint8_t none = held ? 0x00 : 0xff;
  while (page < end) {
    if ((page & 7) == 0 && bits_[page >> 3] == none) {
      page += 8;
    } else if (Holds(page) == held) {
      return page;
    } else {
      ++page;
    }
  }
  return end;
}

Result<std::shared_ptr<SegmentFile>> SegmentFile::Open(int fd) {
  std::shared_ptr<SegmentFile> file(new SegmentFile());
  file->fd_ = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (file->fd_ < 0)
    return SystemError("cannot duplicate file descriptor " + std::to_string(fd), errno);

  struct stat status {};
  struct statfs system {};
  if (fstat(file->fd_, &status) != 0 || fstatfs(file->fd_, &system) != 0) {
    return SystemError("cannot stat file descriptor " + std::to_string(fd), errno);
  }
  if (S_ISREG(status.st_mode)) {
    file->size_ = static_cast<uint64_t>(status.st_size);
    file->full_ = static_cast<uint64_t>(status.st_blocks) * 512 >= file->size_;
  } else if (S_ISBLK(status.st_mode)) {
    if (ioctl(file->fd_, BLKGETSIZE64, &file->size_) != 0)
      return SystemError("cannot size the block device", errno);
    file->full_ = true;
  } else if (S_ISCHR(status.st_mode)) {
    file->size_ = UINT64_MAX;
    file->full_ = true;
  } else {
    return {Code::kAttach, "file descriptor " + std::to_string(fd) +
                               " is neither a file nor a device: it cannot be mapped"};
  }

  const bool huge = system.f_type == HUGETLBFS_MAGIC;
  if (huge) file->granule_ = std::max<uint64_t>(kPageSize, static_cast<uint64_t>(system.f_bsize));
  file->cheap_extents_ = system.f_type != TMPFS_MAGIC;
  // hugetlbfs takes SEEK_DATA and calls everything data.
  if (!file->full_ && !huge) {
    const std::string path = "/proc/self/fd/" + std::to_string(file->fd_);
    file->seek_fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  }
  return file;
}

SegmentFile::~SegmentFile() {
  if (seek_fd_ >= 0) close(seek_fd_);
  if (fd_ >= 0) close(fd_);
}

SegmentFile::Data SegmentFile::SeekData(uint64_t offset, bool want_end) const {
  Data data;
  if (seek_fd_ < 0) return data;
  const off_t start = lseek(seek_fd_, static_cast<off_t>(offset), SEEK_DATA);
  if (start < 0) {
    // ENXIO: no data from here to the end of the file.
    data.supported = errno == ENXIO;
    return data;
  }
  data = {true, true, static_cast<uint64_t>(start), static_cast<uint64_t>(start) + 1};
  if (want_end || cheap_extents_) {
    const off_t end = lseek(seek_fd_, start, SEEK_HOLE);
    if (end > start) data.end = static_cast<uint64_t>(end);
  }
  return data;
}

Result<std::unique_ptr<FileMapping>> FileMapping::Map(std::shared_ptr<SegmentFile> file,
                                                      uint64_t offset, uint64_t length,
                                                      PageSet present) {
  if (offset > file->size() || length > file->size() - offset) {
    return {Code::kAttach, "a segment of " + std::to_string(length) + " bytes at file offset " +
                               Hex(offset) + " ends beyond the file, which has " +
                               std::to_string(file->size()) + " bytes"};
  }
  std::unique_ptr<FileMapping> mapping(new FileMapping());
  const uint64_t granule = file->granule();
  mapping->map_offset_ = offset - offset % granule;
  mapping->skew_ = offset - mapping->map_offset_;
  mapping->length_ = length;
  if (!present.all() && (mapping->skew_ != 0 || granule != kPageSize)) {
    return {Code::kMisuse,
            "Expected a segment with absent pages at a page of a file but received offset " +
                Hex(offset)};
  }
  const uint64_t whole = (mapping->skew_ + length + granule - 1) / granule * granule;

  InstallBusHandler();
  void* map = mmap(nullptr, whole, PROT_READ, MAP_SHARED, file->fd(),
                   static_cast<off_t>(mapping->map_offset_));
  if (map == MAP_FAILED) {
    return SystemError(
        "cannot map " + std::to_string(length) + " bytes at file offset " + Hex(offset), errno);
  }
  mapping->map_ = map;
  mapping->map_length_ = whole;
  mapping->base_ = static_cast<const uint8_t*>(map) + mapping->skew_;
  // The guest's memory does not belong in a core dump of this process.
  madvise(map, whole, MADV_DONTDUMP);

  if (!file->full() || !present.all()) {
    const uint64_t pages = whole / kPageSize;
    mapping->known_.reset(static_cast<uint8_t*>(std::calloc(pages, 1)));
    if (mapping->known_ == nullptr) return {Code::kAttach, "out of memory"};
  }
  mapping->present_ = std::move(present);
  mapping->file_ = std::move(file);
  return mapping;
}

FileMapping::~FileMapping() {
  if (map_ != nullptr) munmap(map_, map_length_);
}

// Marks pages [first, end).
void FileMapping::Know(uint64_t first, uint64_t end) {
  for (uint64_t page = first; page < end; ++page) {
    if (present_.Holds(page)) __atomic_store_n(&known_.get()[page], uint8_t{1}, __ATOMIC_RELAXED);
  }
}

uint64_t FileMapping::CountKnown(uint64_t page, uint64_t end, bool known) const {
  uint64_t next = page;
  while (next < end && IsKnown(next) == known) ++next;
  return next - page;
}

// Finds out about a page that is not known. kUnknown: the file does not tell holes; read it to see.
FileMapping::Page FileMapping::Probe(uint64_t page) {
  if (!present_.Holds(page)) return Page::kAbsent;
  if (file_->full()) {
    Know(page, page + 1);
    return Page::kData;
  }
  const uint64_t offset = map_offset_ + page * kPageSize;
  const SegmentFile::Data data = file_->SeekData(offset, false);
  if (!data.supported) return Page::kUnknown;
  if (!data.found || data.start >= offset + kPageSize) return Page::kHole;
  const uint64_t pages = map_length_ / kPageSize;
  const uint64_t end = (data.end - map_offset_ + kPageSize - 1) / kPageSize;
  Know(page, std::min(std::max(end, page + 1), pages));
  return Page::kData;
}

// Reads pages of which nothing is known through the descriptor, which allocates nothing, and learns
// those that turn out to hold something.
size_t FileMapping::ReadUnknown(uint64_t from, uint8_t* into, size_t length) {
  const size_t done = ReadFully(file_->fd(), into, length, map_offset_ + skew_ + from);
  const uint64_t granule_pages = file_->granule() / kPageSize;
  for (size_t at = 0; at < done;) {
    const uint64_t position = from + skew_ + at;
    const size_t part = std::min<size_t>(done - at, kPageSize - position % kPageSize);
    if (!AllZero(into + at, part)) {
      const uint64_t first = position / kPageSize / granule_pages * granule_pages;
      Know(first, first + granule_pages);
    }
    at += part;
  }
  return done;
}

size_t FileMapping::Read(uint64_t from, uint8_t* into, size_t length) {
  if (present_.all() || length == 0) return ReadPresent(from, into, length);
  const uint64_t first = from / kPageSize;
  const uint64_t end = (from + length - 1) / kPageSize + 1;
  const uint64_t absent = present_.Next(first, end, false);
  if (absent == first) return 0;
  return ReadPresent(from, into, absent == end ? length : absent * kPageSize - from);
}

Result<size_t> FileMapping::Write(uint64_t from, const uint8_t* bytes, size_t length) {
  const uint64_t offset = map_offset_ + skew_ + from;
  if (!present_.all() && length > 0) {
    const uint64_t first = from / kPageSize;
    const uint64_t end = (from + length - 1) / kPageSize + 1;
    const uint64_t absent = present_.Next(first, end, false);
    if (absent == first) return size_t{0};
    if (absent != end) length = static_cast<size_t>(absent * kPageSize - from);
  }
  // To write beyond the end of a file that was truncated would make it longer.
  struct stat status {};
  if (fstat(file_->fd(), &status) != 0) return SystemError("cannot look at the file", errno);
  if (S_ISREG(status.st_mode)) {
    const auto size = static_cast<uint64_t>(status.st_size);
    if (offset >= size) return size_t{0};
    length = static_cast<size_t>(std::min<uint64_t>(length, size - offset));
  }
  size_t done = 0;
  while (done < length) {
    const ssize_t part =
        pwrite(file_->fd(), bytes + done, length - done, static_cast<off_t>(offset + done));
    if (part < 0 && errno == EINTR) continue;
    if (part < 0 && errno == EINVAL && done == 0) return WriteMapped(offset, bytes, length);
    if (part < 0)
      return SystemError("cannot write the file at offset " + Hex(offset + done), errno);
    if (part == 0) break;
    done += static_cast<size_t>(part);
  }
  return done;
}

// hugetlbfs has no write(2): a mapping that can be written lives as long as this call.
Result<size_t> FileMapping::WriteMapped(uint64_t offset, const uint8_t* bytes, size_t length) {
  const uint64_t start = offset - offset % file_->granule();
  const size_t whole = static_cast<size_t>(offset - start) + length;
  void* map = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_SHARED, file_->fd(),
                   static_cast<off_t>(start));
  if (map == MAP_FAILED) return SystemError("cannot map the file for writing", errno);
  madvise(map, whole, MADV_DONTDUMP);
  auto* into = static_cast<uint8_t*>(map) + (offset - start);
  const bool written = WithBusGuard([&] { std::memcpy(into, bytes, length); });
  munmap(map, whole);
  return written ? length : size_t{0};
}

size_t FileMapping::ReadPresent(uint64_t from, uint8_t* into, size_t length) {
  // From here on memcpy itself would go past the caches.
  constexpr size_t kLong = size_t{16} << 20;
  const CopyHint hint = length >= kLong ? CopyHint::kLong : CopyHint::kNone;
  if (known_ == nullptr) return CopyGuarded(into, base_ + from, length, hint);
  size_t done = 0;
  while (done < length) {
    // A run of pages of which the same is known.
    const uint64_t position = from + done + skew_;
    const uint64_t first = position / kPageSize;
    const bool known = IsKnown(first);
    const uint64_t end = (from + length - 1 + skew_) / kPageSize + 1;
    const uint64_t next = first + CountKnown(first, end, known);
    const size_t part =
        static_cast<size_t>(std::min<uint64_t>(next * kPageSize - position, length - done));

    size_t copied = 0;
    if (known) {
      copied = CopyGuarded(into + done, base_ + from + done, part, hint);
    } else if (part >= kPageSize) {
      copied = ReadUnknown(from + done, into + done, part);
    } else {
      switch (Probe(first)) {
        case Page::kData:
          copied = CopyGuarded(into + done, base_ + from + done, part);
          break;
        case Page::kHole:
          // Past the end of a file that was truncated there is no data either; only reading tells.
          copied = ReadFully(file_->fd(), into + done, part, map_offset_ + position);
          break;
        case Page::kUnknown:
          copied = ReadUnknown(from + done, into + done, part);
          break;
        case Page::kAbsent:
          break;
      }
    }
    done += copied;
    if (copied < part) break;
  }
  return done;
}

bool FileMapping::NextData(uint64_t from, uint64_t last, uint64_t limit, Range* run) {
  if (present_.all()) return NextInFile(from, last, limit, run);
  const uint64_t end = last / kPageSize + 1;
  while (true) {
    const uint64_t page = present_.Next(from / kPageSize, end, true);
    if (page == end) return false;
    from = std::max(from, page * kPageSize);
    if (!NextInFile(from, last, limit, run)) return false;
    const uint64_t first = run->start / kPageSize;
    const uint64_t absent = present_.Next(first, run->last() / kPageSize + 1, false);
    if (absent > first) {
      run->length = std::min(run->length, absent * kPageSize - run->start);
      return true;
    }
    from = run->start;
  }
}

bool FileMapping::NextInFile(uint64_t from, uint64_t last, uint64_t limit, Range* run) {
  const uint64_t whole = last - from < limit ? last - from + 1 : limit;
  *run = {from, whole};
  if (known_ == nullptr) return true;
  uint64_t position = from + skew_;
  uint64_t page = position / kPageSize;
  if (!IsKnown(page)) {
    const SegmentFile::Data data = file_->SeekData(map_offset_ + position, true);
    if (!data.supported) return true;
    if (!data.found || data.start - map_offset_ > last + skew_) return false;
    position = data.start - map_offset_;
    page = position / kPageSize;
    // All of it, not only what is asked for: the next call then needs no SEEK_HOLE, whose cost is
    // what lies ahead.
    const uint64_t end_page = (data.end - map_offset_ + kPageSize - 1) / kPageSize;
    Know(page, std::min(std::max(end_page, page + 1), map_length_ / kPageSize));
  }
  const uint64_t end = std::min(
      last + skew_ - position < limit ? last + skew_ + 1 : position + limit, uint64_t{map_length_});
  const uint64_t next = page + 1 + CountKnown(page + 1, (end + kPageSize - 1) / kPageSize, true);
  *run = {position - skew_, std::min(next * kPageSize, end) - position};
  return true;
}

}  // namespace vmi
