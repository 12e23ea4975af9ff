// List walks over memory that the fuzzer wrote, and that it goes on writing while the walk reads:
// they end, never report a node twice, and never more than allowed.
#include <ctime>
#include <set>

#include "core/lists/list_walker.h"
#include "fuzzed_guest.h"

using namespace vmi;
using namespace vmi::test;

// A walk waits for a guest that is in the middle of a change; this one never is.
extern "C" int nanosleep(const timespec*, timespec*) { return 0; }

namespace {

std::vector<uint64_t> CheckWalk(const Status& walk, const ListWalker& walker, size_t heads,
                                size_t max) {
  if (!walk.ok()) {
    FUZZ_CHECK(walk.error().code == Code::kCorrupt || walk.error().code == Code::kFault);
    FUZZ_CHECK(walk.error().found <= max);
    return {1};
  }
  const std::vector<uint64_t>& nodes = walker.nodes();
  FUZZ_CHECK(nodes.size() <= max && walker.counts().size() == heads);
  size_t total = 0;
  for (const uint32_t count : walker.counts()) total += count;
  FUZZ_CHECK(total == nodes.size());
  FUZZ_CHECK(std::set<uint64_t>(nodes.begin(), nodes.end()).size() == total);
  return nodes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  auto machine = MakeFuzzedMachine();
  Guest& guest = *machine->guest;
  const auto options = input.Take<uint8_t>();
  const uint32_t link = input.Take<uint8_t>() & ~7u;
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
  std::vector<uint8_t> bytes(RowLayout(*plan, capacity).total);
  const RowBuffer into{capacity == 0 ? nullptr : bytes.data(), capacity};
  const auto fill = [&](ListWalker* walker) {
    const size_t count = walker->nodes().size();
    const bool fits = into.bytes != nullptr && count <= capacity;
    std::vector<uint8_t> own(fits ? 0 : RowLayout(*plan, count).total + 1);
    const RowBuffer to = fits ? into : RowBuffer{own.data(), count};
    FUZZ_CHECK(walker->Fill(to).ok());
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
    auto walker = std::move(ListWalker::Create(space.get(), *plan, link).value());
    for (int i = 0; i < 2; ++i)
      CheckWalk(walker->Walk(heads.data(), heads.size(), max), *walker, heads.size(), max);
    const Status found = walker->Walk(heads.data(), heads.size(), max, into);
    const auto nodes = CheckWalk(found, *walker, heads.size(), max);
    if (!found.ok()) return std::vector<uint8_t>{static_cast<uint8_t>(found.error().code)};
    std::vector<uint8_t> rows = fill(walker.get());
    rows.insert(rows.end(), reinterpret_cast<const uint8_t*>(nodes.data()),
                reinterpret_cast<const uint8_t*>(nodes.data() + nodes.size()));
    return rows;
  };
  // Memory that stands still gives the same rows however it is read.
  FUZZ_CHECK(walk(true) == walk(false));

  guest.before_read = [&](size_t) {
    if (!input.empty()) FuzzedWrite(&input, &guest);
  };
  guest.is_mapped = false;
  auto space = machine->Open();
  auto walker = std::move(ListWalker::Create(space.get(), *plan, link).value());
  for (int i = 0; i < 3; ++i) {
    const Status found = walker->Walk(heads.data(), heads.size(), max, into);
    CheckWalk(found, *walker, heads.size(), max);
    if (found.ok()) fill(walker.get());
  }
  return 0;
}
