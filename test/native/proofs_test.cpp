// What a walk proved is not read again by one that takes it at its word, as long as the row and its
// keys are what they were.
#include <chrono>
#include <thread>

#include "check.h"
#include "core/gather/gather.h"
#include "core/lists/lists.h"
#include "fake_source.h"

namespace vmi::test {
namespace {

constexpr uint64_t kLink = 0x48;
constexpr uint64_t kProof = 0x1234'5000;
// A minute: no test takes as long.
constexpr int64_t kAge = 60'000'000'000;
enum ColumnNumber : int32_t { kStart, kMm, kPgd, kEntry };

// Tasks in a list, each with an mm, that has a PGD in a page of its own.
struct Tasks {
  explicit Tasks(size_t count, bool is_parallel = false, bool is_mapped = false)
      : machine(4 << 20), plan(MakePlan()) {
    machine.guest->is_mapped = is_mapped;
    machine.guest->is_parallel = is_parallel;
    space = machine.Open();
    CHECK(space->SetWindows({{kDirectMap, 4 << 20, 0}}).ok());
    for (size_t i = 0; i < count; ++i) Make(i);
    std::vector<size_t> all(count);
    for (size_t i = 0; i < count; ++i) all[i] = i;
    Link(all);
  }

  static std::unique_ptr<Plan> MakePlan() {
    const int32_t triples[] = {-1, 0, 8, -1, 8, 8, kMm, 0x20, 8, kPgd, 0xff8, 8};
    auto made = std::move(Plan::Create(triples, 12).value());
    const uint64_t expected[] = {kEntry, ~uint64_t{0xfff}, kProof, kProof};
    CHECK(made->Expect(expected, 4).ok());
    const int32_t proof[] = {kEntry, kStart, kMm, kPgd};
    CHECK(made->Prove(proof, 4).ok());
    return made;
  }

  static uint64_t Task(size_t i) { return 0x50000 + i * 0x100; }
  static uint64_t Mm(size_t i) { return 0x100000 + i * 0x1000; }
  static uint64_t Pgd(size_t i) { return 0x200000 + i * 0x1000; }

  void Make(size_t i) {
    machine.guest->Put64(Task(i), i + 1);
    machine.guest->Put64(Task(i) + 8, kDirectMap + Mm(i));
    machine.guest->Put64(Mm(i) + 0x20, kDirectMap + Pgd(i));
    SetEntry(i, kProof | i);
  }
  void SetEntry(size_t i, uint64_t entry) { machine.guest->Put64(Pgd(i) + 0xff8, entry); }

  void Link(const std::vector<size_t>& tasks) {
    order = tasks;
    uint64_t at = kHead;
    for (const size_t i : tasks) {
      machine.guest->Put64(at, kDirectMap + Task(i) + kLink);
      machine.guest->Put64(Task(i) + kLink + 8, kDirectMap + at);
      at = Task(i) + kLink;
    }
    machine.guest->Put64(at, kDirectMap + kHead);
    machine.guest->Put64(kHead + 8, kDirectMap + at);
  }

  // The entries of all tasks of the list, in its order.
  std::vector<uint64_t> Walk(int64_t age = kAge) { return Walk(*plan, age); }
  std::vector<uint64_t> Walk(const Plan& with, int64_t age = kAge) {
    machine.guest->requests = 0;
    const uint64_t head = kDirectMap + kHead;
    const ListWalk walk = WalkLists(space.get(), with, &head, 1, kLink, 1000, {}, age).value();
    const size_t count = walk.bases.size();
    EQUAL(count, order.size());
    std::vector<uint8_t> rows(RowLayout(with, count).total);
    CHECK(FillRows(space.get(), with, walk, {rows.data(), count}).ok());
    const RowLayout layout(with, count);
    std::vector<uint64_t> entries(count);
    std::memcpy(entries.data(), rows.data() + layout.columns[with.columns().size() - 1], count * 8);
    masks.resize(count);
    std::memcpy(masks.data(), rows.data(), count * 4);
    return entries;
  }
  // What it asked of the guest.
  size_t Requests() const { return machine.guest->requests; }

  // Walks until the next walk need read no proof.
  void Settle() {
    Walk();
    Walk();
  }

