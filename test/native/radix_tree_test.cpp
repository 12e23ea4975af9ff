// Look-ups in radix trees of a guest, sane and not.
#include <cstring>

#include "check.h"
#include "core/lookup/look_ups.h"
#include "fake_source.h"

namespace vmi::test {
namespace {

constexpr uint64_t kHead = 0x40000;
constexpr uint64_t kSize = 1 << 20;
// As struct xa_node, with 4 slots a node.
constexpr RadixTree kTree = {2, 3, 4096, 0, 0x28, 2, 60};

struct Tree {
  explicit Tree(bool is_mapped, bool is_parallel = false) : machine(kSize) {
    machine.guest->is_mapped = is_mapped;
    machine.guest->is_parallel = is_parallel;
    space = machine.Open();
    CHECK(space->SetWindows({{kDirectMap, kSize, 0}}).ok());
    gatherer = std::make_unique<Gatherer>(space.get());
    look_ups = std::make_unique<LookUps>(gatherer.get());
  }
  static uint64_t Node(size_t i) { return 0x50000 + i * 0x80; }
  static uint64_t Entry(size_t i) { return (kDirectMap + Node(i)) | 2; }
  void SetSlot(size_t node, size_t slot, uint64_t value) {
    machine.guest->Put64(Node(node) + 0x28 + slot * 8, value);
  }
  void SetShift(size_t node, uint8_t shift) { machine.guest->Put<uint8_t>(Node(node), shift); }
  void SetHead(uint64_t value) { machine.guest->Put64(kHead, value); }
  Result<uint64_t> Get(uint64_t index) { return look_ups->Find(kTree, kDirectMap + kHead, index); }
  void Flush() {
    space->Flush();
    look_ups->End();
  }

