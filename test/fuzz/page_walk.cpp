// Translation, walk, mappings and reads over page tables that the fuzzer wrote: they agree, and
// end.
#include "fuzzed_guest.h"

using namespace vmi;
using namespace vmi::test;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  auto machine = MakeFuzzedMachine();
  const auto options = input.Take<uint8_t>();
  machine->guest->is_mapped = (options & 1) != 0;
  const int levels = (options & 2) != 0 ? 5 : 4;
  const uint64_t root = (uint64_t{options} >> 2 & 31) << 12;
  for (auto writes = input.Take<uint8_t>(); writes > 0; --writes)
    FuzzedWrite(&input, machine->guest.get());

  auto memory = Open(machine->guest);
  auto space = std::move(AddressSpace::Create(memory, root, levels).value());
  while (!input.empty()) {
    const auto address = input.Take<uint64_t>();
    const auto steps = space->Walk(address).value();
    const auto physical = space->Translate(address);
    FUZZ_CHECK(steps.size() <= static_cast<size_t>(levels));
    if (physical.ok()) {
      FUZZ_CHECK(!steps.empty());
      const AddressSpace::Step& leaf = steps.back();
      const uint64_t leaf_size = uint64_t{1} << (12 + 9 * (leaf.level - 1));
      FUZZ_CHECK(physical.value() == ((leaf.entry & 0x000f'ffff'ffff'f000 & ~(leaf_size - 1)) |
                                      (address & (leaf_size - 1))));
      const auto around = space->Mappings(address, address, 1);
      FUZZ_CHECK(around.ok() && around.value().size() == 1 &&
                 around.value()[0].physical == physical.value());
    } else {
      const int level = physical.error().fault.level;
      FUZZ_CHECK(level >= 0 && level <= levels);
      FUZZ_CHECK(level == 0 || steps.empty() || steps.back().level == static_cast<uint64_t>(level));
    }
    uint8_t bytes[600];
    const size_t wanted = address % sizeof bytes;
    const size_t read = space->Read(address, bytes, wanted).value();
    FUZZ_CHECK(read <= wanted);
    // One byte at a time comes as far.
    for (size_t i = 0; i < std::min<size_t>(read + 1, wanted) && address + i >= address; i += 97) {
      uint8_t byte;
      FUZZ_CHECK((space->Read(address + i, &byte, 1).value() == 1) == (i < read));
      if (i < read) FUZZ_CHECK(byte == bytes[i]);
    }
  }
  const auto mappings = space->Mappings(0, UINT64_MAX, 2000);
  if (mappings.ok()) {
    uint64_t last = 0;
    for (const Window& window : mappings.value()) {
      FUZZ_CHECK(window.length > 0 && (last == 0 || window.start > last));
      last = window.start + (window.length - 1);
      FUZZ_CHECK(last >= window.start);
    }
  }
  return 0;
}
