// One switch as the sampler saw it: what its ring holds and what JavaScript decodes.
#pragma once

#include <cstdint>

namespace vmi {

// 16 words. lib/monitor/switch-record.ts reads them in this order.
struct SwitchRecord {
  enum Flags : uint64_t {
    // Nothing was seen of this CPU before, or its count went back: `missed` means nothing.
    kFirst = 1,
    // The kernel does not show its count of switches: `missed` means nothing.
    kUncounted = 2,
    // The task has an mm of its own and the CPU had another one loaded for as long as was looked.
    kForeignSpace = 4,
  };

  // Host time, CLOCK_MONOTONIC in nanoseconds: the look that saw the switch, and the last look
  // before it that did not, 0 where there was none. The switch lies between them.
  uint64_t time = 0;
  uint64_t before = 0;
  // rq.nr_switches, and how many of those since the last record of this CPU have none.
  uint64_t count = 0;
  uint64_t missed = 0;
  uint64_t cpu = 0;
  uint64_t flags = 0;
  // Address of the running task_struct, and members of it.
  uint64_t task = 0;
  uint64_t last_arrival = 0;
  uint64_t start_time = 0;
  uint64_t mm = 0;
  // cpu_tlbstate.loaded_mm, and the physical address of its page directory; 0: not known.
  uint64_t loaded_mm = 0;
  uint64_t cr3 = 0;
  // pid, tgid << 32.
  uint64_t ids = 0;
  // task_struct.flags.
  uint64_t task_flags = 0;
  uint8_t comm[16] = {};
};

constexpr unsigned kRecordWords = 16;
static_assert(sizeof(SwitchRecord) == kRecordWords * sizeof(uint64_t), "no padding");

}  // namespace vmi
