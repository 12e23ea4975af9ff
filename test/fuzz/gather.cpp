// Any plan over any memory: mapped and batched gathers give the same rows, and a plan is refused or
// works.
#include "core/gather/gatherer.h"
#include "fuzzed_guest.h"

using namespace vmi;
using namespace vmi::test;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  auto machine = MakeFuzzedMachine();
  Guest& guest = *machine->guest;
  const auto options = input.Take<uint8_t>();
  for (auto writes = input.Take<uint8_t>(); writes > 0; --writes) FuzzedWrite(&input, &guest);
  std::vector<uint64_t> bases;
  for (int i = options & 15; i > 0; --i) {
    const auto where = input.Take<uint32_t>();
    bases.push_back(where % 8 == 0 ? input.Take<uint64_t>() : kDirectMap + where % kFuzzedSize);
  }
  std::vector<int32_t> triples;
  while (!input.empty() && triples.size() < 33 * 3) {
    const auto from = input.Take<uint8_t>();
    triples.push_back(static_cast<int32_t>(from % 33) - 1);
    triples.push_back(from >= 200 ? input.Take<int32_t>() : input.Take<int16_t>());
    const auto bytes = input.Take<uint16_t>();
    triples.push_back(bytes % 3 != 0 ? 8 : bytes % 4100);
  }
  auto created = Plan::Create(triples.data(), triples.size());
  if (!created.ok()) {
    FUZZ_CHECK(created.error().code == Code::kMisuse);
    return 0;
  }
  const Plan& plan = *created.value();

  guest.is_parallel = (options & 64) != 0;
  guest.is_flat = (options & 128) != 0;
  std::vector<uint8_t> rows[2];
  for (const bool mapped : {true, false}) {
    guest.is_mapped = mapped;
    auto space = machine->Open();
    if ((options & 16) != 0) FUZZ_CHECK(space->SetWindows({{kDirectMap, kFuzzedSize, 0}}).ok());
    // Two that meet in the middle of a page. (One that contradicts the page table has no right
    // answer.)
    if ((options & 32) != 0) {
      FUZZ_CHECK(space
                     ->SetWindows({{kDirectMap, 0x5123, 0},
                                   {kDirectMap + 0x5123, kFuzzedSize - 0x5123, 0x5123}})
                     .ok());
    }
    Gatherer gatherer(space.get());
    rows[mapped].assign(RowLayout(plan, bases.size()).total, 0);
    // Twice: the second finds the pages that the first came to know, and cells that are not zero.
    for (int i = 0; i < 2; ++i)
      FUZZ_CHECK(
          gatherer.Gather(plan, bases.data(), bases.size(), {rows[mapped].data(), bases.size()})
              .ok());
  }
  FUZZ_CHECK(rows[0] == rows[1]);
  return 0;
}
