// The sampler: one moment a record, every switch either seen or counted, no thread left behind.
#include "core/sampler/sampler.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include <unistd.h>

#include "check.h"
#include "fake_source.h"

namespace vmi::test {
namespace {

constexpr uint64_t kDirect = 0xffff'8880'0000'0000;
// Physical addresses of one CPU's words; those of the next CPU are 256 further.
constexpr uint64_t kCount = 0x1000;
constexpr uint64_t kCurr = 0x1008;
constexpr uint64_t kCurrent = 0x1040;
constexpr uint64_t kLoaded = 0x1080;
constexpr uint64_t kLock = 0x10c4;
constexpr uint64_t kPerCpu = 0x100;
// Tasks of 256 bytes, mms of 64, page directories of a page.
constexpr uint64_t kTasks = 0x4000;
constexpr uint64_t kMms = 0x8000;
constexpr uint64_t kPgds = 0x10000;
constexpr uint64_t kSize = 0x40000;
constexpr uint64_t kSwitching = 1;
// Task 0 is idle; tasks from kThreads on are kernel threads.
constexpr uint64_t kThreads = 12;
constexpr uint64_t kTaskCount = 16;

// A kernel that switches as __schedule() does, one store at a time.
struct Scheduler {
  Scheduler() : guest(std::make_shared<Guest>(kSize)) {
    for (uint64_t task = 0; task < kTaskCount; ++task) {
      Store(TaskAt(task) + 8, (100 + task) | (200 + task) << 32);
      Store(TaskAt(task) + 16, task >= kThreads || task == 0 ? 0 : kDirect + MmAt(task));
      Store(TaskAt(task) + 24, 5000 + task);
      Store(TaskAt(task) + 32, 0x4000 + task);
      Store(TaskAt(task) + 40, 0x6b73'6174'0000'0000 | task);
      Store(MmAt(task) + 16, kDirect + kPgds + task * kPageSize);
    }
    for (uint64_t cpu = 0; cpu < 2; ++cpu) {
      Store(kCurr + cpu * kPerCpu, kDirect + TaskAt(0));
      Store(kCurrent + cpu * kPerCpu, kDirect + TaskAt(0));
      Store(kLoaded + cpu * kPerCpu, kDirect + MmAt(1));
    }
  }

  static uint64_t TaskAt(uint64_t task) { return kTasks + task * 256; }
  static uint64_t MmAt(uint64_t task) { return kMms + task * 64; }

  void Store(uint64_t physical, uint64_t value) {
    auto* at = reinterpret_cast<uint64_t*>(guest->At(physical));
    __atomic_store_n(at, value, __ATOMIC_RELEASE);
  }

  static constexpr int kSteps = 6;
  // One store of a switch to `task`, the count's first; `arrival` is the task's.
  void Step(int step, uint64_t task, uint64_t arrival, uint64_t cpu = 0) {
    const uint64_t at = cpu * kPerCpu;
    const bool has_mm = task != 0 && task < kThreads;
    switch (step) {
      case 0:
        return Store(kCount + at, ++count[cpu]);
      case 1:
        return Store(kCurr + at, kDirect + TaskAt(task));
      case 2:
        return task == 0 ? void() : Store(TaskAt(task), arrival);
      case 3:
        return has_mm ? Store(kLoaded + at, kSwitching) : void();
      case 4:
        return has_mm ? Store(kLoaded + at, kDirect + MmAt(task)) : void();
      case 5:
        return Store(kCurrent + at, kDirect + TaskAt(task));
      default:
        return;
    }
  }
  void Switch(uint64_t task, uint64_t arrival, uint64_t cpu = 0) {
    Lock(true, cpu);
    for (int step = 0; step < kSteps; ++step) Step(step, task, arrival, cpu);
    Lock(false, cpu);
  }
  void Lock(bool is_held, uint64_t cpu = 0) {
    const uint32_t word = is_held ? 1 : 0;
    auto* at = reinterpret_cast<uint32_t*>(guest->At(kLock + cpu * kPerCpu));
    __atomic_store_n(at, word, __ATOMIC_RELEASE);
  }

  static SwitchLayout Layout(size_t cpus = 1) {
    SwitchLayout layout;
    for (uint64_t cpu = 0; cpu < cpus; ++cpu) {
      const uint64_t at = cpu * kPerCpu;
      layout.cpus.push_back({kCount + at, kCurr + at, kCurrent + at, kLoaded + at});
    }
    layout.windows = {{kDirect, kSize, 0}};
    layout.task = {0, 8, 12, 32, 16, 24, 40, 56};
    layout.pgd = 16;
    return layout;
  }

  static SwitchLayout LayoutWithLock(size_t cpus = 1) {
    SwitchLayout layout = Layout(cpus);
    for (uint64_t cpu = 0; cpu < cpus; ++cpu) layout.cpus[cpu].lock = kLock + cpu * kPerCpu;
    return layout;
  }

  std::shared_ptr<Guest> guest;
  uint64_t count[2] = {};
};

// The records of one look.
std::vector<SwitchRecord> Look(SwitchLooker* looker, bool has_place = true) {
  std::vector<SwitchRecord> records;
  looker->Look([&](const SwitchRecord& record) {
    if (has_place) records.push_back(record);
    return has_place;
  });
  return records;
}

uint64_t TaskOf(const SwitchRecord& record) { return (record.task - kDirect - kTasks) / 256; }

TEST(a_record_has_what_the_cpu_runs) {
  for (const bool is_mapped : {true, false}) {
    Scheduler scheduler;
    scheduler.guest->is_mapped = is_mapped;
    const auto memory = Open(scheduler.guest);
    SwitchLooker looker(memory.get(), Scheduler::Layout());
    std::vector<SwitchRecord> records = Look(&looker);
    EQUAL(records.size(), 1u);
    EQUAL(records[0].flags, SwitchRecord::kFirst);
    EQUAL(records[0].before, 0u);
    EQUAL(records[0].cr3, kPgds + kPageSize);
    EQUAL(Look(&looker).size(), 0u);

    scheduler.Switch(3, 777);
    records = Look(&looker);
    EQUAL(records.size(), 1u);
    const SwitchRecord& record = records[0];
    EQUAL(TaskOf(record), 3u);
    EQUAL(record.flags, 0u);
    EQUAL(record.missed, 0u);
    EQUAL(record.count, 1u);
    EQUAL(record.last_arrival, 777u);
    EQUAL(record.start_time, 5003u);
    EQUAL(record.ids, 103u | uint64_t{203} << 32);
    EQUAL(record.mm, kDirect + Scheduler::MmAt(3));
    EQUAL(record.loaded_mm, record.mm);
    EQUAL(record.cr3, kPgds + 3 * kPageSize);
    EQUAL(record.task_flags, 0x4003u);
    EQUAL(record.comm[0], 3u);
    CHECK(record.before != 0 && record.before <= record.time);

    // A kernel thread borrows what is loaded, also once the kernel has replaced it.
    scheduler.Switch(kThreads, 888);
    scheduler.Store(kLoaded, kDirect + Scheduler::MmAt(0));
    records = Look(&looker);
    EQUAL(records.size(), 1u);
    EQUAL(records[0].mm, 0u);
    EQUAL(records[0].cr3, kPgds);
  }
}

TEST(counts_what_it_did_not_see) {
  Scheduler scheduler;
  const auto memory = Open(scheduler.guest);
  SwitchLooker looker(memory.get(), Scheduler::Layout());
  Look(&looker);
  for (uint64_t task = 1; task < 6; ++task) scheduler.Switch(task, task);
  std::vector<SwitchRecord> records = Look(&looker);
  EQUAL(records.size(), 1u);
  EQUAL(records[0].missed, 4u);
  // Away and back to the same task, which arrived anew.
  scheduler.Switch(1, 50);
  scheduler.Switch(5, 60);
  records = Look(&looker);
  EQUAL(records.size(), 1u);
  EQUAL(records[0].missed, 1u);
  // The idle task has no arrival: its count alone tells.
  scheduler.Switch(0, 0);
  EQUAL(Look(&looker)[0].missed, 0u);
  scheduler.Switch(2, 70);
  scheduler.Switch(0, 0);
  EQUAL(Look(&looker)[0].missed, 1u);
}

TEST(a_switch_under_way_has_no_name) {
  Scheduler scheduler;
  const auto memory = Open(scheduler.guest);
  SwitchLooker looker(memory.get(), Scheduler::Layout());
  Look(&looker);
  scheduler.Switch(2, 10);
  Look(&looker);
  for (int step = 0; step + 1 < Scheduler::kSteps; ++step) {
    scheduler.Step(step, 4, 20);
    EQUAL(Look(&looker).size(), 0u);
  }
  CHECK(looker.counters().torn >= 5);
  scheduler.Step(5, 4, 20);
  const std::vector<SwitchRecord> records = Look(&looker);
  EQUAL(records.size(), 1u);
  EQUAL(TaskOf(records[0]), 4u);
  EQUAL(records[0].missed, 0u);
  // One switch cannot lead from a task to itself, not even where the task's arrival is another one:
  // the count is up, and the next task not named yet.
  scheduler.Step(0, 7, 40);
  scheduler.Store(Scheduler::TaskAt(4), 30);
  EQUAL(Look(&looker).size(), 0u);
}

// Where nothing was known of the task that goes, the count is one too high for a moment.
TEST(a_count_that_was_early_is_made_good) {
  Scheduler scheduler;
  const auto memory = Open(scheduler.guest);
  SwitchLooker looker(memory.get(), Scheduler::Layout());
  uint64_t told = 0;
  const auto look = [&] {
    for (const SwitchRecord& record : Look(&looker)) {
      if ((record.flags & SwitchRecord::kFirst) == 0) told += 1 + record.missed;
    }
  };
  look();
  scheduler.Switch(2, 10);
  scheduler.Step(0, 4, 20);
  // Switch 1 as number 2, with one missed that was none.
  look();
  for (int step = 1; step < Scheduler::kSteps; ++step) scheduler.Step(step, 4, 20);
  look();
  for (uint64_t task = 5; task < 8; ++task) scheduler.Switch(task, 30 + task);
  look();
  EQUAL(told, scheduler.count[0]);
}

// The idle task has no arrival, so that nothing of its own says whether it is back or about to go.
TEST(a_count_that_is_up_before_the_next_task_is_named_is_not_told) {
  for (const bool is_mapped : {true, false}) {
    for (const uint64_t back : {uint64_t{0}, uint64_t{2}}) {
      Scheduler scheduler;
      scheduler.guest->is_mapped = is_mapped;
      const auto memory = Open(scheduler.guest);
      SwitchLooker looker(memory.get(), Scheduler::LayoutWithLock());
      scheduler.Switch(back, 10);
      EQUAL(Look(&looker).size(), 1u);
      scheduler.Switch(4, 20);
      scheduler.Switch(back, 30);
      scheduler.Lock(true);
      for (int step = 0; step < Scheduler::kSteps; ++step) {
        scheduler.Step(step, 5, 40);
        EQUAL(Look(&looker).size(), 0u);
      }
      CHECK(looker.counters().torn > 0);
      scheduler.Lock(false);
      const std::vector<SwitchRecord> records = Look(&looker);
      EQUAL(records.size(), 1u);
      EQUAL(TaskOf(records[0]), 5u);
      EQUAL(records[0].count, 4u);
      EQUAL(records[0].missed, 2u);
    }
  }
}

// strscpy() stores a word at a time, under task_lock().
TEST(a_name_that_is_being_written_is_none) {
  for (const bool is_mapped : {true, false}) {
    Scheduler scheduler;
    scheduler.guest->is_mapped = is_mapped;
    const auto memory = Open(scheduler.guest);
    SwitchLooker looker(memory.get(), Scheduler::Layout());
    Look(&looker);
    const uint64_t comm = Scheduler::TaskAt(2) + 40;
    scheduler.Store(Scheduler::TaskAt(2) + 56, 1);
    scheduler.Store(comm, 0x1111'1111'1111'1111);
    scheduler.Switch(2, 10);
    EQUAL(Look(&looker).size(), 0u);
    scheduler.Store(comm + 8, 0x22);
    scheduler.Store(Scheduler::TaskAt(2) + 56, 0);
    const std::vector<SwitchRecord> records = Look(&looker);
    EQUAL(records.size(), 1u);
    EQUAL(records[0].comm[8], 0x22u);
  }
}

TEST(a_foreign_mm_is_told) {
  Scheduler scheduler;
  const auto memory = Open(scheduler.guest);
  SwitchLooker looker(memory.get(), Scheduler::Layout());
  scheduler.Switch(2, 10);
  scheduler.Store(kLoaded, kDirect + Scheduler::MmAt(9));
  const std::vector<SwitchRecord> records = Look(&looker);
  EQUAL(records.size(), 1u);
  CHECK((records[0].flags & SwitchRecord::kForeignSpace) != 0);
  EQUAL(records[0].cr3, kPgds + 9 * kPageSize);
}

TEST(a_guest_that_lies_gives_no_record) {
  for (const uint64_t wild : {uint64_t{0}, uint64_t{1}, kDirect + kSize, kDirect + kSize - 8,
                              UINT64_MAX & ~uint64_t{7}, kDirect + kTasks + 4}) {
    for (const bool is_mapped : {true, false}) {
      Scheduler scheduler;
      scheduler.guest->is_mapped = is_mapped;
      const auto memory = Open(scheduler.guest);
      SwitchLooker looker(memory.get(), Scheduler::Layout());
      scheduler.Store(kCurr, wild);
      scheduler.Store(kCurrent, wild);
      EQUAL(Look(&looker).size(), 0u);
      CHECK(looker.counters().unreadable > 0);
      // The count goes back: whatever was missed, nobody knows.
      scheduler.count[0] = 1'000'000;
      scheduler.Switch(0, 0);
      Look(&looker);
      scheduler.Store(kCount, 5);
      scheduler.Store(kCurr, kDirect + Scheduler::TaskAt(2));
      scheduler.Store(kCurrent, kDirect + Scheduler::TaskAt(2));
      const std::vector<SwitchRecord> records = Look(&looker);
      EQUAL(records.size(), 1u);
      CHECK((records[0].flags & SwitchRecord::kFirst) != 0);
    }
  }
}

TEST(a_kernel_that_hides_is_seen_as_far_as_it_goes) {
  Scheduler scheduler;
  const auto memory = Open(scheduler.guest);
  SwitchLayout layout = Scheduler::Layout();
  layout.cpus[0] = {SwitchLayout::kAbsent, SwitchLayout::kAbsent, kCurrent, SwitchLayout::kAbsent};
  layout.task.last_arrival = SwitchLayout::kAbsent;
  SwitchLooker looker(memory.get(), layout);
  Look(&looker);
  scheduler.Switch(2, 10);
  scheduler.Switch(3, 10);
  const std::vector<SwitchRecord> records = Look(&looker);
  EQUAL(records.size(), 1u);
  EQUAL(records[0].flags, SwitchRecord::kUncounted);
  EQUAL(TaskOf(records[0]), 3u);
  EQUAL(records[0].cr3, 0u);
}

TEST(what_finds_no_place_counts_as_missed) {
  Scheduler scheduler;
  const auto memory = Open(scheduler.guest);
  SwitchLooker looker(memory.get(), Scheduler::Layout());
  Look(&looker);
  scheduler.Switch(1, 1);
  Look(&looker, false);
  scheduler.Switch(2, 2);
  Look(&looker, false);
  scheduler.Switch(3, 3);
  EQUAL(Look(&looker)[0].missed, 2u);
}

// Two CPUs switch as fast as they can, and are seen in the middle of it all the time.
void CheckMoments(bool has_lock) {
  Scheduler scheduler;
  const auto memory = Open(scheduler.guest);
  Sampler::Options options;
  options.layout = has_lock ? Scheduler::LayoutWithLock(2) : Scheduler::Layout(2);
  options.capacity = 1 << 16;
  auto started = Sampler::Start(memory, std::move(options));
  CHECK(started.ok());
  Sampler& sampler = *started.value();
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    uint64_t seed = 1;
    while (!stop) {
      seed = seed * 6364136223846793005 + 1442695040888963407;
      const uint64_t cpu = seed >> 33 & 1;
      // A task is on one CPU at a time, and no switch leads to the task itself.
      const uint64_t next = 1 + cpu * 7 + (scheduler.count[cpu] + (seed >> 40) % 3) % 7;
      static uint64_t last[2] = {};
      const uint64_t task = next == last[cpu] ? (next - 1 - cpu * 7 + 1) % 7 + 1 + cpu * 7 : next;
      last[cpu] = task;
      scheduler.Switch(task, 1000 + scheduler.count[cpu] + 1, cpu);
      if (seed >> 60 == 0) usleep(50);
    }
  });
  std::vector<uint64_t> words(kRecordWords * 1024);
  uint64_t first[2] = {};
  uint64_t last[2] = {};
  uint64_t told[2] = {};
  size_t seen = 0;
  for (int round = 0; seen < 20'000 && round < 3'000; ++round) {
    usleep(1000);
    const size_t count = sampler.Take(words.data(), 1024).value();
    for (size_t i = 0; i < count; ++i, ++seen) {
      SwitchRecord record;
      std::memcpy(static_cast<void*>(&record), &words[i * kRecordWords], sizeof record);
      const uint64_t task = TaskOf(record);
      if (task != 0) {
        EQUAL(record.ids & 0xffff'ffff, 100 + task);
        EQUAL(record.comm[0], task);
        EQUAL(record.start_time, 5000 + task);
        if (task < kThreads) EQUAL(record.cr3, kPgds + task * kPageSize);
        // Early by one where only the count was up, and no lock says so.
        const uint64_t arrived = record.last_arrival - 1000;
        CHECK(arrived == record.count || (!has_lock && arrived + 1 == record.count));
      }
      if ((record.flags & SwitchRecord::kFirst) != 0) {
        first[record.cpu] = record.count;
      } else {
        told[record.cpu] += 1 + record.missed;
      }
      last[record.cpu] = record.count;
    }
  }
  stop = true;
  writer.join();
  sampler.Stop();
  CHECK(seen > 100);
  for (int cpu = 0; cpu < 2; ++cpu) {
    const uint64_t counted = last[cpu] - first[cpu];
    CHECK(told[cpu] == counted || (!has_lock && told[cpu] == counted + 1));
  }
}

TEST(no_record_is_of_two_moments) {
  for (const bool has_lock : {false, true}) CheckMoments(has_lock);
}

TEST(closing_the_memory_ends_it) {
  for (const uint64_t interval : {uint64_t{0}, uint64_t{1'000'000}, uint64_t{3'600'000'000'000}}) {
    Scheduler scheduler;
    const auto memory = Open(scheduler.guest);
    Sampler::Options options;
    options.layout = Scheduler::Layout();
    options.interval = interval;
    auto sampler = std::move(Sampler::Start(memory, std::move(options)).value());
    while (sampler->statistics().records == 0) usleep(100);
    memory->Close();
    std::vector<uint64_t> words(kRecordWords * 8);
    // What it saw comes first.
    EQUAL(sampler->Take(words.data(), 8).value(), 1u);
    const auto end = sampler->Take(words.data(), 8);
    CHECK(!end.ok());
    EQUAL(end.error().code, Code::kClosed);
    sampler->Stop();
    sampler->Stop();
  }
}

TEST(it_can_be_stopped_at_once) {
  for (int round = 0; round < 50; ++round) {
    Scheduler scheduler;
    const auto memory = Open(scheduler.guest);
    Sampler::Options options;
    options.layout = Scheduler::Layout();
    // Longer than any test waits.
    options.interval = 3'600'000'000'000;
    const auto sampler = Sampler::Start(memory, std::move(options));
    CHECK(sampler.ok());
    if (round % 2 == 0) usleep(static_cast<useconds_t>(round));
  }
}

TEST(the_share_sets_the_interval) {
  Scheduler scheduler;
  const auto memory = Open(scheduler.guest);
  Sampler::Options options;
  options.layout = Scheduler::Layout();
  options.interval = 1'000;
  options.share = 0.01;
  const auto sampler = std::move(Sampler::Start(memory, std::move(options)).value());
  while (sampler->statistics().looks < 300) usleep(1000);
  CHECK(sampler->statistics().interval >= 20'000);
}

TEST(looks_that_come_late_are_counted) {
  Scheduler scheduler;
  const auto memory = Open(scheduler.guest);
  // Each read takes longer than a look may be late.
  constexpr useconds_t kMicros = 2'000;
  scheduler.guest->is_mapped = false;
  scheduler.guest->before_read = [](size_t) { usleep(kMicros); };
  const auto copied = Open(scheduler.guest);
  for (const uint64_t interval : {uint64_t{0}, uint64_t{1'000}}) {
    Sampler::Options options;
    options.layout = Scheduler::Layout();
    options.interval = interval;
    const auto sampler = std::move(Sampler::Start(copied, std::move(options)).value());
    while (sampler->statistics().late < 3) usleep(1000);
    const Sampler::Statistics now = sampler->statistics();
    CHECK(now.longest_gap >= kMicros * uint64_t{1'000});
    CHECK(now.late_time >= 3 * (kMicros * uint64_t{1'000} - interval));
  }
  // One that waits for an hour is not late.
  Sampler::Options options;
  options.layout = Scheduler::Layout();
  options.interval = 3'600'000'000'000;
  const auto sampler = std::move(Sampler::Start(memory, std::move(options)).value());
  while (sampler->statistics().looks == 0) usleep(100);
  EQUAL(sampler->statistics().late, 0u);
  EQUAL(sampler->statistics().longest_gap, 0u);
}

TEST(a_thread_knows_how_long_it_waited_for_a_core) {
  const RunDelay delay;
  const uint64_t first = delay.Read();
  if (first == RunDelay::kUnknown) {
    std::cerr << "    skipped: this host does not say (/proc/thread-self/schedstat)\n";
    return;
  }
  for (int i = 0; i < 3; ++i) usleep(1000);
  const uint64_t second = delay.Read();
  CHECK(second >= first && second != RunDelay::kUnknown);
}

TEST(refuses_what_cannot_be_meant) {
  Scheduler scheduler;
  const auto memory = Open(scheduler.guest);
  const auto refuses = [&](auto&& change) {
    Sampler::Options options;
    options.layout = Scheduler::Layout();
    change(&options.layout);
    const auto sampler = Sampler::Start(memory, std::move(options));
    CHECK(!sampler.ok());
    EQUAL(sampler.error().code, Code::kMisuse);
  };
  refuses([](SwitchLayout* layout) { layout->cpus.clear(); });
  refuses([](SwitchLayout* layout) { layout->cpus.resize(1025, layout->cpus[0]); });
  refuses([](SwitchLayout* layout) { layout->windows.clear(); });
  refuses([](SwitchLayout* layout) { layout->cpus[0].curr = 4; });
  refuses([](SwitchLayout* layout) { layout->task.pid = SwitchLayout::kAbsent; });
  refuses([](SwitchLayout* layout) { layout->task.comm = 2; });
  refuses([](SwitchLayout* layout) { layout->pgd = (uint64_t{1} << 20) + 8; });
  refuses([](SwitchLayout* layout) {
    layout->cpus[0].curr = layout->cpus[0].current = SwitchLayout::kAbsent;
  });
}

}  // namespace
}  // namespace vmi::test

MAIN
