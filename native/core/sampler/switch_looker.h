// Looks at what each CPU of a guest runs, and says what changed since the last look.
//
// __schedule() writes, in this order: rq->nr_switches, rq->curr, the next task's
// sched_info.last_arrival, cpu_tlbstate.loaded_mm (1 while it switches), and the current task in
// __switch_to. A tuple of them is of one moment when the count, the two ways to name the task and
// the loaded mm are the same before and after the rest was read, and both ways name one task.
// Between the first two writes all of that is so, and yet the count is the next task's. The run
// queue's lock is held from before the first write to after the last: while it is free no switch is
// under way. Where a kernel does not show the lock, what such a tuple says is made good later.
// kernel/sched/core.c, kernel/sched/stats.h, arch/x86/mm/tlb.c, arch/x86/kernel/process_64.c.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/memory.h"
#include "core/result.h"
#include "core/sampler/switch_record.h"
#include "core/sampler/word_reader.h"

namespace vmi {

// Where a kernel keeps what is looked at; what native code knows of it. kAbsent: it does not.
struct SwitchLayout {
  static constexpr uint64_t kAbsent = UINT64_MAX;
  static constexpr size_t kMaxCpus = 1024;
  static constexpr size_t kMaxWindows = 256;

  // Physical addresses; all but `lock`, which is 4-aligned, are 8-aligned.
  struct Cpu {
    // rq.nr_switches and rq.curr.
    uint64_t count = kAbsent;
    uint64_t curr = kAbsent;
    // The CPU's current task, written last; at least one of the two has to be there.
    uint64_t current = kAbsent;
    uint64_t loaded_mm = kAbsent;
    // The word of the run queue's lock that is 0 while it is free.
    uint64_t lock = kAbsent;
  };
  // A run of virtual addresses at a run of physical ones.
  struct Window {
    uint64_t virtual_start = 0;
    uint64_t length = 0;
    uint64_t physical = 0;
  };
  // Offsets in task_struct; last_arrival and lock may be absent.
  struct Task {
    uint64_t last_arrival = kAbsent;
    uint64_t pid = 0;
    uint64_t tgid = 0;
    uint64_t flags = 0;
    uint64_t mm = 0;
    uint64_t start_time = 0;
    uint64_t comm = 0;
    // A word that is not 0 while somebody writes comm: the lock that is held for it.
    uint64_t lock = kAbsent;
  };

  std::vector<Cpu> cpus;
  std::vector<Window> windows;
  Task task;
  // Offset of mm_struct.pgd.
  uint64_t pgd = 0;

  // kMisuse for what cannot be meant.
  Status Check() const;
};

class SwitchLooker {
 public:
  struct Counters {
    // Looks at a CPU in the middle of a switch that did not settle while it was looked at.
    uint64_t torn = 0;
    // Looks at a CPU whose words, or whose task's, could not be read.
    uint64_t unreadable = 0;
  };

  SwitchLooker(Memory* memory, SwitchLayout layout);

  // Looks at every CPU. Calls emit(record) for each change; false from it: the record found no
  // place, so the next one of this CPU counts its switch as missed.
  template <typename Emit>
  void Look(Emit&& emit) {
    if (!ReadHeads()) return;
    for (size_t cpu = 0; cpu < states_.size(); ++cpu) {
      State& state = states_[cpu];
      if (state.is_known && state.head.count == state.seen.count &&
          state.head.curr == state.seen.curr) {
        state.before = started_;
        continue;
      }
      SwitchRecord record;
      if (!Settle(cpu, &record)) continue;
      Account(&state, &record);
      if (emit(record)) Delivered(&state, record);
    }
  }

  const Counters& counters() const { return counters_; }
  size_t cpus() const { return states_.size(); }

 private:
  struct Head {
    uint64_t count = 0;
    uint64_t curr = 0;
    uint64_t current = 0;
    uint64_t loaded_mm = 0;
    bool operator==(const Head& other) const {
      return count == other.count && curr == other.curr && current == other.current &&
             loaded_mm == other.loaded_mm;
    }
  };
  struct Detail {
    uint64_t last_arrival = 0;
    uint64_t mm = 0;
    uint64_t start_time = 0;
    uint64_t pgd = 0;
    uint32_t pid = 0;
    uint32_t tgid = 0;
    uint32_t flags = 0;
    uint32_t lock = 0;
    uint32_t lock_again = 0;
    uint32_t queue_lock = 0;
    uint8_t comm[16] = {};
    uint8_t comm_again[16] = {};
  };
  struct State {
    Head head;
    // What the last record said; `is_known`: there was one.
    bool is_known = false;
    Head seen;
    uint64_t last_arrival = 0;
    // Host time of the last look that saw the same.
    uint64_t before = 0;
    // Of records that found a place: the count, and switches that were counted once too often.
    bool is_delivered = false;
    bool is_first = false;
    uint64_t delivered = 0;
    uint64_t debt = 0;
  };

  bool ReadHeads();
  bool ReadHead(size_t cpu, Head* head);
  size_t HeadReads(size_t cpu, Head* head, WordRead* reads) const;
  void Complete(size_t cpu, Head* head) const;
  bool ReadDetail(size_t cpu, const Head& head, Detail* detail, Head* after);
  bool Settle(size_t cpu, SwitchRecord* record);
  SwitchRecord MakeRecord(size_t cpu, uint64_t now, const Detail& detail);
  bool IsWhole(const State& state, const Head& head, const Detail& detail) const;
  void Account(State* state, SwitchRecord* record);
  void Delivered(State* state, const SwitchRecord& record);
  // UINT64_MAX: in no window.
  uint64_t ToPhysical(uint64_t address, uint64_t length) const;

  SwitchLayout layout_;
  WordReader reader_;
  bool is_mapped_;
  std::vector<State> states_;
  // Host time when the last look began.
  uint64_t started_ = 0;
  Counters counters_;
};

// CLOCK_MONOTONIC, nanoseconds.
uint64_t MonotonicNow();

}  // namespace vmi
