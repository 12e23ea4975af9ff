// List walks over memory that the fuzzer wrote, and that it goes on writing while the walk reads: they end, never
// report a node twice, and never more than allowed.
#include <ctime>
#include <set>

#include "core/lists.h"
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
  for (int i = 0; i < (options >> 4 & 3); ++i) heads.push_back(kDirectMap + uint64_t{input.Take<uint16_t>()} * 8);
  guest.is_parallel = (options & 2) != 0;
  guest.is_flat = (options & 4) != 0;
  for (auto writes = input.Take<uint8_t>(); writes > 0; --writes) FuzzedWrite(&input, &guest);

  const int32_t triples[] = {-1, 0, 4, -1, 8, 8, 1, 0, 16};
  auto plan = std::move(Plan::Create(triples, 9).value());
  const auto walk = [&](bool mapped) {
    guest.is_mapped = mapped;
    auto space = machine->Open();
    if ((options & 1) != 0) FUZZ_CHECK(space->SetWindows({{kDirectMap, kFuzzedSize, 0}}).ok());
    // Twice: the second walk starts from what the first found.
    CheckWalk(WalkLists(space.get(), *plan, heads.data(), heads.size(), link, max), heads.size(), max);
    const auto found = WalkLists(space.get(), *plan, heads.data(), heads.size(), link, max);
    const auto bases = CheckWalk(found, heads.size(), max);
    if (found.ok()) {
      std::vector<uint8_t> rows(RowLayout(*plan, bases.size()).total + 1);
      FUZZ_CHECK(FillRows(space.get(), *plan, found.value(), {rows.data(), bases.size()}).ok());
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
  for (int i = 0; i < 2; ++i) {
    const auto found = WalkLists(space.get(), *plan, heads.data(), heads.size(), link, max);
    const auto bases = CheckWalk(found, heads.size(), max);
    std::vector<uint8_t> rows(RowLayout(*plan, bases.size()).total);
    if (found.ok()) FUZZ_CHECK(FillRows(space.get(), *plan, found.value(), {rows.data(), bases.size()}).ok());
  }
  return 0;
}
