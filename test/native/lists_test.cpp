// List walks: in order, while the list changes, and over lists made to lead astray.
#include <algorithm>
#include <random>
#include <set>

#include "check.h"
#include "core/lists/list_walker.h"
#include "fake_source.h"

namespace vmi::test {
namespace {

constexpr uint64_t kPoison1 = 0xdead'0000'0000'0100;
constexpr uint64_t kPoison2 = 0xdead'0000'0000'0122;
constexpr uint64_t kLink = 0x48;
constexpr uint64_t kNodeSize = 0x100;

// Structures of 256 bytes with a list_head at kLink and a number at 0, in the direct map.
struct Lists {
  explicit Lists(bool is_mapped = true, bool is_parallel = false, uint64_t size = 1 << 20)
      : machine(size) {
    machine.guest->is_mapped = is_mapped;
    machine.guest->is_parallel = is_parallel;
    space = machine.Open();
    CHECK(space->SetWindows({{kDirectMap, size, 0}}).ok());
    const int32_t triples[] = {-1, 0, 4, -1, 0x10, 8, 1, 0, 4};
    plan = std::move(Plan::Create(triples, 9).value());
  }

  static uint64_t Head(size_t i) { return 0x40000 + i * 16; }
  static uint64_t Node(size_t i) { return 0x50000 + i * kNodeSize + kLink; }

  uint64_t Next(uint64_t node) { return machine.guest->Get64(node) - kDirectMap; }
  uint64_t Prev(uint64_t node) { return machine.guest->Get64(node + 8) - kDirectMap; }
  void SetNext(uint64_t node, uint64_t to) { machine.guest->Put64(node, kDirectMap + to); }
  void SetPrev(uint64_t node, uint64_t to) { machine.guest->Put64(node + 8, kDirectMap + to); }
  void SetRaw(uint64_t at, uint64_t value) { machine.guest->Put64(at, value); }

  void MakeHead(uint64_t head) {
    SetNext(head, head);
    SetPrev(head, head);
  }
  void Insert(uint64_t node, uint64_t prev, uint64_t next) {
    SetNext(node, next);
    SetPrev(node, prev);
    SetNext(prev, node);
    SetPrev(next, node);
  }
  void AddTail(uint64_t node, uint64_t head) { Insert(node, Prev(head), head); }
  // list_del_rcu: `next` stays.
  void Delete(uint64_t node) {
    const uint64_t prev = Prev(node);
    const uint64_t next = Next(node);
    SetPrev(next, prev);
    SetNext(prev, next);
    SetRaw(node + 8, kPoison2);
  }

  // `count` nodes in an order that is not that of their addresses.
  std::vector<uint64_t> Build(size_t head, size_t count, size_t first = 0) {
    std::vector<uint64_t> nodes;
    for (size_t i = 0; i < count; ++i) nodes.push_back(Node(first + i));
    std::shuffle(nodes.begin(), nodes.end(), std::mt19937(static_cast<unsigned>(count)));
    MakeHead(Head(head));
    for (const uint64_t node : nodes) {
      Number(node);
      AddTail(node, Head(head));
    }
    return nodes;
  }

  // What CheckRows looks for.
  void Number(uint64_t node) {
    machine.guest->Put<uint32_t>(node - kLink, static_cast<uint32_t>(node));
    machine.guest->Put64(node - kLink + 0x10, kDirectMap + node - kLink);
  }
  // A node of no list yet.
  uint64_t Make(size_t i) {
    Number(Node(i));
    return Node(i);
  }

  // What a walk found, in copies.
  struct Found {
    std::vector<uint64_t> nodes;
    std::vector<uint32_t> counts;
    uint32_t retries;
  };
  Result<Found> Walk(std::vector<size_t> heads = {0}, size_t max = 100'000,
                     const RowBuffer& into = {}) {
    if (walker == nullptr)
      walker = std::move(ListWalker::Create(space.get(), *plan, kLink).value());
    std::vector<uint64_t> addresses;
    for (const size_t head : heads) addresses.push_back(kDirectMap + Head(head));
    Status status = walker->Walk(addresses.data(), addresses.size(), max, into);
    if (!status.ok()) return status;
    std::vector<uint64_t> nodes = walker->nodes();
    for (uint64_t& node : nodes) node -= kDirectMap;
    return Found{std::move(nodes), walker->counts(), walker->retries()};
  }

  // The rows of the last walk.
  std::vector<uint8_t> Fill() {
    const size_t count = walker->nodes().size();
    std::vector<uint8_t> rows(RowLayout(*plan, count).total, 0xee);
    CHECK(walker->Fill({rows.data(), count}).ok());
    return rows;
  }

  // Columns of its rows: the number at 0, and the same through a pointer.
  void CheckRows() {
    const std::vector<uint64_t>& nodes = walker->nodes();
    std::vector<uint8_t> rows(RowLayout(*plan, nodes.size()).total);
    FillAndCheck({rows.data(), nodes.size()});
  }

