// Memory that tests build byte by byte, and that changes or fails while it is read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "core/paging/address_space.h"
#include "core/memory.h"
#include "core/physical_source.h"

namespace vmi::test {

// Memory that starts at a page of the host, as what is mapped does.
template <typename T>
struct PageAllocator {
  using value_type = T;
  PageAllocator() = default;
  template <typename U>
  explicit PageAllocator(const PageAllocator<U>&) {}
  T* allocate(size_t count) {
    return static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{kPageSize}));
  }
  void deallocate(T* at, size_t) { ::operator delete (at, std::align_val_t{kPageSize}); }
  bool operator==(const PageAllocator&) const { return true; }
  bool operator!=(const PageAllocator&) const { return false; }
};

// What a FakeSource looks at; tests keep it to change it.
struct Guest {
  explicit Guest(uint64_t size, uint64_t base = 0) : bytes(size), ranges({{base, size}}) {}
  // Two ranges: bytes of the second follow those of the first.
  Guest(Range first, Range second) : bytes(first.length + second.length), ranges({first, second}) {}

  std::vector<uint8_t, PageAllocator<uint8_t>> bytes;
  std::vector<Range> ranges;
  bool is_mapped = true;
  // Whether mapped memory is offered as a whole, page by page as it becomes known: a byte each.
  bool is_flat = false;
  std::vector<uint8_t> known;
  // What parallel() says.
  bool is_parallel = false;
  // Physical pages that are RAM but cannot be read.
  std::set<uint64_t> bad_pages;
  // Calls of Read so far, and requests in them.
  size_t reads = 0;
  size_t requests = 0;
  // Called before each Read with its number, from 0.
  std::function<void(size_t)> before_read;
  // Called before memory is loaded directly.
  std::function<void()> before_load;
  // The read that finds the guest gone.
  size_t fail_at = SIZE_MAX;
  // A page that was read stays as it was until the source is told to refresh; as libvmi's do.
  bool caches = false;
  std::map<uint64_t, std::vector<uint8_t>> cached;
  // Whether Begin brings the source back.
  bool recovers = false;

  uint8_t* At(uint64_t physical) {
    uint64_t skipped = 0;
    for (const Range& range : ranges) {
      if (range.Contains(physical)) return bytes.data() + skipped + (physical - range.start);
      skipped += range.length;
    }
    return nullptr;
  }
  template <typename T>
  void Put(uint64_t physical, T value) {
    std::memcpy(At(physical), &value, sizeof value);
  }
  void Put64(uint64_t physical, uint64_t value) { Put(physical, value); }
  uint64_t Get64(uint64_t physical) {
    uint64_t value;
    std::memcpy(&value, At(physical), sizeof value);
    return value;
  }
};

class FakeSource final : public PhysicalSource {
 public:
  explicit FakeSource(std::shared_ptr<Guest> guest) : guest_(std::move(guest)) {
    guest_->known.resize(guest_->bytes.size() / kPageSize + 1);
  }

  const std::vector<Range>& ranges() const override { return guest_->ranges; }
  bool mapped() const override { return guest_->is_mapped; }
  bool parallel() const override { return guest_->is_parallel; }

  const uint8_t* Direct(uint64_t physical, size_t length) override {
    if (!guest_->is_mapped || length == 0) return nullptr;
    if (guest_->before_load) guest_->before_load();
    for (const uint64_t page : guest_->bad_pages) {
      if (page - (physical & ~kPageMask) < length + (physical & kPageMask)) return nullptr;
    }
    for (const Range& range : guest_->ranges) {
      if (!range.Contains(physical)) continue;
      if (length > range.length - (physical - range.start)) return nullptr;
      const uint8_t* bytes = guest_->At(physical);
      for (size_t page = PageOf(bytes); guest_->is_flat && page <= PageOf(bytes + length - 1);
           ++page) {
        guest_->known[page] = 1;
      }
      return bytes;
    }
    return nullptr;
  }

  bool Flat(uint64_t physical, uint64_t length, FlatRun* run) override {
    if (!guest_->is_mapped || !guest_->is_flat) return false;
    for (const Range& range : guest_->ranges) {
      if (!range.Contains(physical) || length > range.length - (physical - range.start)) continue;
      const uint8_t* host = guest_->At(physical);
      *run = {host, guest_->known.data() + PageOf(host)};
      return true;
    }
    return false;
  }

