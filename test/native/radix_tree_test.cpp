// Look-ups in radix trees of a guest, sane and not.
#include "check.h"
#include "core/radix_tree.h"
#include "fake_source.h"

namespace vmi::test {
namespace {

constexpr uint64_t kHead = 0x40000;
constexpr uint64_t kSize = 1 << 20;
// As struct xa_node, with 4 slots a node.
constexpr RadixTree kTree = {2, 3, 4096, 0, 0x28, 2, 60};

struct Tree {
  explicit Tree(bool is_mapped) : machine(kSize) {
    machine.guest->is_mapped = is_mapped;
    space = machine.Open();
    CHECK(space->SetWindows({{kDirectMap, kSize, 0}}).ok());
  }
  static uint64_t Node(size_t i) { return 0x50000 + i * 0x80; }
  static uint64_t Entry(size_t i) { return (kDirectMap + Node(i)) | 2; }
  void SetSlot(size_t node, size_t slot, uint64_t value) { machine.guest->Put64(Node(node) + 0x28 + slot * 8, value); }
  void SetShift(size_t node, uint8_t shift) { machine.guest->Put<uint8_t>(Node(node), shift); }
  void SetHead(uint64_t value) { machine.guest->Put64(kHead, value); }
  Result<uint64_t> Get(uint64_t index) { return LookUp(space.get(), kTree, kDirectMap + kHead, index); }

  DirectMapped machine;
  std::unique_ptr<AddressSpace> space;
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
    for (const uint64_t entry : {uint64_t{0xffff'f000'0000'0002}, UINT64_MAX - 1, uint64_t{0x8000'0000'0000'0002}}) {
      tree.SetHead(entry);
      CHECK(tree.Get(1).error().code == Code::kFault);
    }
  }
}

}  // namespace
}  // namespace vmi::test

MAIN