  void FillAndCheck(const RowBuffer& rows) {
    const std::vector<uint64_t>& nodes = walker->nodes();
    const RowLayout layout(*plan, rows.capacity);
    CHECK(walker->Fill(rows).ok());
    for (size_t i = 0; i < nodes.size(); ++i) {
      uint32_t mask;
      uint64_t base;
      std::memcpy(&mask, rows.bytes + i * 4, 4);
      std::memcpy(&base, rows.bytes + layout.bases + i * 8, 8);
      EQUAL(mask, 0u);
      EQUAL(base, nodes[i] - kLink);
      for (const size_t column : {0, 2}) {
        uint32_t number;
        std::memcpy(&number, rows.bytes + layout.columns[column] + i * 4, 4);
        EQUAL(number, static_cast<uint32_t>(nodes[i] - kDirectMap));
      }
    }
  }

  DirectMapped machine;
  std::unique_ptr<AddressSpace> space;
  std::unique_ptr<Plan> plan;
  std::unique_ptr<ListWalker> walker;
};

Error Fails(Lists& lists, Code code, std::vector<size_t> heads = {0}) {
  Result<Lists::Found> walk = lists.Walk(std::move(heads));
  CHECK(!walk.ok());
  EQUAL(walk.error().code, code);
  return walk.TakeError();
}

TEST(walks_in_order) {
  for (const bool mapped : {true, false}) {
    for (const size_t count : {0, 1, 2, 255, 256, 257, 600}) {
      Lists lists(mapped);
      const auto nodes = lists.Build(0, count);
      const Lists::Found walk = lists.Walk().value();
      CHECK(walk.nodes == nodes);
      EQUAL(walk.retries, 0u);
      EQUAL(walk.counts.size(), 1u);
      EQUAL(walk.counts[0], count);
      lists.CheckRows();
    }
  }
}

TEST(rows_go_where_there_is_room) {
  struct Way {
    bool is_mapped;
    bool is_parallel;
  };
  for (const auto& [is_mapped, is_parallel] :
       {Way{true, false}, Way{false, false}, Way{false, true}}) {
    for (const size_t capacity : {700, 699, 701, 300, 1000, 0}) {
      Lists lists(is_mapped, is_parallel);
      auto nodes = lists.Build(0, 700);
      const auto remove = [&](size_t i) {
        lists.Delete(nodes[i]);
        const uint64_t node = nodes[i];
        nodes.erase(nodes.begin() + static_cast<ptrdiff_t>(i));
        return node;
      };
      const auto insert = [&](uint64_t node, size_t i) {
        lists.Insert(node, lists.Prev(nodes[i]), nodes[i]);
        nodes.insert(nodes.begin() + static_cast<ptrdiff_t>(i), node);
      };
      // The first walk, one that follows its trail, and ones that leave it: rows move down, up, or
      // both.
      for (int round = 0; round < 9; ++round) {
        if (round == 2) insert(remove(500), 100);
        if (round == 3) insert(remove(100), 600);
        if (round == 4) {
          remove(300);
          remove(0);
        }
        if (round == 5) {
          const uint64_t node = remove(200);
          remove(210);
          insert(node, 400);
        }
        if (round == 6) insert(lists.Make(1000), 350);
        if (round == 7) {
          insert(lists.Make(1001), 20);
          remove(10);
        }
        if (round == 8) {
          while (nodes.size() > 290) remove(nodes.size() / 2);
        }
        const size_t total = RowLayout(*lists.plan, capacity).total;
        std::vector<uint8_t> room(total + 64, 0xee);
        const RowBuffer into{room.data(), capacity};
        CHECK(lists.Walk({0}, 1000, into).value().nodes == nodes);
        // Elsewhere all the same.
        lists.CheckRows();
        if (capacity >= nodes.size()) lists.FillAndCheck(into);
        lists.CheckRows();
        for (size_t i = total; i < room.size(); ++i) EQUAL(room[i], 0xeeu);
      }
    }
  }
}

// A node that the walk has passed is freed and used again further on: rows that were filled under
// way are no longer where they belong.
TEST(rows_belong_to_their_nodes_where_one_moves_under_the_walk) {
  size_t moved = 0;
  for (const bool is_mapped : {true, false}) {
    for (const size_t which : {0, 100, 255, 300, 520}) {
      // Where mapped memory is loaded to fill rows, too, the walk is not that far.
      for (const size_t steps : {150, 450, 650, 1560, 1600, 1640}) {
        Lists lists(is_mapped);
        auto nodes = lists.Build(0, 940);
        std::vector<uint8_t> bytes(RowLayout(*lists.plan, 1000).total);
        const RowBuffer into{bytes.data(), 1000};
        for (int round = 0; round < 2; ++round) {
          // When the walk is that far, by what it has loaded since then.
          bool is_done = false;
          const uint64_t node = nodes[which];
          const auto move = [&] {
            lists.Delete(node);
            lists.Insert(node, nodes[669], nodes[670]);
            is_done = true;
          };
          size_t loads = 0;
          const auto count = [&] {
            if (!is_done && ++loads == steps) move();
          };
          if (is_mapped) {
            lists.machine.guest->before_load = count;
          } else {
            lists.machine.guest->before_read = [&](size_t) { count(); };
          }
          const auto walk = lists.Walk({0}, 2000, into).value();
          lists.machine.guest->before_load = nullptr;
          lists.machine.guest->before_read = nullptr;
          CHECK(std::set<uint64_t>(walk.nodes.begin(), walk.nodes.end()).size() ==
                walk.nodes.size());
          moved += walk.retries;
          lists.FillAndCheck(into);
          if (!is_done) continue;
          nodes.insert(nodes.begin() + 670, node);
          nodes.erase(nodes.begin() + static_cast<ptrdiff_t>(which));
        }
      }
    }
  }
  CHECK(moved > 20);
}

TEST(walks_many_lists) {
  for (const bool mapped : {true, false}) {
    Lists lists(mapped);
    const auto a = lists.Build(0, 10);
    lists.Build(1, 0);
    const auto c = lists.Build(2, 300, 50);
    const Lists::Found walk = lists.Walk({2, 1, 0}).value();
    auto expected = c;
    expected.insert(expected.end(), a.begin(), a.end());
    CHECK(walk.nodes == expected);
    CHECK(walk.counts == (std::vector<uint32_t>{300, 0, 10}));
    lists.CheckRows();
    EQUAL(lists.Walk({}).value().nodes.size(), 0u);
  }
}

TEST(a_step_is_one_batch_of_one_element) {
  Lists lists(false);
  lists.Build(0, 100);
  const size_t before = lists.machine.guest->reads;
  CHECK(lists.Walk().ok());
  EQUAL(lists.machine.guest->reads - before, 101u);
  EQUAL(lists.machine.guest->requests, 101u);
}

TEST(heads_of_many_lists_are_one_batch) {
  constexpr size_t kLists = 100;
  Lists lists(false);
  std::vector<size_t> heads;
  for (size_t i = 0; i < kLists; ++i) {
    lists.Build(i, 1, i);
    heads.push_back(i);
  }
  const size_t before = lists.machine.guest->reads;
  EQUAL(lists.Walk(heads).value().nodes.size(), kLists);
  EQUAL(lists.machine.guest->reads - before, kLists + 1);
  // All nodes, what hangs on them, and the heads.
  const size_t known = lists.machine.guest->reads;
  EQUAL(lists.Walk(heads).value().nodes.size(), kLists);
  EQUAL(lists.machine.guest->reads - known, 3u);
  lists.CheckRows();
}

TEST(a_list_that_changes_after_its_head_was_read_is_read_as_it_became) {
  enum class Change { kFirstGoes, kLastGoes, kAllGo, kOneComes, kOneComesFirst };
  for (const Change change : {Change::kFirstGoes, Change::kLastGoes, Change::kAllGo,
                              Change::kOneComes, Change::kOneComesFirst}) {
    Lists lists(false);
    lists.Build(0, 3);
    auto nodes = lists.Build(1, 3, 10);
    const auto others = lists.Build(2, 3, 20);
    const size_t heads_read = lists.machine.guest->reads;
    lists.machine.guest->before_read = [&](size_t n) {
      if (n != heads_read + 1) return;
      if (change == Change::kFirstGoes || change == Change::kAllGo) lists.Delete(nodes[0]);
      if (change == Change::kAllGo) lists.Delete(nodes[1]);
      if (change == Change::kLastGoes || change == Change::kAllGo) lists.Delete(nodes[2]);
      if (change == Change::kOneComes) lists.AddTail(lists.Make(30), Lists::Head(1));
      if (change == Change::kOneComesFirst) lists.Insert(lists.Make(30), Lists::Head(1), nodes[0]);
    };
    const Lists::Found walk = lists.Walk({0, 1, 2}).value();
    if (change == Change::kFirstGoes) nodes.erase(nodes.begin());
    if (change == Change::kLastGoes) nodes.pop_back();
    if (change == Change::kAllGo) nodes.clear();
    if (change == Change::kOneComes) nodes.push_back(Lists::Node(30));
    if (change == Change::kOneComesFirst) nodes.insert(nodes.begin(), Lists::Node(30));
    EQUAL(walk.counts[0], 3u);
    EQUAL(walk.counts[1], nodes.size());
    EQUAL(walk.counts[2], 3u);
    const auto second = walk.nodes.begin() + 3;
    CHECK(std::equal(nodes.begin(), nodes.end(), second));
    CHECK(std::equal(others.begin(), others.end(), second + static_cast<ptrdiff_t>(nodes.size())));
    lists.CheckRows();
  }
}

TEST(a_head_that_cannot_be_read_is_a_fault_wherever_it_is) {
  for (const bool mapped : {true, false}) {
    Lists lists(mapped);
    lists.Build(0, 3);
    // The second head lies in the page before.
    const uint64_t heads[] = {kDirectMap + Lists::Head(0), kDirectMap + Lists::Head(0) - 0x1000};
    lists.MakeHead(Lists::Head(0) - 0x1000);
    const auto walker =
        std::move(ListWalker::Create(lists.space.get(), *lists.plan, kLink).value());
    CHECK(walker->Walk(heads, 2, 10).ok());
    lists.machine.guest->bad_pages.insert(Lists::Head(0) - 0x1000);
    const Status walk = walker->Walk(heads, 2, 10);
    EQUAL(walk.error().code, Code::kFault);
    EQUAL(walk.error().fault.address, heads[1]);
  }
}

TEST(refuses_more_rows_than_max) {
  for (const bool mapped : {true, false}) {
    Lists lists(mapped);
    lists.Build(0, 300);
    CHECK(lists.Walk({0}, 300).ok());
    const auto walk = lists.Walk({0}, 299);
    CHECK(walk.error().code == Code::kCorrupt);
    EQUAL(walk.error().found, 299u);
  }
}

TEST(wild_pointers_are_corrupt) {
  for (const bool mapped : {true, false}) {
    for (const uint64_t wild :
         {uint64_t{0}, uint64_t{0x7fff'0000'1000}, kPoison1, kDirectMap + 0x50004,
          uint64_t{0x8000'0000'0000'0000}, UINT64_MAX, kDirectMap + (uint64_t{1} << 30)}) {
      Lists lists(mapped);
      const auto nodes = lists.Build(0, 300);
      lists.SetRaw(nodes[280], wild);
      const Error error = Fails(lists, Code::kCorrupt);
      EQUAL(error.found, 281u);
      CHECK(error.address == kDirectMap + nodes[280] || error.address == wild);
      CHECK(error.message.find(Hex(wild)) != std::string::npos);
    }
    Lists lists(mapped);
    lists.Build(0, 1);
    lists.SetRaw(Lists::Head(0), 0);
    EQUAL(Fails(lists, Code::kCorrupt).found, 0u);
  }
}

TEST(heads_must_be_readable_kernel_addresses) {
  Lists lists;
  const auto walker = std::move(ListWalker::Create(lists.space.get(), *lists.plan, kLink).value());
  for (const uint64_t head : {uint64_t{0}, uint64_t{0x1000}, kDirectMap + 4}) {
    const Status walk = walker->Walk(&head, 1, 10);
    CHECK(walk.error().code == Code::kCorrupt);
    EQUAL(walk.error().address, head);
  }
  const uint64_t nowhere = kDirectMap + (uint64_t{1} << 30);
  const Status walk = walker->Walk(&nowhere, 1, 10);
  CHECK(walk.error().code == Code::kFault);
  EQUAL(walk.error().fault.address, nowhere);
}

TEST(cycles_are_corrupt) {
  for (const bool mapped : {true, false}) {
    for (const size_t from : {0, 1, 150, 299}) {
      for (const size_t to : {0, 1, 150, 298}) {
        Lists lists(mapped);
        const auto nodes = lists.Build(0, 300);
        if (to == from + 1) continue;
        lists.SetNext(nodes[from], nodes[to]);
        Fails(lists, Code::kCorrupt);
        if (to > from) continue;
        // Even when the back pointer is made to fit.
        lists.SetPrev(nodes[to], nodes[from]);
        Fails(lists, Code::kCorrupt);
      }
    }
    Lists lists(mapped);
    const auto nodes = lists.Build(0, 3);
    lists.SetNext(nodes[1], nodes[1]);
    lists.SetPrev(nodes[1], nodes[1]);
    Fails(lists, Code::kCorrupt);
  }
}

TEST(lists_that_run_into_each_other_are_corrupt) {
  for (const bool mapped : {true, false}) {
    for (const bool fits : {false, true}) {
      for (const bool listed : {false, true}) {
        Lists lists(mapped);
        const auto a = lists.Build(0, 20);
        const auto b = lists.Build(1, 20, 100);
        lists.SetNext(a[10], b[10]);
        if (fits) lists.SetPrev(b[10], a[10]);
        Fails(lists, Code::kCorrupt, listed ? std::vector<size_t>{0, 1} : std::vector<size_t>{0});
      }
      Lists lists(mapped);
      const auto a = lists.Build(0, 20);
      lists.Build(1, 20, 100);
      lists.SetNext(a[10], Lists::Head(1));
      if (fits) lists.SetPrev(Lists::Head(1), a[10]);
      Fails(lists, Code::kCorrupt, {0, 1});
    }
    Lists lists(mapped);
    lists.Build(0, 3);
    Fails(lists, Code::kCorrupt, {0, 0});
  }
}

TEST(a_guest_stopped_within_list_add_or_list_del_is_followed) {
  for (const bool mapped : {true, false}) {
    for (const size_t at : {0, 1, 150, 299}) {
      // list_del_rcu after its first store, and after its second.
      for (const int stores : {1, 2}) {
        Lists lists(mapped);
        auto nodes = lists.Build(0, 300);
        const uint64_t prev = lists.Prev(nodes[at]);
        const uint64_t next = lists.Next(nodes[at]);
        lists.SetPrev(next, prev);
        if (stores == 2) {
          lists.SetNext(prev, next);
          nodes.erase(nodes.begin() + static_cast<ptrdiff_t>(at));
        }
        CHECK(lists.Walk().value().nodes == nodes);
      }
      // list_add_rcu before its last store.
      Lists lists(mapped);
      auto nodes = lists.Build(0, 300);
      const uint64_t next = lists.Next(nodes[at]);
      lists.Insert(Lists::Node(500), nodes[at], next);
      lists.SetPrev(next, nodes[at]);
      const auto walk = lists.Walk().value();
      nodes.insert(nodes.begin() + static_cast<ptrdiff_t>(at) + 1, Lists::Node(500));
      CHECK(walk.nodes == nodes);
      CHECK(walk.retries > 0);
    }
  }
}

TEST(nodes_unlinked_under_the_walk_are_stepped_back_from) {
  // Before each read of a walk of 30 nodes: the node the walk is on goes, and the two before it.
  for (size_t when = 1; when < 31; ++when) {
    for (const size_t gone : {1, 2, 3, 4, 5, 6}) {
      Lists lists(false);
      // Also where the source would give what it read before.
      lists.machine.guest->caches = gone > 3;
      const auto nodes = lists.Build(0, 30);
      const size_t at = when - 1;  // nodes[at - 1] was read last, nodes[at] comes now
      std::set<uint64_t> deleted;
      lists.machine.guest->before_read = [&](size_t n) {
        if (n != when) return;
        for (size_t i = 0; i < (gone - 1) % 3 + 1 && at >= i + 1; ++i) {
          lists.Delete(nodes[at - 1 - i]);
          deleted.insert(nodes[at - 1 - i]);
        }
      };
      const Lists::Found walk = lists.Walk().value();
      std::vector<uint64_t> expected;
      for (const uint64_t node : nodes) {
        if (deleted.count(node) == 0) expected.push_back(node);
      }
      CHECK(walk.nodes == expected);
      EQUAL(walk.retries > 0, !deleted.empty());
      lists.CheckRows();
    }
  }
}

TEST(a_node_that_is_freed_and_used_again_is_reported_once) {
  for (size_t when = 1; when < 31; ++when) {
    for (size_t which = 0; which < 30; ++which) {
      Lists lists(false);
      auto nodes = lists.Build(0, 30);
      lists.machine.guest->before_read = [&](size_t n) {
        if (n != when) return;
        lists.Delete(nodes[which]);
        lists.AddTail(nodes[which], Lists::Head(0));
      };
      const Lists::Found walk = lists.Walk().value();
      const uint64_t moved = nodes[which];
      nodes.erase(nodes.begin() + static_cast<ptrdiff_t>(which));
      nodes.push_back(moved);
      CHECK(walk.nodes == nodes);
      EQUAL(walk.counts[0], 30u);
      lists.CheckRows();
    }
  }
}

// What stays in the list from beginning to end is found, once, in order; nothing is found that
// never was in it.
TEST(a_list_under_constant_change_is_followed) {
  std::mt19937_64 random(3);
  size_t given_up = 0;
  for (int round = 0; round < 400; ++round) {
    const bool many = round % 2 == 0;
    const bool mapped = round % 4 >= 2;
    Lists lists(mapped);
    const size_t lists_count = many ? 3 : 1;
    // More than a sprint over mapped memory holds.
    const size_t count = mapped && !many ? 380 : 60;
    std::vector<std::vector<uint64_t>> stable(lists_count);
    std::vector<uint64_t> live;
    std::set<uint64_t> ever;
    std::vector<size_t> heads;
    for (size_t list = 0; list < lists_count; ++list) {
      heads.push_back(list);
      for (const uint64_t node : lists.Build(list, count, list * count)) {
        ever.insert(node);
        if (random() % 2 == 0) {
          stable[list].push_back(node);
        } else {
          live.push_back(node);
        }
      }
    }
    std::vector<uint64_t> unused;
    for (size_t i = 0; i < 100; ++i) unused.push_back(Lists::Node(400 + i));
    for (const uint64_t node : unused) {
      lists.machine.guest->Put<uint32_t>(node - kLink, static_cast<uint32_t>(node));
      lists.machine.guest->Put64(node - kLink + 0x10, kDirectMap + node - kLink);
    }
    // Half of the walks follow one that left its trail to be read ahead.
    if (round % 8 < 4) CHECK(lists.Walk(heads).ok());
    const size_t every = 2 + random() % 6;
    const auto change = [&](size_t n) {
      if (n % every != 0) return;
      if (random() % 2 == 0 && !live.empty()) {
        const size_t i = random() % live.size();
        lists.Delete(live[i]);
        unused.push_back(live[i]);
        live.erase(live.begin() + static_cast<ptrdiff_t>(i));
      } else if (!unused.empty()) {
        // Last freed, first used: what slabs do.
        const uint64_t node = unused.back();
        unused.pop_back();
        lists.AddTail(node, Lists::Head(random() % lists_count));
        live.push_back(node);
        ever.insert(node);
      }
    };
    size_t loads = 0;
    lists.machine.guest->before_read = change;
    lists.machine.guest->before_load = [&] {
      if (++loads % 5 == 0) change(loads / 5);
    };
    const Result<Lists::Found> walk = lists.Walk(heads);
    lists.machine.guest->before_read = nullptr;
    lists.machine.guest->before_load = nullptr;
    if (!walk.ok()) {
      CHECK(walk.error().code == Code::kCorrupt);
      ++given_up;
      continue;
    }
    const auto nodes = walk.value().nodes;
    EQUAL(std::set<uint64_t>(nodes.begin(), nodes.end()).size(), nodes.size());
    for (const uint64_t node : nodes) CHECK(ever.count(node) != 0);
    size_t from = 0;
    for (size_t list = 0; list < lists_count; ++list) {
      auto at = nodes.begin() + static_cast<ptrdiff_t>(from);
      from += walk.value().counts[list];
      const auto end = nodes.begin() + static_cast<ptrdiff_t>(from);
      for (const uint64_t node : stable[list]) {
        at = std::find(at, end, node);
        CHECK(at != end);
      }
    }
    EQUAL(from, nodes.size());
    // Rows hold what their nodes hold, whichever of them were dropped on the way.
    lists.CheckRows();
  }
  std::cerr << "    gave up " << given_up << " of 400\n";
  CHECK(given_up < 20);
}

TEST(nodes_of_the_last_walk_are_read_ahead) {
  Lists lists(false);
  const auto nodes = lists.Build(0, 60);
  CHECK(lists.Walk().ok());
  Guest& guest = *lists.machine.guest;
  guest.reads = 0;
  const Lists::Found same = lists.Walk().value();
  CHECK(same.nodes == nodes);
  // All nodes, what hangs on them, and the head.
  EQUAL(guest.reads, 3u);
  EQUAL(same.retries, 0u);
  lists.CheckRows();

  // A list that has changed is read as it is: each new node by itself.
  for (const size_t gone : {0, 1, 30, 59}) lists.Delete(nodes[gone]);
  for (size_t i = 100; i < 103; ++i) lists.AddTail(lists.Make(i), Lists::Head(0));
  guest.reads = 0;
  const Lists::Found changed = lists.Walk().value();
  EQUAL(changed.nodes.size(), 59u);
  EQUAL(changed.retries, 0u);
  EQUAL(guest.reads, 6u);
  lists.CheckRows();
}

TEST(a_walk_that_knows_the_list_checks_it_all_the_same) {
  for (const bool is_mapped : {true, false}) {
    for (const size_t which : {0, 1, 17, 59}) {
      Lists lists(is_mapped);
      auto nodes = lists.Build(0, 60);
      CHECK(lists.Walk().ok());
      // Unlinked, but its own links are as they were.
      const uint64_t node = nodes[which];
      const uint64_t prev = lists.Prev(node);
      const uint64_t next = lists.Next(node);
      lists.SetNext(prev, next);
      lists.SetPrev(next, prev);
      nodes.erase(nodes.begin() + static_cast<ptrdiff_t>(which));
      const Lists::Found walk = lists.Walk().value();
      CHECK(walk.nodes == nodes);
      EQUAL(walk.retries, 0u);
      lists.CheckRows();
      // A back pointer that leads elsewhere.
      lists.SetPrev(nodes[which == 0 ? 1 : which - 1], nodes[30]);
      CHECK(Fails(lists, Code::kCorrupt).message.find("points back to") != std::string::npos);
    }
  }
}

void TestSingleUse(const std::vector<size_t>& heads) {
  Lists lists(false);
  auto nodes = lists.Build(0, 30);
  lists.Build(1, 0);
  CHECK(lists.Walk(heads).ok());
  Guest& guest = *lists.machine.guest;
  // Read by itself, once all nodes, what hangs on them, and the head were read.
  const uint64_t fresh = lists.Make(100);
  lists.Insert(fresh, nodes[10], nodes[11]);
  const size_t alone = guest.reads + 3;
  guest.before_read = [&](size_t n) {
    // The node before it goes; after the walk has seen that, it is back, as another one.
    if (n == alone) lists.Delete(nodes[10]);
    if (n != alone + 2) return;
    guest.Put<uint32_t>(nodes[10] - kLink, 4711);
    lists.Insert(nodes[10], nodes[9], fresh);
  };
  const Lists::Found walk = lists.Walk(heads).value();
  nodes.insert(nodes.begin() + 11, fresh);
  CHECK(walk.nodes == nodes);
  EQUAL(walk.retries, 1u);
  const RowLayout layout(*lists.plan, nodes.size());
  const std::vector<uint8_t> rows = lists.Fill();
  uint32_t number;
  std::memcpy(&number, rows.data() + layout.columns[0] + 10 * sizeof number, sizeof number);
  EQUAL(number, 4711u);
}

TEST(what_was_read_ahead_is_used_once) {
  // A walk of one list takes runs of what was read ahead, one of several takes node by node.
  TestSingleUse({0});
  TestSingleUse({0, 1});
}

TEST(two_threads_read_ahead) {
  std::mt19937 random(3);
  for (int round = 0; round < 30; ++round) {
    Lists lists(false, true);
    Guest& guest = *lists.machine.guest;
    auto nodes = lists.Build(0, 700);
    CHECK(lists.Walk().value().nodes == nodes);
    const size_t before = guest.reads;
    CHECK(lists.Walk().value().nodes == nodes);
    // The head, and per block the nodes and what hangs on them.
    EQUAL(guest.reads - before, 1 + 2 * (700u / kCopiedBlock + 1));
    for (int i = 0; i < round; ++i) {
      const size_t gone = random() % nodes.size();
      lists.Delete(nodes[gone]);
      if (i % 2 == 0) {
        // It comes back elsewhere.
        lists.AddTail(nodes[gone], Lists::Head(0));
        nodes.push_back(nodes[gone]);
      }
      nodes.erase(nodes.begin() + static_cast<ptrdiff_t>(gone));
    }
    const Lists::Found walk = lists.Walk().value();
    CHECK(walk.nodes == nodes);
    EQUAL(walk.retries, 0u);
    lists.CheckRows();
  }
}

TEST(what_hangs_on_nodes_is_read_ahead_with_them_as_it_is_now) {
  for (const bool parallel : {false, true}) {
    Lists lists(false, parallel);
    auto& guest = *lists.machine.guest;
    // Half of what the pointers lead to takes the page table.
    CHECK(lists.space->SetWindows({{kDirectMap, 0x90000, 0}}).ok());
    const int32_t triples[] = {-1, 0, 4, -1, 0x10, 8, 1, 0, 8, 2, 8, 4};
    lists.plan = std::move(Plan::Create(triples, 12).value());
    constexpr size_t kCount = 300;
    const auto nodes = lists.Build(0, kCount);
    constexpr uint64_t kUnmapped = 0xb0000;
    guest.Put64(lists.machine.tables.Entry(kDirectMap + kUnmapped, 1), 0);
    guest.bad_pages = {0x8e000, 0xae000};
    std::mt19937_64 random(11);
    for (int round = 0; round < 4; ++round) {
      for (const uint64_t node : nodes) {
        const uint64_t first = 0x80000 + random() % 0x31000;
        const uint64_t second = 0x80000 + random() % 0x31000;
        lists.SetRaw(node - kLink + 0x10, random() % 7 == 0 ? 0 : kDirectMap + first);
        guest.Put64(first, random() % 7 == 0 ? 0 : kDirectMap + second);
      }
      const size_t reads = guest.reads;
      const Lists::Found walk = lists.Walk().value();
      CHECK(walk.nodes == nodes);
      // The first walk knows no node: it reads each by itself.
      CHECK(round == 0 ? guest.reads - reads > kCount : guest.reads - reads < kCount);
      const RowLayout layout(*lists.plan, kCount);
      const std::vector<uint8_t> rows = lists.Fill();
      for (size_t i = 0; i < kCount; ++i) {
        uint32_t mask;
        std::memcpy(&mask, rows.data() + i * 4, 4);
        uint32_t expected_mask = 0;
        uint64_t pointers[2];
        uint32_t value = 0;
        pointers[0] = guest.Get64(nodes[i] - kLink + 0x10);
        const auto read = [&](uint64_t address, auto* into, uint32_t bit) {
          *into = 0;
          if (lists.space->Read(address, reinterpret_cast<uint8_t*>(into), sizeof *into).value() ==
              sizeof *into)
            return;
          *into = 0;
          expected_mask |= bit;
        };
        pointers[1] = 0;
        if (pointers[0] != 0) read(pointers[0], &pointers[1], 4);
        if (pointers[1] != 0) read(pointers[1] + 8, &value, 8);
        EQUAL(mask, expected_mask);
        CHECK(std::memcmp(rows.data() + layout.columns[1] + i * 8, &pointers[0], 8) == 0);
        CHECK(std::memcmp(rows.data() + layout.columns[2] + i * 8, &pointers[1], 8) == 0);
        CHECK(std::memcmp(rows.data() + layout.columns[3] + i * 4, &value, 4) == 0);
      }
    }
  }
}

TEST(a_list_that_changes_while_it_is_read_ahead_is_read_as_it_became) {
  // After the nodes were read ahead and before the head is: a node goes, or moves to the end.
  for (const bool moves : {false, true}) {
    for (size_t which = 0; which < 30; ++which) {
      Lists lists(false);
      auto nodes = lists.Build(0, 30);
      CHECK(lists.Walk().ok());
      const size_t before = lists.machine.guest->reads;
      lists.machine.guest->before_read = [&](size_t n) {
        if (n != before + 1) return;
        lists.Delete(nodes[which]);
        if (moves) lists.AddTail(nodes[which], Lists::Head(0));
      };
      const Lists::Found walk = lists.Walk().value();
      const uint64_t moved = nodes[which];
      nodes.erase(nodes.begin() + static_cast<ptrdiff_t>(which));
      if (moves) nodes.push_back(moved);
      // What was read ahead was in the list then: the node may be found where it was, or not at
      // all.
      const auto found = walk.nodes;
      EQUAL(std::set<uint64_t>(found.begin(), found.end()).size(), found.size());
      auto at = found.begin();
      for (const uint64_t node : nodes) {
        if (node == moved) continue;
        at = std::find(at, found.end(), node);
        CHECK(at != found.end());
      }
      if (moves) CHECK(std::find(found.begin(), found.end(), moved) != found.end());
      lists.CheckRows();
    }
  }
}

TEST(a_guest_that_grows_the_list_forever_is_left) {
  Lists lists(false);
  lists.Build(0, 10);
  size_t next = 100;
  lists.machine.guest->before_read = [&](size_t) {
    if (next < 2500) lists.AddTail(Lists::Node(next++), Lists::Head(0));
  };
  CHECK(lists.Walk({0}, 200).error().code == Code::kCorrupt);
}

TEST(a_guest_that_spoils_every_read_is_left) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 30; ++round) {
    Lists lists(false);
    const auto nodes = lists.Build(0, 50);
    lists.machine.guest->before_read = [&](size_t) {
      for (int i = 0; i < 3; ++i) {
        const uint64_t node = nodes[random() % 50];
        const uint64_t other = nodes[random() % 50];
        random() % 2 == 0 ? lists.SetNext(node, other) : lists.SetPrev(node, other);
        if (round % 2 == 0) lists.SetPrev(other, node);
      }
    };
    const auto walk = lists.Walk({0}, 1000);
    if (!walk.ok()) CHECK(walk.error().code == Code::kCorrupt);
    CHECK(lists.machine.guest->reads < 30'000);
  }
}

TEST(a_source_that_is_gone_is_no_broken_list) {
  Lists first(false);
  first.Build(0, 10);
  CHECK(first.Walk().ok());
  for (size_t n = 0; n < first.machine.guest->reads; ++n) {
    Lists lists(false);
    lists.Build(0, 10);
    lists.machine.guest->fail_at = n;
    Fails(lists, Code::kClosed);
  }
}

TEST(columns_that_cannot_be_read_are_marked_while_the_list_goes_on) {
  Lists lists(false);
  const int32_t triples[] = {-1, 0, 4, -1, 0x2000, 8, -1, 0x40, 32};
  lists.plan = std::move(Plan::Create(triples, 9).value());
  const auto nodes = lists.Build(0, 5);
  lists.machine.guest->bad_pages.insert(((nodes[2] - kLink) & ~kPageMask) + 0x2000);
  const Lists::Found walk = lists.Walk().value();
  CHECK(walk.nodes == nodes);
  const RowLayout layout(*lists.plan, 5);
  const std::vector<uint8_t> rows = lists.Fill();
  for (size_t i = 0; i < 5; ++i) {
    uint32_t mask;
    uint64_t next;
    std::memcpy(&mask, rows.data() + i * 4, 4);
    std::memcpy(&next, rows.data() + layout.columns[2] + i * 32 + 8, 8);
    EQUAL(mask, 2u);
    EQUAL(next, lists.machine.guest->Get64(nodes[i]));
  }
}

TEST(a_page_that_cannot_be_read_hides_nothing_behind_it) {
  for (const bool mapped : {true, false}) {
    Lists lists(mapped);
    // The first column is in the page before the node's.
    const int32_t triples[] = {-1, -0x600, 8, -1, 0, 4};
    lists.plan = std::move(Plan::Create(triples, 6).value());
    const auto nodes = lists.Build(0, 5);
    lists.machine.guest->bad_pages.insert(Lists::Node(0) - kLink - kPageSize);
    for (int round = 0; round < 2; ++round) {
      const Lists::Found walk = lists.Walk().value();
      CHECK(walk.nodes == nodes);
      const RowLayout layout(*lists.plan, 5);
      const std::vector<uint8_t> rows = lists.Fill();
      for (size_t i = 0; i < 5; ++i) {
        uint32_t mask;
        uint32_t number;
        std::memcpy(&mask, rows.data() + i * 4, 4);
        std::memcpy(&number, rows.data() + layout.columns[1] + i * 4, 4);
        EQUAL(mask, 1u);
        EQUAL(number, static_cast<uint32_t>(nodes[i]));
      }
    }
  }
}

}  // namespace
}  // namespace vmi::test

MAIN