  DirectMapped machine;
  std::unique_ptr<AddressSpace> space;
  std::unique_ptr<Gatherer> gatherer;
  std::unique_ptr<LookUps> look_ups;
};

TEST(finds_what_an_index_holds) {
  for (const bool is_mapped : {true, false}) {
    Tree tree(is_mapped);
    EQUAL(tree.Get(5).value(), 0u);
    tree.SetHead(Tree::Entry(0));
    tree.SetShift(0, 2);
    tree.SetSlot(0, 1, Tree::Entry(1));
    tree.SetSlot(1, 3, kDirectMap + 0x1000);
    tree.SetSlot(1, 0, 1026);  // a retry entry: below max_internal
    EQUAL(tree.Get(7).value(), kDirectMap + 0x1000);
    EQUAL(tree.Get(4).value(), 1026u);
    EQUAL(tree.Get(5).value(), 0u);
    EQUAL(tree.Get(3).value(), 0u);
    EQUAL(tree.Get(16).value(), 0u);
    EQUAL(tree.Get(UINT64_MAX).value(), 0u);
  }
}

TEST(a_tree_that_is_none_is_corrupt_or_a_fault) {
  for (const bool is_mapped : {true, false}) {
    Tree tree(is_mapped);
    tree.SetHead(Tree::Entry(0));
    for (const uint8_t shift : {1, 3, 62, 255}) {
      tree.SetShift(0, shift);
      CHECK(tree.Get(1).error().code == Code::kCorrupt);
    }
    // An entry above the lowest level.
    tree.SetShift(0, 4);
    tree.SetSlot(0, 0, kDirectMap + 0x1000);
    CHECK(tree.Get(1).error().code == Code::kCorrupt);
    // A node that leads to itself ends with its shift.
    tree.SetShift(0, 60);
    tree.SetSlot(0, 0, Tree::Entry(0));
    EQUAL(tree.Get(0).value(), Tree::Entry(0));
    // Nodes that are nowhere.
    for (const uint64_t entry :
         {uint64_t{0xffff'f000'0000'0002}, UINT64_MAX - 1, uint64_t{0x8000'0000'0000'0002}}) {
      tree.SetHead(entry);
      CHECK(tree.Get(1).error().code == Code::kFault);
    }
  }
}

// A tree with one entry at index 7: a structure at 0x1000 that holds a pointer to 0x2000, and a
// number there.
struct LookUps : Tree {
  LookUps() : Tree(false, true) {
    SetHead(Entry(0));
    SetShift(0, 2);
    SetSlot(0, 1, Entry(1));
    SetSlot(1, 3, kDirectMap + 0x1000);
    SetTarget(0x1000, 0x2000, 77);
    SetTarget(0x3000, 0x4000, 99);
    const int32_t triples[] = {-1, 8, 8, 0, 0, 8};
    plan = std::move(Plan::Create(triples, 6).value());
  }
  void SetTarget(uint64_t at, uint64_t leads_to, uint64_t number) {
    machine.guest->Put64(at + 8, kDirectMap + leads_to);
    machine.guest->Put64(leads_to, number);
  }
  // The number behind index 7; `reads` is how many calls of the source that took.
  uint64_t Number(size_t* reads) {
    const size_t before = machine.guest->reads;
    Flush();
    const uint64_t base = Get(7).value();
    const uint64_t number = Follow(base);
    *reads = machine.guest->reads - before;
    return number;
  }
  uint64_t Follow(uint64_t base) {
    std::vector<uint8_t> rows(RowLayout(*plan, 1).total);
    CHECK(look_ups->Gather(*plan, &base, 1, {rows.data(), 1}).ok());
    uint64_t number;
    std::memcpy(&number, rows.data() + RowLayout(*plan, 1).columns[1], sizeof number);
    return number;
  }
  std::unique_ptr<Plan> plan;
};

TEST(a_look_up_reads_what_the_last_one_read_in_one_batch) {
  LookUps tree;
  size_t reads;
  EQUAL(tree.Number(&reads), 77u);
  const size_t first = reads;
  CHECK(first >= 5);
  EQUAL(tree.Number(&reads), 77u);
  EQUAL(reads, 1u);
}

TEST(a_look_up_follows_the_guest_and_not_its_last_path) {
  LookUps tree;
  size_t reads;
  EQUAL(tree.Number(&reads), 77u);
  // Other bytes at the same places, another place, a node that moved, and back.
  tree.machine.guest->Put64(0x2000, 78);
  EQUAL(tree.Number(&reads), 78u);
  EQUAL(reads, 1u);
  tree.SetSlot(1, 3, kDirectMap + 0x3000);
  EQUAL(tree.Number(&reads), 99u);
  EQUAL(tree.Number(&reads), 99u);
  EQUAL(reads, 1u);
  tree.SetSlot(0, 1, Tree::Entry(2));
  tree.SetSlot(2, 3, kDirectMap + 0x1000);
  EQUAL(tree.Number(&reads), 78u);
  tree.SetSlot(0, 1, 0);
  tree.Flush();
  EQUAL(tree.Get(7).value(), 0u);
}

TEST(what_was_read_ahead_is_used_once_and_not_by_others) {
  LookUps tree;
  size_t reads;
  EQUAL(tree.Number(&reads), 77u);
  tree.Flush();
  EQUAL(tree.Get(7).value(), kDirectMap + 0x1000);
  tree.machine.guest->Put64(0x2000, 80);
  // A read of its own sees what is there now, and so does a second gather, and one after the
  // operation has ended.
  uint64_t value = 0;
  CHECK(tree.space->ReadExact(kDirectMap + 0x2000, reinterpret_cast<uint8_t*>(&value), sizeof value)
            .ok());
  EQUAL(value, 80u);
  EQUAL(tree.Follow(kDirectMap + 0x1000), 77u);
  EQUAL(tree.Follow(kDirectMap + 0x1000), 80u);
  EQUAL(tree.Get(7).value(), kDirectMap + 0x1000);
  tree.machine.guest->Put64(0x2000, 81);
  tree.Flush();
  EQUAL(tree.Follow(kDirectMap + 0x1000), 81u);
}

TEST(a_path_with_bytes_that_cannot_be_read_is_read_step_by_step) {
  LookUps tree;
  size_t reads;
  EQUAL(tree.Number(&reads), 77u);
  tree.machine.guest->bad_pages.insert(0x2000);
  EQUAL(tree.Number(&reads), 0u);
  tree.machine.guest->bad_pages.clear();
  EQUAL(tree.Number(&reads), 77u);
}

}  // namespace
}  // namespace vmi::test

MAIN
