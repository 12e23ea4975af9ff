#include "core/paging/address_space.h"

#include <cstring>

#include <algorithm>
#include <string>

#include "core/bus_guard.h"

namespace vmi {

namespace {

// SDM vol. 3A, tables 4-15 to 4-20.
constexpr uint64_t kPresent = 1;
constexpr uint64_t kPageSizeBit = uint64_t{1} << 7;
// Bits 51:12. Bits 62:52 are ignored or protection keys, 63 is execute-disable.
constexpr uint64_t kPhysicalMask = 0x000f'ffff'ffff'f000;

constexpr size_t kEntries = 512;

// Lowest address bit that the index at `level` covers.
int ShiftOf(int level) { return 12 + 9 * (level - 1); }
uint64_t IndexOf(uint64_t address, int level) { return address >> ShiftOf(level) & 511; }
uint64_t LeafLength(int level) { return uint64_t{1} << ShiftOf(level); }
bool IsLeaf(uint64_t entry, int level) {
  return level == 1 || (level <= 3 && (entry & kPageSizeBit) != 0);
}
// PS is reserved in a PML4E and a PML5E: the processor faults on it.
bool IsPresent(uint64_t entry, int level) {
  return (entry & kPresent) != 0 && (level <= 3 || (entry & kPageSizeBit) == 0);
}
uint64_t LeafBase(uint64_t entry, int level) {
  return entry & kPhysicalMask & ~(LeafLength(level) - 1);
}

}  // namespace

Result<std::unique_ptr<AddressSpace>> AddressSpace::Create(std::shared_ptr<Memory> memory,
                                                           uint64_t root, int levels) {
  if (levels != 4 && levels != 5) {
    return {Code::kMisuse, "Expected levels to be 4 or 5 but received " + std::to_string(levels)};
  }
  if ((root & kPageMask) != 0) {
    return {Code::kMisuse, "Expected root to be the address of a page but received " + Hex(root)};
  }
  return std::unique_ptr<AddressSpace>(new AddressSpace(std::move(memory), root, levels));
}

Status AddressSpace::SetWindows(const std::vector<Window>& windows) {
  if (windows.size() > kMaxWindows) {
    return {Code::kMisuse, "Expected at most " + std::to_string(kMaxWindows) +
                               " windows but received " + std::to_string(windows.size())};
  }
  std::vector<Window> clipped;
  for (const Window& window : windows) {
    if (window.length == 0) continue;
    if (window.length - 1 > UINT64_MAX - window.start ||
        window.length - 1 > UINT64_MAX - window.physical) {
      return {Code::kMisuse, "Expected windows that end within 64 bits but received " +
                                 Hex(window.length) + " bytes at " + Hex(window.start) + " to " +
                                 Hex(window.physical)};
    }
    const uint64_t window_last = window.physical + (window.length - 1);
    for (const Range& range : memory_->ranges()) {
      const uint64_t start = std::max(range.start, window.physical);
      const uint64_t last = std::min(range.last(), window_last);
      if (start > last) continue;
      clipped.push_back({window.start + (start - window.physical), last - start + 1, start});
    }
  }
  windows_ = std::move(clipped);
  window_count_ = windows_.size();
  flat_.clear();
  for (const Window& window : windows_) {
    FlatWindow flat;
    flat.start = window.start;
    flat.length = window.length;
    if (memory_->Flat(window.physical, window.length, &flat.run)) flat_.push_back(flat);
  }
  std::sort(flat_.begin(), flat_.end(),
            [](const FlatWindow& a, const FlatWindow& b) { return a.length > b.length; });
  flat_count_ = flat_.size();
  return {};
}

bool AddressSpace::LoadLastEntry(TableEntry* cached, uint64_t index, uint64_t* entry) {
  if (!memory_->mapped()) {
    table_entries_.resize(kTableCacheSize);
    std::unique_ptr<TableEntries>& entries =
        table_entries_[static_cast<size_t>(cached - &tables_[0])];
    if (entries == nullptr) entries = std::make_unique<TableEntries>();
    auto* bytes = reinterpret_cast<uint8_t*>(entries->data());
    if (!cached->filled)
      cached->filled = memory_->Copy(cached->table, bytes, kPageSize) == kPageSize;
    // What was not there when the table was read may be by now.
    if (cached->filled && ((*entries)[index] & kPresent) != 0) {
      *entry = (*entries)[index];
      return true;
    }
  }
  return memory_->LoadU64(cached->table + index * 8, entry);
}

int AddressSpace::WalkToLeaf(uint64_t address, uint64_t* physical, uint64_t* length) {
  if (!IsCanonical(address)) return levels_;
  const uint64_t region = address >> ShiftOf(2);
  TableEntry& cached = tables_[region % kTableCacheSize];
  uint64_t table = root_;
  int level = levels_;
  if (cached.region == region && cached.generation == generation_) {
    table = cached.table;
    level = 1;
  }
  for (; level >= 1; --level) {
    uint64_t entry;
    const uint64_t index = IndexOf(address, level);
    if (!(level == 1 ? LoadLastEntry(&cached, index, &entry)
                     : memory_->LoadU64(table + index * 8, &entry)))
      return 0;
    if (!IsPresent(entry, level)) return level;
    if (IsLeaf(entry, level)) {
      *length = LeafLength(level);
      *physical = LeafBase(entry, level) | (address & (*length - 1));
      return kResolved;
    }
    table = entry & kPhysicalMask;
    if (level != 2) continue;
    cached.region = region;
    cached.table = table;
    cached.generation = generation_;
    cached.filled = false;
  }
  return 0;
}

int AddressSpace::ResolveSlow(uint64_t address, Run* run) {
  uint64_t physical = 0;
  uint64_t length = 0;
  const int level = WalkToLeaf(address, &physical, &length);
  if (level != kResolved) return level;
  tlb_[Slot(address)] = {address & ~kPageMask, physical & ~kPageMask, length, generation_};
  *run = {physical, length - (address & (length - 1))};
  return kResolved;
}

Error AddressSpace::MakeFault(uint64_t address, uint64_t requested, uint64_t transferred,
                              int level) {
  Error error;
  error.code = Code::kFault;
  error.fault = {
      address, true, root_, requested, transferred, level, level == 0 && Absent(address)};
  return error;
}

bool AddressSpace::Absent(uint64_t address) {
  if (!memory_->Check().ok()) return false;
  Run run;
  if (Resolve(address, &run) == kResolved) return memory_->Absent(run.physical);
  const auto steps = Walk(address);
  if (!steps.ok()) return false;
  if (steps.value().empty()) return memory_->Absent(root_);
  // The table that the last entry names cannot be read.
  const Step& last = steps.value().back();
  return IsPresent(last.entry, static_cast<int>(last.level)) &&
         memory_->Absent(last.entry & kPhysicalMask);
}

Result<uint64_t> AddressSpace::Translate(uint64_t address) {
  Status status = memory_->Check();
  if (!status.ok()) return status;
  Run run;
  const int level = Resolve(address, &run);
  if (level == kResolved) return run.physical;
  status = memory_->Check();
  if (!status.ok()) return status;
  return MakeFault(address, 1, 0, level);
}

Result<std::vector<AddressSpace::Step>> AddressSpace::Walk(uint64_t address) {
  Status status = memory_->Check();
  if (!status.ok()) return status;
  std::vector<Step> steps;
  if (!IsCanonical(address)) return steps;
  uint64_t table = root_;
  for (int level = levels_; level >= 1; --level) {
    const uint64_t entry_address = table + IndexOf(address, level) * 8;
    uint64_t entry;
    if (!memory_->LoadU64(entry_address, &entry)) {
      status = memory_->Check();
      if (!status.ok()) return status;
      break;
    }
    steps.push_back({static_cast<uint64_t>(level), entry_address, entry});
    if (!IsPresent(entry, level) || IsLeaf(entry, level)) break;
    table = entry & kPhysicalMask;
  }
  return steps;
}

size_t AddressSpace::Copy(uint64_t address, uint8_t* into, size_t length, int* level) {
  const uint8_t* direct = length == 0 ? nullptr : Direct(address, length);
  if (direct != nullptr && CopyGuarded(into, direct, length) == length) return length;

  constexpr size_t kBatch = 64;
  size_t done = 0;
  // Addresses end at 2^64: what lies beyond is as absent as any page.
  const size_t wanted =
      UINT64_MAX - address >= length ? length : static_cast<size_t>(UINT64_MAX - address) + 1;
  *level = levels_;
  while (done < wanted) {
    ReadRequest requests[kBatch];
    size_t count = 0;
    size_t planned = done;
    int fault = kResolved;
    while (planned < wanted && count < kBatch) {
      Run run;
      fault = Resolve(address + planned, &run);
      if (fault != kResolved) break;
      const auto part = static_cast<size_t>(std::min<uint64_t>(wanted - planned, run.length));
      if (count > 0 && requests[count - 1].physical + requests[count - 1].length == run.physical) {
        requests[count - 1].length += part;
      } else {
        requests[count++] = {run.physical, into + planned, part, 0};
      }
      planned += part;
    }
    if (count > 0) CopyBatch(requests, count);
    for (size_t i = 0; i < count; ++i) {
      done += requests[i].transferred;
      if (requests[i].transferred < requests[i].length) {
        *level = 0;
        return done;
      }
    }
    if (fault != kResolved) {
      *level = fault;
      return done;
    }
  }
  return done;
}

Result<size_t> AddressSpace::Read(uint64_t address, uint8_t* into, size_t length) {
  Status status = memory_->Check();
  if (!status.ok()) return status;
  int level;
  const size_t done = Copy(address, into, length, &level);
  if (done < length) {
    status = memory_->Check();
    if (!status.ok()) return status;
  }
  return done;
}

Status AddressSpace::ReadExact(uint64_t address, uint8_t* into, size_t length) {
  Status status = memory_->Check();
  if (!status.ok()) return status;
  int level;
  const size_t done = Copy(address, into, length, &level);
  if (done == length) return {};
  status = memory_->Check();
  if (!status.ok()) return status;
  return MakeFault(address + done, length, done, level);
}

struct AddressSpace::Collector {
  std::vector<Window> windows;
  size_t max;
  // A table may point to itself, and 512 entries of each of 5 levels to one empty table: 2^45
  // loads.
  size_t tables_left = size_t{1} << 20;
};

Result<std::vector<Window>> AddressSpace::Mappings(uint64_t start, uint64_t last, size_t max) {
  Status status = memory_->Check();
  if (!status.ok()) return status;
  Collector collector;
  collector.max = max;
  status = Collect(&collector, root_, levels_, 0, start, last);
  if (status.ok()) status = memory_->Check();
  if (!status.ok()) return status;
  return std::move(collector.windows);
}

Status AddressSpace::Collect(Collector* out, uint64_t table, int level, uint64_t base,
                             uint64_t start, uint64_t last) {
  const auto corrupt = [&](uint64_t address, const std::string& what) {
    Error error;
    error.code = Code::kCorrupt;
    error.message = "the page table at " + Hex(root_) + " has more than " + what;
    error.address = address;
    error.found = out->windows.size();
    return Status(std::move(error));
  };
  if (out->tables_left == 0) return corrupt(base, "2^20 tables");
  --out->tables_left;

  uint64_t entries[kEntries];
  const size_t read =
      memory_->Copy(table, reinterpret_cast<uint8_t*>(entries), sizeof entries) / sizeof entries[0];
  for (uint64_t index = 0; index < kEntries; ++index) {
    const bool known = index < read;
    const uint64_t entry = known ? entries[index] : 0;
    if (known && !IsPresent(entry, level)) continue;
    uint64_t first = base + (index << ShiftOf(level));
    // The upper half of the top level is the kernel's: its addresses are sign-extended.
    if (level == levels_ && index >= 256) first |= ~uint64_t{0} << (ShiftOf(level) + 9);
    const uint64_t end = first + (LeafLength(level) - 1);
    if (end < start || first > last) continue;
    if (known && !IsLeaf(entry, level)) {
      Status status = Collect(out, entry & kPhysicalMask, level - 1, first, start, last);
      if (!status.ok()) return status;
      continue;
    }
    const uint64_t from = std::max(first, start);
    const uint64_t length = std::min(end, last) - from + 1;
    const uint64_t physical = known ? LeafBase(entry, level) + (from - first) : kUnreadable | table;
    if (!out->windows.empty()) {
      Window& before = out->windows.back();
      const bool follows = known ? before.physical + before.length == physical
                                 : (before.physical & kUnreadable) != 0;
      if (before.start + before.length == from && follows) {
        before.length += length;
        continue;
      }
    }
    if (out->windows.size() == out->max)
      return corrupt(from, std::to_string(out->max) + " runs of mappings");
    out->windows.push_back({from, length, physical});
  }
  return {};
}

}  // namespace vmi