  static constexpr uint64_t kHead = 0x40000;
  DirectMapped machine;
  std::unique_ptr<Plan> plan;
  std::unique_ptr<AddressSpace> space;
  std::vector<size_t> order;
  std::vector<uint32_t> masks;
};

std::vector<uint64_t> EntriesOf(size_t count) {
  std::vector<uint64_t> entries(count);
  for (size_t i = 0; i < count; ++i) entries[i] = kProof | i;
  return entries;
}

TEST(a_proof_is_not_read_again) {
  for (const bool parallel : {false, true}) {
    Tasks tasks(300, parallel);
    tasks.Walk();
    CHECK(tasks.Walk() == EntriesOf(300));
    const size_t all = tasks.Requests();
    CHECK(tasks.Walk() == EntriesOf(300));
    EQUAL(tasks.Requests(), all - 300);
    // It is taken at its word,
    tasks.SetEntry(7, 0);
    CHECK(tasks.Walk() == EntriesOf(300));
    // but not by who does not want to.
    EQUAL(tasks.Walk(0)[7], 0u);
    EQUAL(tasks.Requests(), all);
    CHECK(tasks.Walk() == EntriesOf(300));
  }
}

TEST(a_proof_is_of_its_row_and_keys) {
  for (const bool parallel : {false, true}) {
    Tasks tasks(8, parallel);
    const auto entry_after = [&](auto change) {
      tasks.Settle();
      change();
      tasks.SetEntry(3, 0x99);
      const uint64_t entry = tasks.Walk()[3];
      tasks.Make(3);
      tasks.Link({0, 1, 2, 3, 4, 5, 6, 7});
      return entry;
    };
    EQUAL(entry_after([] {}), kProof | 3);
    // Another task where this one was.
    EQUAL(entry_after([&] { tasks.machine.guest->Put64(Tasks::Task(3), 77); }), 0x99u);
    // Another task in its place in the list, with all that it had.
    EQUAL(entry_after([&] {
            tasks.Make(20);
            tasks.machine.guest->Put64(Tasks::Task(20), 4);
            tasks.machine.guest->Put64(Tasks::Task(20) + 8, kDirectMap + Tasks::Mm(3));
            tasks.Link({0, 1, 2, 20, 4, 5, 6, 7});
            // Which leaves the proofs as they are.
            tasks.Walk(0);
          }),
          0x99u);
    // Another mm with the same PGD.
    EQUAL(entry_after([&] {
            tasks.machine.guest->Put64(Tasks::Mm(9) + 0x20, kDirectMap + Tasks::Pgd(3));
            tasks.machine.guest->Put64(Tasks::Task(3) + 8, kDirectMap + Tasks::Mm(9));
          }),
          0x99u);
    // Another PGD.
    EQUAL(entry_after([&] {
            tasks.machine.guest->Put64(Tasks::Mm(3) + 0x20, kDirectMap + Tasks::Pgd(9));
            tasks.machine.guest->Put64(Tasks::Pgd(9) + 0xff8, 0x99);
          }),
          0x99u);
  }
}

TEST(a_row_like_the_one_before_one_that_is_proved_is_read) {
  Tasks tasks(3);
  for (const size_t i : {0, 2})
    tasks.machine.guest->Put64(Tasks::Mm(i) + 0x20, kDirectMap + Tasks::Pgd(0));
  tasks.Settle();
  for (const size_t i : {0, 2}) tasks.machine.guest->Put64(Tasks::Task(i), 99);
  const std::vector<uint64_t> expected = {kProof, kProof | 1, kProof};
  CHECK(tasks.Walk() == expected);
}

TEST(what_proves_nothing_is_read_each_time) {
  Tasks tasks(8);
  tasks.SetEntry(3, 0x99);
  tasks.Settle();
  EQUAL(tasks.Walk()[3], 0x99u);
  tasks.SetEntry(3, 0x98);
  EQUAL(tasks.Walk()[3], 0x98u);
  tasks.SetEntry(3, kProof | 5);
  EQUAL(tasks.Walk()[3], kProof | 5);
  // Now it does.
  tasks.SetEntry(3, 0x99);
  EQUAL(tasks.Walk()[3], kProof | 5);
  // So does not a pointer that is NULL,
  tasks.machine.guest->Put64(Tasks::Task(4) + 8, 0);
  EQUAL(tasks.Walk()[4], 0u);
  tasks.machine.guest->Put64(Tasks::Task(4) + 8, kDirectMap + Tasks::Mm(4));
  EQUAL(tasks.Walk()[4], kProof | 4);
  // nor one that cannot be read.
  tasks.machine.guest->bad_pages = {Tasks::Mm(5)};
  EQUAL(tasks.Walk()[5], 0u);
  EQUAL(tasks.masks[5], 1u << kPgd);
  tasks.machine.guest->bad_pages = {};
  EQUAL(tasks.Walk()[5], kProof | 5);
}

TEST(a_proof_that_cannot_be_read_is_none) {
  Tasks tasks(8);
  // Not even where zeroes were one.
  const uint64_t anything[] = {kEntry, 0, 0, 0};
  const int32_t proof[] = {kEntry, kStart, kMm, kPgd};
  CHECK(tasks.plan->Expect(anything, 4).ok() && tasks.plan->Prove(proof, 4).ok());
  tasks.machine.guest->bad_pages = {Tasks::Pgd(5)};
  tasks.Settle();
  tasks.machine.guest->bad_pages = {};
  EQUAL(tasks.Walk()[5], kProof | 5);
  EQUAL(tasks.masks[5], 0u);
}

TEST(what_takes_a_page_table_is_not_proved_by_who_has_none) {
  Tasks tasks(300, true);
  // Zeroes would be a proof, and no window has the PGDs.
  const uint64_t anything[] = {kEntry, 0, 0, 0};
  const int32_t proof[] = {kEntry, kStart, kMm, kPgd};
  CHECK(tasks.plan->Expect(anything, 4).ok() && tasks.plan->Prove(proof, 4).ok());
  CHECK(tasks.space->SetWindows({{kDirectMap, 2 << 20, 0}}).ok());
  for (int walk = 0; walk < 4; ++walk) CHECK(tasks.Walk() == EntriesOf(300));
}

TEST(mapped_memory_is_read_each_time) {
  Tasks tasks(8, false, true);
  tasks.Settle();
  tasks.SetEntry(3, 0x99);
  EQUAL(tasks.Walk()[3], 0x99u);
}

TEST(a_gather_reads_everything) {
  Tasks tasks(8);
  tasks.Settle();
  tasks.SetEntry(3, 0x99);
  const uint64_t base = kDirectMap + Tasks::Task(3);
  std::vector<uint8_t> rows(RowLayout(*tasks.plan, 1).total);
  CHECK(Gather(tasks.space.get(), *tasks.plan, &base, 1, rows.data()).ok());
  uint64_t entry;
  std::memcpy(&entry, rows.data() + RowLayout(*tasks.plan, 1).columns[kEntry], 8);
  EQUAL(entry, 0x99u);
}

TEST(proofs_stay_with_their_rows) {
  Tasks tasks(8);
  tasks.Settle();
  tasks.Walk();
  const size_t proved = tasks.Requests();
  for (size_t i = 0; i < 8; ++i) tasks.SetEntry(i, 0x99);
  // One leaves, two change places, and one comes.
  tasks.Make(8);
  tasks.Link({0, 4, 3, 2, 5, 7, 8});
  const std::vector<uint64_t> expected = {kProof,     kProof | 4, kProof | 3, kProof | 2,
                                          kProof | 5, kProof | 7, kProof | 8};
  CHECK(tasks.Walk() == expected);
  // The one that came is proved by the walk that has it among the others first.
  CHECK(tasks.Walk() == expected);
  CHECK(tasks.Walk() == expected);
  EQUAL(tasks.Requests(), proved - 2);
  tasks.SetEntry(8, 0x99);
  CHECK(tasks.Walk() == expected);
}

TEST(plans_do_not_share_proofs) {
  Tasks tasks(8);
  tasks.Settle();
  const int32_t triples[] = {-1, 0, 8, -1, 8, 8, kMm, 0x20, 8, kPgd, 0xfe8, 8};
  const auto other = std::move(Plan::Create(triples, 12).value());
  const uint64_t expected[] = {kEntry, 0, 0, 0};
  CHECK(other->Expect(expected, 4).ok());
  const int32_t proof[] = {kEntry, kStart, kMm, kPgd};
  CHECK(other->Prove(proof, 4).ok());
  tasks.machine.guest->Put64(Tasks::Pgd(3) + 0xfe8, 0x77);
  EQUAL(tasks.Walk(*other)[3], 0x77u);
  // A copy is the same plan.
  const Plan copy = *other;
  tasks.Walk(*other);
  tasks.machine.guest->Put64(Tasks::Pgd(3) + 0xfe8, 0x78);
  EQUAL(tasks.Walk(copy)[3], 0x77u);
  tasks.SetEntry(3, 0x99);
  EQUAL(tasks.Walk()[3], 0x99u);
}

// Of two rows, whether each is taken at its word.
std::vector<bool> Recall(const Proofs& proofs, const Tasks& tasks, std::vector<uint8_t>* rows) {
  uint8_t proved[2];
  proofs.Recall(*tasks.plan, {rows->data(), 2}, 0, 2, proved);
  return {proved[0] != 0, proved[1] != 0};
}

TEST(a_proof_is_good_for_as_long_as_is_said) {
  Tasks tasks(2);
  const uint64_t bases[] = {kDirectMap + Tasks::Task(0), kDirectMap + Tasks::Task(1)};
  std::vector<uint8_t> rows(RowLayout(*tasks.plan, 2).total);
  CHECK(Gather(tasks.space.get(), *tasks.plan, bases, 2, rows.data()).ok());
  Proofs proofs;
  uint8_t none[2] = {0, 1};
  constexpr int64_t kNow = 5'000'000'000;
  proofs.Begin(*tasks.plan, 2, kNow, 1'000'000'000);
  CHECK((Recall(proofs, tasks, &rows) == std::vector<bool>{false, false}));
  proofs.Keep(*tasks.plan, {rows.data(), 2}, 0, 2, none);
  CHECK((Recall(proofs, tasks, &rows) == std::vector<bool>{true, false}));
  // The second's second begins later.
  proofs.Begin(*tasks.plan, 2, kNow + 100, 1'000'000'000);
  none[0] = 1;
  none[1] = 0;
  proofs.Keep(*tasks.plan, {rows.data(), 2}, 0, 2, none);
  const auto after = [&](int64_t nanoseconds, int64_t age = 1'000'000'000) {
    proofs.Begin(*tasks.plan, 2, kNow + nanoseconds, age);
    return Recall(proofs, tasks, &rows);
  };
  CHECK((after(999'999'999) == std::vector<bool>{true, true}));
  CHECK((after(1'000'000'000) == std::vector<bool>{false, true}));
  CHECK((after(1'000'000'100) == std::vector<bool>{false, false}));
  CHECK((after(200, 100) == std::vector<bool>{false, false}));
  CHECK((after(200, 101) == std::vector<bool>{false, true}));
}

TEST(a_walk_reads_a_proof_again_that_is_too_old) {
  Tasks tasks(8);
  tasks.Settle();
  tasks.SetEntry(3, 0x99);
  EQUAL(tasks.Walk()[3], kProof | 3);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EQUAL(tasks.Walk(20'000'000)[3], 0x99u);
}

TEST(refuses_proofs_that_are_none) {
  const int32_t triples[] = {-1, 0,  8, -1, 8,    8, 1, 0x20, 8, 2, 0, 8,
                             -1, 16, 4, 2,  5000, 8, 2, 5008, 8, 3, 0, 8};
  auto plan = std::move(Plan::Create(triples, 24).value());
  const auto proves = [&](std::vector<int32_t> columns) {
    return plan->Prove(columns.data(), columns.size()).ok();
  };
  // Nothing is expected of it.
  CHECK(!proves({3, 2}));
  const uint64_t expected[] = {3, 1, 0, 0, 5, 1, 0, 0, 0, 1, 0, 0, 7, 1, 0, 0};
  CHECK(plan->Expect(expected, 16).ok());
  CHECK(proves({3, 2}));
  CHECK(proves({3, 0, 1, 2}));
  CHECK(proves({7, 3}));
  CHECK(!proves({}));
  CHECK(!proves({3}));
  CHECK(!proves({3, 0, 1, 2, 2}));
  CHECK(!proves({8, 2}));
  CHECK(!proves({-1, 2}));
  CHECK(!proves({3, 2, -1}));
  // Of 4 bytes.
  CHECK(!proves({3, 2, 4}));
  // Not by what it is read from.
  CHECK(!proves({3, 0, 1}));
  // Read with what it is to prove, or with another.
  CHECK(!proves({3, 2, 5}));
  CHECK(!proves({0, 1}));
  CHECK(!proves({5, 2}));
}

}  // namespace
}  // namespace vmi::test

MAIN
