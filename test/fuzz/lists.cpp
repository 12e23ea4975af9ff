// List walks over memory that the fuzzer wrote, and that it goes on writing while the walk reads:
// they end, never report a node twice, and never more than allowed.
#include <ctime>
#include <set>

#include "core/lists/lists.h"
#include "fuzzed_guest.h"

using namespace vmi;
using namespace vmi::test;

// A walk waits for a guest that is in the middle of a change; this one never is.
extern "C" int nanosleep(const timespec*, timespec*) { return 0; }

namespace {

std::vector<uint64_t> CheckWalk(const Result<ListWalk>& walk, size_t heads, size_t max) {
  if (!walk.ok()) {
    FUZZ_CHECK(walk.error().code == Code::kCorrupt || walk.error().code == Code::kFault);
    FUZZ_CHECK(walk.error().found <= max);
    return {1};
  }
  const ListWalk& found = walk.value();
  FUZZ_CHECK(found.bases.size() <= max && found.counts.size() == heads);
  size_t total = 0;
  for (const uint32_t count : found.counts) total += count;
  FUZZ_CHECK(total == found.bases.size());
  FUZZ_CHECK(std::set<uint64_t>(found.bases.begin(), found.bases.end()).size() == total);
  return found.bases;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  auto machine = MakeFuzzedMachine();
  Guest& guest = *machine->guest;
  const auto options = input.Take<uint8_t>();
  const uint64_t link = input.Take<uint8_t>() & ~7u;
  const size_t max = input.Take<uint8_t>();
  std::vector<uint64_t> heads;
  for (int i = 0; i < (options >> 4 & 3); ++i)
    heads.push_back(kDirectMap + uint64_t{input.Take<uint16_t>()} * 8);
  guest.is_parallel = (options & 2) != 0;
  guest.is_flat = (options & 4) != 0;
  for (auto writes = input.Take<uint8_t>(); writes > 0; --writes) FuzzedWrite(&input, &guest);

  const int32_t triples[] = {-1, 0, 4, -1, 8, 8, 1, 0, 16, 1, 4200, 8};
  auto plan = std::move(Plan::Create(triples, 12).value());
  // Rows go where there is room for as many as the guest may have, or to a buffer of their own
  // size.
  const size_t capacity = (options & 8) != 0 ? max : 0;
  std::vector<uint8_t> room(RowLayout(*plan, capacity).total);
  const RowBuffer into{capacity == 0 ? nullptr : room.data(), capacity};
  const auto fill = [&](AddressSpace* space, const ListWalk& found) {
    const size_t count = found.bases.size();
    const bool fits = into.bytes != nullptr && count <= capacity;
    std::vector<uint8_t> own(fits ? 0 : RowLayout(*plan, count).total + 1);
    const RowBuffer to = fits ? into : RowBuffer{own.data(), count};
    FUZZ_CHECK(FillRows(space, *plan, found, to).ok());
    const RowLayout layout(*plan, to.capacity);
    std::vector<uint8_t> rows;
    const auto add = [&](uint64_t offset, size_t size) {
      rows.insert(rows.end(), to.bytes + offset, to.bytes + offset + size * count);
    };
    add(0, sizeof(uint32_t));
    add(layout.bases, sizeof(uint64_t));
    for (size_t k = 0; k < plan->columns().size(); ++k)
      add(layout.columns[k], plan->columns()[k].size);
    return rows;
  };
  const auto walk = [&](bool mapped) {
    guest.is_mapped = mapped;
    auto space = machine->Open();
    if ((options & 1) != 0) FUZZ_CHECK(space->SetWindows({{kDirectMap, kFuzzedSize, 0}}).ok());
    // The second and third walk start from what the one before found.
    for (int i = 0; i < 2; ++i) {
      CheckWalk(WalkLists(space.get(), *plan, heads.data(), heads.size(), link, max), heads.size(),
                max);
    }
    const auto found = WalkLists(space.get(), *plan, heads.data(), heads.size(), link, max, into);
    const auto bases = CheckWalk(found, heads.size(), max);
    if (found.ok()) {
      std::vector<uint8_t> rows = fill(space.get(), found.value());
      rows.insert(rows.end(), reinterpret_cast<const uint8_t*>(bases.data()),
                  reinterpret_cast<const uint8_t*>(bases.data() + bases.size()));
      return rows;
    }
    return std::vector<uint8_t>{static_cast<uint8_t>(found.error().code)};
  };
  // Memory that stands still gives the same rows however it is read.
  FUZZ_CHECK(walk(true) == walk(false));

  guest.before_read = [&](size_t) {
    if (!input.empty()) FuzzedWrite(&input, &guest);
  };
  guest.is_mapped = false;
  auto space = machine->Open();
  for (int i = 0; i < 3; ++i) {
    const auto found = WalkLists(space.get(), *plan, heads.data(), heads.size(), link, max, into);
    CheckWalk(found, heads.size(), max);
    if (found.ok()) fill(space.get(), found.value());
  }
  return 0;
}