  Status Read(ReadRequest* requests, size_t count) override {
    // For the counters.
    const std::lock_guard lock(mutex_);
    if (guest_->before_read) guest_->before_read(guest_->reads);
    if (guest_->reads++ >= guest_->fail_at) return {Code::kClosed, "the guest is gone"};
    guest_->requests += count;
    for (size_t i = 0; i < count; ++i) {
      ReadRequest& request = requests[i];
      request.transferred = 0;
      while (request.transferred < request.length) {
        const uint64_t address = request.physical + request.transferred;
        if (address < request.physical) break;
        const uint8_t* bytes = Bytes(address);
        if (bytes == nullptr || guest_->bad_pages.count(address & ~kPageMask) != 0) break;
        // Ranges are whole pages.
        const size_t part = std::min<size_t>(request.length - request.transferred,
                                             kPageSize - (address & kPageMask));
        std::memcpy(request.into + request.transferred, bytes, part);
        request.transferred += part;
      }
    }
    return {};
  }

  Status Begin() override {
    return guest_->reads >= guest_->fail_at ? Status(Code::kClosed, "gone") : Status();
  }
  bool recovers() const override { return guest_->recovers; }
  void Refresh() override {
    const std::lock_guard lock(mutex_);
    guest_->cached.clear();
  }
  void Close() override {}

 private:
  size_t PageOf(const uint8_t* bytes) const {
    return static_cast<size_t>(bytes - guest_->bytes.data()) / kPageSize;
  }

  const uint8_t* Bytes(uint64_t address) {
    const uint8_t* now = guest_->At(address);
    if (!guest_->caches || now == nullptr) return now;
    std::vector<uint8_t>& page = guest_->cached[address & ~kPageMask];
    if (page.empty())
      page.assign(now - (address & kPageMask), now - (address & kPageMask) + kPageSize);
    return page.data() + (address & kPageMask);
  }

  std::shared_ptr<Guest> guest_;
  std::mutex mutex_;
};

inline std::shared_ptr<Memory> Open(const std::shared_ptr<Guest>& guest) {
  return std::make_shared<Memory>(std::make_unique<FakeSource>(guest));
}

// Page tables, written by hand: tables are handed out from `next_table` on.
class Tables {
 public:
  Tables(std::shared_ptr<Guest> guest, uint64_t root, int levels)
      : guest_(std::move(guest)), root_(root), levels_(levels), next_table_(root + kPageSize) {}

  uint64_t root() const { return root_; }
  int levels() const { return levels_; }

  // Physical address of the entry for `address` at `level`; tables above it are made.
  uint64_t Entry(uint64_t address, int level) {
    uint64_t table = root_;
    for (int at = levels_;; --at) {
      const uint64_t entry = table + (address >> (12 + 9 * (at - 1)) & 511) * 8;
      if (at == level) return entry;
      if ((guest_->Get64(entry) & 1) == 0) {
        guest_->Put64(entry, next_table_ | 0x63);
        next_table_ += kPageSize;
      }
      table = guest_->Get64(entry) & 0x000f'ffff'ffff'f000;
    }
  }

  // Maps a page of the size of `level`.
  void Map(uint64_t address, uint64_t physical, int level = 1, uint64_t flags = 0x63) {
    guest_->Put64(Entry(address, level), physical | flags | (level > 1 ? 0x80 : 0));
  }

  std::unique_ptr<AddressSpace> Open(const std::shared_ptr<Memory>& memory) const {
    return std::move(AddressSpace::Create(memory, root_, levels_).value());
  }

 private:
  std::shared_ptr<Guest> guest_;
  uint64_t root_;
  int levels_;
  uint64_t next_table_;
};

// Where tests put the direct map.
constexpr uint64_t kDirectMap = 0xffff'8880'0000'0000;

// A guest of `size` bytes with all of it in the direct map, in pages of `level`; tables from 0x1000
// on.
struct DirectMapped {
  explicit DirectMapped(uint64_t size, int level = 1, int levels = 4)
      : guest(std::make_shared<Guest>(size)), tables(guest, 0x1000, levels) {
    const uint64_t page = uint64_t{1} << (12 + 9 * (level - 1));
    for (uint64_t at = 0; at < size; at += page) tables.Map(kDirectMap + at, at, level);
  }

  std::unique_ptr<AddressSpace> Open() const { return tables.Open(test::Open(guest)); }

  std::shared_ptr<Guest> guest;
  Tables tables;
};

}  // namespace vmi::test
