// Radix trees that the fuzzer wrote: look-ups end, and find the same however memory is read.
#include "core/lookup/radix_tree.h"
#include "fuzzed_guest.h"

using namespace vmi;
using namespace vmi::test;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  auto machine = MakeFuzzedMachine();
  RadixTree tree = {2, 3, 4096, 0, 40, 6, 30};
  const auto options = input.Take<uint8_t>();
  if ((options & 1) != 0)
    tree = {1, 1, 0, input.Take<uint8_t>(), input.Take<uint16_t>(), 1u + options % 16, 63};
  for (auto writes = input.Take<uint8_t>(); writes > 0; --writes)
    FuzzedWrite(&input, machine->guest.get());
  while (!input.empty()) {
    const uint64_t head = kDirectMap + uint64_t{input.Take<uint16_t>()} * 2;
    const auto index = input.Take<uint32_t>();
    uint64_t found[2] = {};
    for (const bool mapped : {true, false}) {
      machine->guest->is_mapped = mapped;
      auto space = machine->Open();
      const auto entry = LookUp(space.get(), tree, head, index);
      found[mapped] = entry.ok() ? entry.value() : static_cast<uint64_t>(entry.error().code);
    }
    FUZZ_CHECK(found[0] == found[1]);
  }
  return 0;
}
