#include "core/gather/mapped.h"

#include <cstring>

#include <algorithm>

#include "core/bus_guard.h"

namespace vmi {

namespace {

// A gather is a few short loops over few rows. Of this many rows the groups of one depth are found,
// then each column is copied for all of them: enough for their cache misses to overlap, and few
// enough to stay in the first cache. 64 rows took a sixth longer. Rows are bits of a word below.
constexpr size_t kBlock = 16;

// What a NULL pointer leads to, so that no copy has to ask.
alignas(64) constexpr uint8_t kZeroes[Plan::kMaxGroup] = {};

// Finds a group of most rows. A NULL pointer leads to nothing, whatever lies at 0.
AddressSpace::FlatFinder MakeFinder(const AddressSpace::FlatWindow& flat,
                                    const ColumnGroup& group) {
  const AddressSpace::FlatFinder finder(flat, static_cast<uint64_t>(int64_t{group.offset}),
                                        group.length);
  return group.from >= 0 && finder.Holds(0) ? AddressSpace::FlatFinder() : finder;
}

// Finds a group that the finder does not; nullptr where it is not in one piece.
[[gnu::noinline]] const uint8_t* FindElsewhere(AddressSpace* space, const ColumnGroup& group,
                                               uint64_t pointer) {
  if (pointer == 0 && group.from >= 0) return kZeroes;
  return space->Direct(pointer + static_cast<uint64_t>(int64_t{group.offset}), group.length);
}

// Finds a group in each row of a block. Returns a bit for each row where it is not in one piece;
// those have zeroes instead.
uint64_t FindGroup(AddressSpace* space, AddressSpace::FlatFinder finder, const Rows& rows,
                   const ColumnGroup& group, size_t first, size_t count, const uint8_t** found) {
  const uint8_t* pointers = group.from >= 0 ? rows.Cell(first, static_cast<size_t>(group.from))
                                            : rows.bases + first * sizeof(uint64_t);
  uint64_t elsewhere = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t pointer = Rows::Load(pointers + i * sizeof pointer);
    const uint8_t* bytes = finder.Find(pointer);
    if (bytes == nullptr) {
      bytes = FindElsewhere(space, group, pointer);
      if (bytes == nullptr) {
        bytes = kZeroes;
        elsewhere |= uint64_t{1} << i;
      }
    }
    __builtin_prefetch(bytes);
    found[i] = bytes;
  }
  return elsewhere;
}

template <size_t kSize>
void CopyColumn(uint8_t* __restrict cells, const uint8_t* const* __restrict groups, size_t offset,
                size_t count) {
  size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    std::memcpy(cells + i * kSize, groups[i] + offset, kSize);
    std::memcpy(cells + (i + 1) * kSize, groups[i + 1] + offset, kSize);
    std::memcpy(cells + (i + 2) * kSize, groups[i + 2] + offset, kSize);
    std::memcpy(cells + (i + 3) * kSize, groups[i + 3] + offset, kSize);
  }
  for (; i < count; ++i) std::memcpy(cells + i * kSize, groups[i] + offset, kSize);
}

void CopyColumn(uint8_t* cells, const uint8_t* const* groups, const ColumnGroup::Part& part,
                size_t count) {
  // The usual sizes are loads and stores of their own: a call of memcpy costs more than those.
  switch (part.size) {
    case 8:
      return CopyColumn<8>(cells, groups, part.offset, count);
    case 4:
      return CopyColumn<4>(cells, groups, part.offset, count);
    case 16:
      return CopyColumn<16>(cells, groups, part.offset, count);
    default:
      for (size_t i = 0; i < count; ++i)
        std::memcpy(cells + i * part.size, groups[i] + part.offset, part.size);
  }
}

// Copies a group that is not in one piece, column by column, each as far as it goes.
void CopyParts(AddressSpace* space, const Rows& rows, const ColumnGroup& group, size_t row,
               uint64_t start) {
  for (const ColumnGroup::Part& part : group.parts) {
    uint8_t* cell = rows.Cell(row, part.column);
    int level;
    if (space->Copy(start + part.offset, cell, part.size, &level) == part.size) continue;
    std::memset(cell, 0, part.size);
    rows.SetFaulty(row, part.column);
  }
}

// Only trivial objects live in here, since SIGBUS jumps out of it. It is not inlined, since
// variables of a function that calls sigsetjmp lie in memory.
[[gnu::noinline]] void GatherGuarded(AddressSpace* space, const ColumnGroup* groups,
                                     size_t group_count, const Rows& rows, size_t count) {
  const uint8_t* found[Plan::kMaxColumns][kBlock];
  uint64_t elsewhere[Plan::kMaxColumns];
  AddressSpace::FlatFinder finders[Plan::kMaxColumns];
  for (size_t g = 0; g < group_count; ++g) finders[g] = MakeFinder(space->WidestFlat(), groups[g]);
  for (size_t first = 0; first < count; first += kBlock) {
    const size_t block = std::min(kBlock, count - first);
    for (size_t g = 0; g < group_count;) {
      // All groups of one depth are found before any of them is copied.
      const size_t begin = g;
      for (; g < group_count && groups[g].depth == groups[begin].depth; ++g) {
        elsewhere[g] = FindGroup(space, finders[g], rows, groups[g], first, block, found[g]);
      }
      for (size_t k = begin; k < g; ++k) {
        for (const ColumnGroup::Part& part : groups[k].parts)
          CopyColumn(rows.Cell(first, part.column), found[k], part, block);
        for (uint64_t bits = elsewhere[k]; bits != 0; bits &= bits - 1) {
          const size_t row = first + static_cast<size_t>(__builtin_ctzll(bits));
          uint64_t start;
          if (rows.FindStart(groups[k], row, &start)) CopyParts(space, rows, groups[k], row, start);
        }
      }
    }
  }
}

}  // namespace

void GatherMapped(AddressSpace* space, const Plan& plan, const Rows& rows, size_t count) {
  const ColumnGroup* groups = plan.groups().data();
  const size_t group_count = plan.groups().size();
  if (WithBusGuard([&] { GatherGuarded(space, groups, group_count, rows, count); })) return;
  // A file was truncated under the mapping. Once more, with a guard around every copy. The jump may
  // have left a translation half-written.
  space->Flush();
  for (size_t row = 0; row < count; ++row) {
    for (const ColumnGroup& group : plan.groups()) {
      uint64_t start;
      if (rows.FindStart(group, row, &start)) {
        CopyParts(space, rows, group, row, start);
      } else {
        rows.ZeroGroup(group, row);
      }
    }
  }
}

}  // namespace vmi
