// Virtual addresses through one page table. Intel SDM vol. 3A, chapter 4.5.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/memory.h"
#include "core/result.h"
#include "core/zeroed_array.h"

namespace vmi {

// A run of virtual addresses mapped to a run of physical ones.
struct Window {
  uint64_t start = 0;
  uint64_t length = 0;
  uint64_t physical = 0;
};

// Not thread-safe: the TLB changes with every translation.
class AddressSpace {
 public:
  static constexpr size_t kMaxWindows = 64;

  // kMisuse for levels other than 4 and 5, and a root that is not page-aligned.
  static Result<std::unique_ptr<AddressSpace>> Create(std::shared_ptr<Memory> memory, uint64_t root,
                                                      int levels);

  const std::shared_ptr<Memory>& memory() const { return memory_; }
  uint64_t root() const { return root_; }
  int levels() const { return levels_; }

  Status SetWindows(const std::vector<Window>& windows);
  void Flush() { ++generation_; }

  Result<uint64_t> Translate(uint64_t address);

  struct Step {
    uint64_t level;
    uint64_t entry_address;
    uint64_t entry;
  };
  // Top first, ending with the leaf, the entry that is not present, or the last one whose successor
  // is not in RAM. Empty for an address that is not canonical and for a root that is not in RAM.
  Result<std::vector<Step>> Walk(uint64_t address);

  // In `Window::physical` of Mappings: what these addresses map is not known, since the page table
  // whose physical address is in the other bits (the first of them) cannot be read.
  static constexpr uint64_t kUnreadable = uint64_t{1} << 63;

  // Present mappings in [start, last], and what is kUnreadable of it; neighbours merged. kCorrupt
  // beyond `max`.
  Result<std::vector<Window>> Mappings(uint64_t start, uint64_t last, size_t max);

  Result<size_t> Read(uint64_t address, uint8_t* into, size_t length);
  // All of it, or kFault.
  Status ReadExact(uint64_t address, uint8_t* into, size_t length);

  // Whether a read at `address` fails because of a page that a dump leaves out: the one that is
  // read, or one of the page table.
  bool Absent(uint64_t address);

  // For gathers and list walks, between Memory::Check and the next Close.

  // A run of physical addresses; length counts from `physical`.
  struct Run {
    uint64_t physical = 0;
    uint64_t length = 0;
  };
  // -1: resolved; otherwise the level of the fault.
  int Resolve(uint64_t address, Run* run) {
    if (ResolveInWindows(address, run)) return kResolved;
    const TlbEntry& entry = tlb_[Slot(address)];
    if (entry.page == (address & ~kPageMask) && entry.generation == generation_) {
      *run = {entry.physical | (address & kPageMask),
              entry.length - (address & (entry.length - 1))};
      return kResolved;
    }
    return ResolveSlow(address, run);
  }
  static constexpr int kResolved = -1;

  // Without a page table, on any thread; false for what no window has.
  bool ResolveInWindows(uint64_t address, Run* run) const {
    for (size_t i = 0; i < window_count_; ++i) {
      const uint64_t from = address - windows_[i].start;
      if (from >= windows_[i].length) continue;
      *run = {windows_[i].physical + from, windows_[i].length - from};
      return true;
    }
    return false;
  }

  // A window that lies in one piece on the host.
  struct FlatWindow {
    uint64_t start = 0;
    uint64_t length = 0;
    FlatRun run;

    bool Holds(uint64_t address, size_t bytes) const {
      const uint64_t from = address - start;
      return from < length && bytes <= length - from;
    }
  };
  // Finds what lies at one distance from a pointer, up to kPageSize bytes, in such a window. What
  // is the same for all pointers is worked out before.
  class FlatFinder {
   public:
    FlatFinder() = default;
    FlatFinder(const FlatWindow& window, uint64_t offset, size_t length)
        : origin_(window.start - offset),
          starts_(length <= window.length ? window.length - length + 1 : 0),
          host_(reinterpret_cast<uintptr_t>(window.run.host)),
          checks_(window.run.known != nullptr),
          known_(reinterpret_cast<uintptr_t>(window.run.known) - host_ / kPageSize),
          last_(length - 1) {}

    bool Holds(uint64_t pointer) const { return pointer - origin_ < starts_; }
    // Whatever it leads to: a hint.
    void Prefetch(uint64_t pointer) const {
      if (Holds(pointer))
        __builtin_prefetch(reinterpret_cast<const void*>(host_ + (pointer - origin_)));
    }
    // Its host address, or nullptr: ask AddressSpace::Direct.
    const uint8_t* Find(uint64_t pointer) const {
      const uint64_t from = pointer - origin_;
      if (from >= starts_) return nullptr;
      const uintptr_t bytes = host_ + from;
      // It lies in one page or in two.
      if (checks_ && (Known(bytes) & Known(bytes + last_)) == 0) return nullptr;
      return reinterpret_cast<const uint8_t*>(bytes);
    }

