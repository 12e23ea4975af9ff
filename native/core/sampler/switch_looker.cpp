#include "core/sampler/switch_looker.h"

#include <cstring>

#include <algorithm>
#include <string>
#include <utility>

#include <time.h>

namespace vmi {

namespace {

// cpu_tlbstate.loaded_mm in the middle of a switch. arch/x86/include/asm/tlbflush.h.
constexpr uint64_t kLoadedMmSwitching = 1;
// How long a switch that is under way is looked at, nanoseconds. It takes a CPU that runs a
// microsecond, an emulated one some ten; one that the host has taken off its core takes any time.
constexpr uint64_t kSettle = 40'000;
// The same where each look is a system call.
constexpr int kCopiedAttempts = 4;
// A count that went this far has gone back: the guest was reset.
constexpr uint64_t kMaxStep = uint64_t{1} << 40;
constexpr size_t kHeadWords = 4;
constexpr uint64_t kMaxOffset = uint64_t{1} << 20;

Status Misuse(const std::string& what) { return {Code::kMisuse, "Expected " + what}; }

bool IsAligned(uint64_t address) { return address == SwitchLayout::kAbsent || address % 8 == 0; }

}  // namespace

uint64_t MonotonicNow() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

Status SwitchLayout::Check() const {
  if (cpus.empty() || cpus.size() > kMaxCpus) return Misuse("1 to 1024 CPUs");
  if (windows.empty() || windows.size() > kMaxWindows) return Misuse("1 to 256 windows");
  for (const Cpu& cpu : cpus) {
    if (cpu.curr == kAbsent && cpu.current == kAbsent)
      return Misuse("the address of a CPU's current task");
    for (const uint64_t address : {cpu.count, cpu.curr, cpu.current, cpu.loaded_mm}) {
      if (!IsAligned(address)) return Misuse("addresses that are multiples of 8");
    }
    if (cpu.lock != kAbsent && cpu.lock % 4 != 0)
      return Misuse("addresses of locks that are multiples of 4");
  }
  const bool has_arrival = task.last_arrival != kAbsent;
  const bool has_lock = task.lock != kAbsent;
  for (const uint64_t offset :
       {has_arrival ? task.last_arrival : 0, has_lock ? task.lock : 0, task.mm, task.start_time,
        pgd, task.pid, task.tgid, task.flags, task.comm}) {
    if (offset > kMaxOffset || offset % 4 != 0)
      return Misuse("offsets that are multiples of 4 up to 2^20");
  }
  return {};
}

SwitchLooker::SwitchLooker(Memory* memory, SwitchLayout layout)
    : layout_(std::move(layout)),
      reader_(memory),
      is_mapped_(memory->mapped()),
      states_(layout_.cpus.size()) {}

uint64_t SwitchLooker::ToPhysical(uint64_t address, uint64_t length) const {
  for (const SwitchLayout::Window& window : layout_.windows) {
    const uint64_t from = address - window.virtual_start;
    if (from < window.length && length <= window.length - from) return window.physical + from;
  }
  return UINT64_MAX;
}

// Appends what makes `head` of a CPU; the words that are absent stay as they are.
size_t SwitchLooker::HeadReads(size_t cpu, Head* head, WordRead* reads) const {
  const SwitchLayout::Cpu& at = layout_.cpus[cpu];
  size_t count = 0;
  const auto add = [&](uint64_t physical, uint64_t* into) {
    if (physical != SwitchLayout::kAbsent) reads[count++] = {physical, into, sizeof *into};
  };
  add(at.count, &head->count);
  add(at.curr, &head->curr);
  add(at.current, &head->current);
  add(at.loaded_mm, &head->loaded_mm);
  return count;
}

bool SwitchLooker::ReadHeads() {
  WordRead reads[WordReader::kMaxBatch];
  started_ = MonotonicNow();
  size_t count = 0;
  for (size_t cpu = 0; cpu < states_.size(); ++cpu) {
    count += HeadReads(cpu, &states_[cpu].head, reads + count);
    if (cpu + 1 < states_.size() && count + kHeadWords <= WordReader::kMaxBatch) continue;
    if (!reader_.Read(reads, count)) {
      ++counters_.unreadable;
      return false;
    }
    count = 0;
  }
  for (size_t cpu = 0; cpu < states_.size(); ++cpu) Complete(cpu, &states_[cpu].head);
  return true;
}

// One of the two names of the running task stands in for the other where that is absent.
void SwitchLooker::Complete(size_t cpu, Head* head) const {
  if (layout_.cpus[cpu].curr == SwitchLayout::kAbsent) head->curr = head->current;
  if (layout_.cpus[cpu].current == SwitchLayout::kAbsent) head->current = head->curr;
}

// Reads what hangs on `head`, and the head again after it, in one batch.
bool SwitchLooker::ReadDetail(size_t cpu, const Head& head, Detail* detail, Head* after) {
  WordRead reads[WordReader::kMaxBatch];
  size_t count = 0;
  bool is_there = true;
  const auto add = [&](uint64_t address, void* into, uint32_t length) {
    const uint64_t physical = ToPhysical(address, length);
    is_there = is_there && physical != UINT64_MAX;
    reads[count++] = {physical, into, length};
  };
  const SwitchLayout::Task& task = layout_.task;
  if (layout_.cpus[cpu].lock != SwitchLayout::kAbsent)
    reads[count++] = {layout_.cpus[cpu].lock, &detail->queue_lock, 4};
  if (task.last_arrival != SwitchLayout::kAbsent)
    add(head.curr + task.last_arrival, &detail->last_arrival, 8);
  add(head.curr + task.pid, &detail->pid, 4);
  add(head.curr + task.tgid, &detail->tgid, 4);
  add(head.curr + task.flags, &detail->flags, 4);
  add(head.curr + task.mm, &detail->mm, 8);
  add(head.curr + task.start_time, &detail->start_time, 8);
  if (head.loaded_mm > kLoadedMmSwitching) add(head.loaded_mm + layout_.pgd, &detail->pgd, 8);
  // A name that is being written is two words of two names for a moment, or for as long as the host
  // keeps the CPU off its core. Free before and after the first look, equal in the second: whole.
  if (task.lock != SwitchLayout::kAbsent) add(head.curr + task.lock, &detail->lock, 4);
  add(head.curr + task.comm, detail->comm, 16);
  if (task.lock != SwitchLayout::kAbsent) add(head.curr + task.lock, &detail->lock_again, 4);
  add(head.curr + task.comm, detail->comm_again, 16);
  count += HeadReads(cpu, after, reads + count);
  if (!is_there || !reader_.Read(reads, count)) return false;
  Complete(cpu, after);
  return true;
}

// Whether the tuple is of one moment and of one task.
bool SwitchLooker::IsWhole(const State& state, const Head& head, const Detail& detail) const {
  if (head.current != head.curr || head.loaded_mm == kLoadedMmSwitching) return false;
  if (detail.queue_lock != 0) return false;
  if (detail.lock != 0 || detail.lock_again != 0) return false;
  if (std::memcmp(detail.comm, detail.comm_again, sizeof detail.comm) != 0) return false;
  if (!state.is_known || head.count == state.seen.count || head.curr != state.seen.curr)
    return true;
  // The task that was seen, and a higher count. Either it is back, or the count is up and the next
  // task not named yet: then it has not arrived anew, and one switch cannot lead from a task to
  // itself.
  if (head.count - state.seen.count == 1) return false;
  return detail.last_arrival == 0 || detail.last_arrival != state.last_arrival;
}

// Reads the head of one CPU again; false: it cannot be read.
bool SwitchLooker::ReadHead(size_t cpu, Head* head) {
  WordRead reads[kHeadWords];
  if (!reader_.Read(reads, HeadReads(cpu, head, reads))) return false;
  Complete(cpu, head);
  return true;
}

bool SwitchLooker::Settle(size_t cpu, SwitchRecord* record) {
  State& state = states_[cpu];
  const bool knows_loaded = layout_.cpus[cpu].loaded_mm != SwitchLayout::kAbsent;
  const uint64_t begun = MonotonicNow();
  Head head = state.head;
  for (int attempt = 0;; ++attempt) {
    Detail detail;
    Head after = head;
    const bool is_read = head.curr % 8 == 0 && ReadDetail(cpu, head, &detail, &after);
    const uint64_t now = MonotonicNow();
    const bool is_late = is_mapped_ ? now - begun > kSettle : attempt >= kCopiedAttempts;
    // A kernel thread runs on whatever is loaded; a task with an mm on its own, unless the kernel
    // has loaded another one for a while (efi_mm, poking_mm) or executes a program just then.
    const bool is_own = detail.mm == 0 || !knows_loaded || detail.mm == head.loaded_mm;
    if (is_read && after == head && IsWhole(state, head, detail) && (is_own || is_late)) {
      *record = MakeRecord(cpu, now, detail);
      if (!is_own) record->flags |= SwitchRecord::kForeignSpace;
      return true;
    }
    if (is_late) {
      ++(is_read ? counters_.torn : counters_.unreadable);
      return false;
    }
    if (is_read) {
      head = after;
    } else if (!ReadHead(cpu, &head)) {
      ++counters_.unreadable;
      return false;
    }
    state.head = head;
  }
}

// Of state.head and what hangs on it; the state is then that this was seen.
SwitchRecord SwitchLooker::MakeRecord(size_t cpu, uint64_t now, const Detail& detail) {
  State& state = states_[cpu];
  const uint64_t cr3 = detail.pgd == 0 ? UINT64_MAX : ToPhysical(detail.pgd, kPageSize);
  SwitchRecord record;
  record.time = now;
  record.before = state.before;
  record.count = state.head.count;
  record.cpu = cpu;
  record.task = state.head.curr;
  record.last_arrival = detail.last_arrival;
  record.start_time = detail.start_time;
  record.mm = detail.mm;
  record.loaded_mm = state.head.loaded_mm;
  record.cr3 = cr3 == UINT64_MAX || cr3 % kPageSize != 0 ? 0 : cr3;
  record.ids = detail.pid | static_cast<uint64_t>(detail.tgid) << 32;
  record.task_flags = detail.flags;
  std::memcpy(record.comm, detail.comm, sizeof record.comm);
  state.is_known = true;
  state.seen = state.head;
  state.last_arrival = detail.last_arrival;
  state.before = now;
  return record;
}

// How many switches lie between the last record that found a place and this one.
void SwitchLooker::Account(State* state, SwitchRecord* record) {
  const uint64_t step = record->count - state->delivered;
  const bool was_first = state->is_first;
  state->is_first = false;
  if (layout_.cpus[record->cpu].count == SwitchLayout::kAbsent) {
    record->flags |= SwitchRecord::kUncounted;
  } else if (!state->is_delivered || step > kMaxStep || (step == 0 && was_first)) {
    record->flags |= SwitchRecord::kFirst;
    state->is_first = true;
    state->debt = 0;
  } else if (step == 0) {
    // The last record was of the moment between the count and the name: it was of the switch
    // before, which was counted as missed.
    ++state->debt;
  } else {
    const uint64_t paid = std::min(state->debt, step - 1);
    record->missed = step - 1 - paid;
    state->debt -= paid;
  }
}

void SwitchLooker::Delivered(State* state, const SwitchRecord& record) {
  state->is_delivered = true;
  state->delivered = record.count;
}

}  // namespace vmi