   private:
    uint8_t Known(uintptr_t bytes) const {
      return __atomic_load_n(reinterpret_cast<const uint8_t*>(known_ + bytes / kPageSize),
                             __ATOMIC_RELAXED);
    }

    uint64_t origin_ = 0;
    // How many places there are where it can start.
    uint64_t starts_ = 0;
    uintptr_t host_ = 0;
    bool checks_ = false;
    // Where FlatRun::known would have the byte of host page 0.
    uintptr_t known_ = 0;
    size_t last_ = 0;
  };
  // The widest of them, the direct map, for loops to keep in registers; empty where there is none.
  FlatWindow WidestFlat() const { return flat_count_ == 0 ? FlatWindow() : flat_[0]; }

  // Host address of `length` bytes that can be loaded as they are (under a BusGuard), or nullptr.
  const uint8_t* Direct(uint64_t address, size_t length) {
    for (size_t i = 0; i < flat_count_; ++i) {
      const FlatWindow& window = flat_[i];
      if (!window.Holds(address, length)) continue;
      const uint8_t* bytes = window.run.At(address - window.start, length);
      if (bytes != nullptr) return bytes;
      break;
    }
    Run run;
    if (Resolve(address, &run) != kResolved || run.length < length) return nullptr;
    return memory_->Direct(run.physical, length);
  }

  // Bytes read before the first that cannot be; `level` is set when that is fewer than `length`.
  size_t Copy(uint64_t address, uint8_t* into, size_t length, int* level);

  // Copies batches in place of the memory, for as long as it is set: see ReadPaths.
  class Detour {
   public:
    virtual void CopyBatch(ReadRequest* requests, size_t count) = 0;

   protected:
    ~Detour() = default;
  };
  void set_detour(Detour* detour) { detour_ = detour; }
  bool has_detour() const { return detour_ != nullptr; }
  void CopyBatch(ReadRequest* requests, size_t count) {
    if (detour_ != nullptr) return detour_->CopyBatch(requests, count);
    memory_->CopyBatch(requests, count);
  }

  // Bits 63 to 47 (4 levels) or 63 to 56 (5 levels) are the same. SDM vol. 1, 3.3.7.1.
  bool IsCanonical(uint64_t address) const {
    const int unused = levels_ == 4 ? 16 : 7;
    const auto value = static_cast<int64_t>(address);
    return static_cast<int64_t>(address << unused) >> unused == value;
  }
  Error MakeFault(uint64_t address, uint64_t requested, uint64_t transferred, int level);

 private:
  struct TlbEntry {
    uint64_t page = 0;
    uint64_t physical = 0;
    // Of the whole leaf: 4 KiB, 2 MiB or 1 GiB.
    uint64_t length = 0;
    uint64_t generation = 0;
  };
  // Where the page table (level 1) of a 2 MiB region is: saves all but one load on a miss.
  struct TableEntry {
    uint64_t region = 0;
    uint64_t table = 0;
    uint64_t generation = 0;
    // Whether its 512 entries are kept, where a load is a call into the source: a whole table costs
    // no more, and its neighbours are asked for next.
    bool filled = false;
  };
  using TableEntries = std::array<uint64_t, 512>;
  static constexpr size_t kTlbSize = 1024;
  static constexpr size_t kTableCacheSize = 256;
  static size_t Slot(uint64_t address) { return (address >> 12) % kTlbSize; }

  AddressSpace(std::shared_ptr<Memory> memory, uint64_t root, int levels)
      : memory_(std::move(memory)), root_(root), levels_(levels) {}
  int ResolveSlow(uint64_t address, Run* run);
  bool LoadLastEntry(TableEntry* cached, uint64_t index, uint64_t* entry);
  // -1 and the leaf, or the level of the fault.
  int WalkToLeaf(uint64_t address, uint64_t* physical, uint64_t* length);
  struct Collector;
  Status Collect(Collector* out, uint64_t table, int level, uint64_t base, uint64_t start,
                 uint64_t last);

  std::shared_ptr<Memory> memory_;
  uint64_t root_;
  int levels_;
  // Clipped to RAM.
  std::vector<Window> windows_;
  size_t window_count_ = 0;
  // The longest first.
  std::vector<FlatWindow> flat_;
  size_t flat_count_ = 0;
  Detour* detour_ = nullptr;
  uint64_t generation_ = 1;
  ZeroedArray<TlbEntry, kTlbSize> tlb_;
  ZeroedArray<TableEntry, kTableCacheSize> tables_;
  std::vector<std::unique_ptr<TableEntries>> table_entries_;
};

}  // namespace vmi
