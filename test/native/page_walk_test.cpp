// Page walks, translations and mappings. SDM vol. 3A, 4.5.
#include <algorithm>
#include <random>

#include "check.h"
#include "fake_source.h"

namespace vmi::test {
namespace {

constexpr uint64_t kKernel = 0xffff'ffff'8000'0000;

int FaultLevel(AddressSpace* space, uint64_t address) {
  const Result<uint64_t> result = space->Translate(address);
  CHECK(!result.ok());
  CHECK(result.error().code == Code::kFault);
  EQUAL(result.error().fault.address, address);
  CHECK(result.error().fault.is_virtual);
  return result.error().fault.level;
}

TEST(translates_pages_of_every_size) {
  for (const int levels : {4, 5}) {
    auto guest = std::make_shared<Guest>(1 << 20);
    Tables tables(guest, 0x1000, levels);
    tables.Map(kKernel, 0x12345000, 1);
    tables.Map(kKernel + 0x20'0000, 0x4000'0000, 2);
    tables.Map(0xffff'8880'4000'0000, 0x8000'0000, 3);
    auto space = tables.Open(Open(guest));
    // Twice: the second time from the TLB.
    for (int i = 0; i < 2; ++i) {
      EQUAL(space->Translate(kKernel + 0xabc).value(), 0x12345abcu);
      EQUAL(space->Translate(kKernel + 0x20'0000 + 0x1f'ffff).value(), 0x401f'ffffu);
      EQUAL(space->Translate(0xffff'8880'7fff'ffff).value(), 0xbfff'ffffu);
    }
  }
}

TEST(reads_the_last_table_once_where_a_load_is_a_call) {
  auto guest = std::make_shared<Guest>(1 << 20);
  guest->is_mapped = false;
  Tables tables(guest, 0x1000, 4);
  constexpr uint64_t kPages = 511;
  for (uint64_t page = 0; page < kPages; ++page)
    tables.Map(kKernel + page * 0x1000, 0x100'0000 + page * 0x3000, 1);
  auto space = tables.Open(Open(guest));
  space->Flush();
  guest->reads = 0;
  for (uint64_t page = 0; page < kPages; ++page) {
    EQUAL(space->Translate(kKernel + page * 0x1000).value(), 0x100'0000 + page * 0x3000);
  }
  // Three tables on the way, and the last one.
  EQUAL(guest->reads, 4u);
  // What is not there is looked at again; what was there stays for the operation.
  const uint64_t absent = kKernel + kPages * 0x1000;
  EQUAL(FaultLevel(space.get(), absent), 1);
  tables.Map(absent, 0x7000, 1);
  EQUAL(space->Translate(absent).value(), 0x7000u);
  tables.Map(kKernel, 0x9000, 1);
  EQUAL(space->Translate(kKernel).value(), 0x100'0000u);
  space->Flush();
  EQUAL(space->Translate(kKernel).value(), 0x9000u);
}

TEST(loads_entries_of_a_last_table_that_cannot_be_read_whole) {
  auto guest = std::make_shared<Guest>(1 << 20);
  guest->is_mapped = false;
  Tables tables(guest, 0x1000, 4);
  tables.Map(kKernel, 0x5000, 1);
  const uint64_t table = tables.Entry(kKernel, 1) & ~uint64_t{0xfff};
  guest->bad_pages.insert(table);
  auto space = tables.Open(Open(guest));
  EQUAL(FaultLevel(space.get(), kKernel), 0);
  guest->bad_pages.clear();
  EQUAL(space->Translate(kKernel).value(), 0x5000u);
}

TEST(faults_at_the_level_that_is_not_present) {
  auto guest = std::make_shared<Guest>(1 << 20);
  Tables tables(guest, 0x1000, 5);
  auto space = tables.Open(Open(guest));
  EQUAL(FaultLevel(space.get(), kKernel), 5);
  for (int level = 4; level >= 1; --level) {
    tables.Entry(kKernel, level);
    EQUAL(FaultLevel(space.get(), kKernel), level);
  }
}

TEST(faults_at_level_0_where_a_table_is_not_in_ram) {
  auto guest = std::make_shared<Guest>(1 << 20);
  Tables tables(guest, 0x1000, 4);
  guest->Put64(tables.Entry(kKernel, 3), 0xdead'0000'0000 | 1);
  auto space = tables.Open(Open(guest));
  EQUAL(FaultLevel(space.get(), kKernel), 0);
  auto nowhere = std::move(AddressSpace::Create(Open(guest), uint64_t{1} << 40, 4).value());
  EQUAL(FaultLevel(nowhere.get(), kKernel), 0);
  CHECK(nowhere->Walk(kKernel).value().empty());
}

TEST(refuses_addresses_that_are_not_canonical) {
  for (const int levels : {4, 5}) {
    auto guest = std::make_shared<Guest>(1 << 20);
    Tables tables(guest, 0x1000, levels);
    const int bits = levels == 4 ? 48 : 57;
    const uint64_t bad = uint64_t{1} << (bits - 1);
    tables.Map(bad, 0x5000);
    tables.Map(0 - bad, 0x5000);
    auto space = tables.Open(Open(guest));
    EQUAL(FaultLevel(space.get(), bad), levels);
    EQUAL(FaultLevel(space.get(), (0 - bad) - 1), levels);
    CHECK(space->Walk(bad).value().empty());
    EQUAL(space->Translate(0 - bad).value(), 0x5000u);
  }
}

TEST(ignores_protection_keys_and_execute_disable) {
  auto guest = std::make_shared<Guest>(1 << 20);
  Tables tables(guest, 0x1000, 4);
  tables.Map(kKernel, 0x5000, 1, 0xfff0'0000'0000'0063);
  // PAT of a large page is bit 12: no part of the address.
  tables.Map(kKernel + 0x20'0000, 0x40'0000, 2, 0x1063);
  auto space = tables.Open(Open(guest));
  EQUAL(space->Translate(kKernel).value(), 0x5000u);
  EQUAL(space->Translate(kKernel + 0x20'0000).value(), 0x40'0000u);
}

TEST(takes_ps_where_it_is_reserved_for_not_present) {
  auto guest = std::make_shared<Guest>(1 << 20);
  Tables tables(guest, 0x1000, 5);
  tables.Map(kKernel, 0x5000);
  auto space = tables.Open(Open(guest));
  guest->Put64(tables.Entry(kKernel, 4), guest->Get64(tables.Entry(kKernel, 4)) | 0x80);
  EQUAL(FaultLevel(space.get(), kKernel), 4);
  guest->Put64(tables.Entry(kKernel, 5), guest->Get64(tables.Entry(kKernel, 5)) | 0x80);
  EQUAL(FaultLevel(space.get(), kKernel), 5);
}

TEST(walk_ends_with_the_leaf_or_what_is_not_present) {
  auto guest = std::make_shared<Guest>(1 << 20);
  Tables tables(guest, 0x1000, 4);
  tables.Map(kKernel, 0x20'0000, 2);
  auto space = tables.Open(Open(guest));
  auto steps = space->Walk(kKernel).value();
  EQUAL(steps.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const int level = 4 - static_cast<int>(i);
    EQUAL(steps[i].level, static_cast<uint64_t>(level));
    EQUAL(steps[i].entry_address, tables.Entry(kKernel, level));
    EQUAL(steps[i].entry, guest->Get64(tables.Entry(kKernel, level)));
  }
  steps = space->Walk(0).value();
  EQUAL(steps.size(), 1u);
  EQUAL(steps[0].entry, 0u);
}

TEST(a_table_may_point_to_itself) {
  auto guest = std::make_shared<Guest>(1 << 20);
  guest->Put64(0x1000 + 511 * 8, 0x1003);
  auto space = Tables(guest, 0x1000, 4).Open(Open(guest));
  EQUAL(space->Translate(0xffff'ffff'ffff'f123).value(), 0x1123u);
  EQUAL(space->Walk(0xffff'ffff'ffff'f000).value().size(), 4u);
  // The self-map shows every table as a page: one here.
  const auto mappings = space->Mappings(0, UINT64_MAX, 100).value();
  EQUAL(mappings.size(), 1u);
  EQUAL(mappings[0].start, 0xffff'ffff'ffff'f000u);
  EQUAL(mappings[0].length, 0x1000u);
}

TEST(mappings_of_a_hostile_table_end) {
  // All entries of all levels but the last lead to one table.
  auto guest = std::make_shared<Guest>(1 << 16);
  for (uint64_t i = 0; i < 512; ++i) {
    guest->Put64(0x1000 + i * 8, 0x2003);
    guest->Put64(0x2000 + i * 8, 0x3003);
    guest->Put64(0x3000 + i * 8, 0x4003);
  }
  auto space = Tables(guest, 0x1000, 4).Open(Open(guest));
  const auto empty = space->Mappings(0, UINT64_MAX, 100);
  CHECK(!empty.ok());
  CHECK(empty.error().code == Code::kCorrupt);
  guest->Put64(0x4000, 0x5003);
  const auto full = space->Mappings(0, UINT64_MAX, 100);
  CHECK(!full.ok());
  CHECK(full.error().code == Code::kCorrupt);
  EQUAL(full.error().found, 100u);
}

TEST(mappings_are_merged_clipped_and_ascending) {
  auto guest = std::make_shared<Guest>(1 << 20);
  Tables tables(guest, 0x1000, 4);
  tables.Map(0x1000, 0x9000);
  tables.Map(0x2000, 0xa000);
  tables.Map(0x3000, 0xc000);
  tables.Map(kKernel, 0x20'0000, 2);
  tables.Map(kKernel + 0x20'0000, 0x40'0000);
  tables.Map(0xffff'ffff'ffff'f000, 0x7000);
  auto space = tables.Open(Open(guest));
  auto mappings = space->Mappings(0, UINT64_MAX, 100).value();
  EQUAL(mappings.size(), 4u);
  EQUAL(mappings[0].start, 0x1000u);
  EQUAL(mappings[0].length, 0x2000u);
  EQUAL(mappings[0].physical, 0x9000u);
  EQUAL(mappings[1].physical, 0xc000u);
  EQUAL(mappings[2].start, kKernel);
  EQUAL(mappings[2].length, 0x20'1000u);
  EQUAL(mappings[3].start, 0xffff'ffff'ffff'f000u);
  mappings = space->Mappings(0x1800, 0x27ff, 100).value();
  EQUAL(mappings.size(), 1u);
  EQUAL(mappings[0].start, 0x1800u);
  EQUAL(mappings[0].length, 0x1000u);
  EQUAL(mappings[0].physical, 0x9800u);
  EQUAL(space->Mappings(0x4000, kKernel - 1, 100).value().size(), 0u);
  CHECK(space->Mappings(0, UINT64_MAX, 3).error().code == Code::kCorrupt);
  EQUAL(space->Mappings(0, UINT64_MAX, 4).value().size(), 4u);
}

TEST(mappings_name_tables_that_cannot_be_read) {
  auto guest = std::make_shared<Guest>(1 << 20);
  Tables tables(guest, 0x1000, 4);
  tables.Map(0x1000, 0x9000);
  // The second entry of the top level: a table that is no RAM.
  guest->Put64(0x1008, 0x7000'0003);
  auto space = tables.Open(Open(guest));
  const auto mappings = space->Mappings(0, UINT64_MAX, 100).value();
  EQUAL(mappings.size(), 2u);
  EQUAL(mappings[0].physical, 0x9000u);
  EQUAL(mappings[1].start, uint64_t{1} << 39);
  EQUAL(mappings[1].length, uint64_t{1} << 39);
  EQUAL(mappings[1].physical, AddressSpace::kUnreadable | 0x7000'0000u);
}

TEST(windows_come_first_but_only_into_ram) {
  auto guest = std::make_shared<Guest>(Range{0, 0x10000}, Range{0x20000, 0x10000});
  Tables tables(guest, 0x1000, 4);
  tables.Map(kDirectMap + 0x18000, 0x3000);
  auto space = tables.Open(Open(guest));
  CHECK(space->SetWindows({{kDirectMap, uint64_t{1} << 40, 0}}).ok());
  EQUAL(space->Translate(kDirectMap + 0xffff).value(), 0xffffu);
  EQUAL(space->Translate(kDirectMap + 0x2ffff).value(), 0x2ffffu);
  // Between the ranges the page table is asked.
  EQUAL(space->Translate(kDirectMap + 0x18004).value(), 0x3004u);
  EQUAL(FaultLevel(space.get(), kDirectMap + 0x10000), 1);
  CHECK(!space->SetWindows({{0xffff'ffff'ffff'f000, 0x2000, 0}}).ok());
  CHECK(!space->SetWindows({{0, 0x2000, 0xffff'ffff'ffff'f000}}).ok());
  CHECK(space->SetWindows({{0xffff'ffff'ffff'f000, 0x1000, 0}}).ok());
  EQUAL(space->Translate(UINT64_MAX).value(), 0xfffu);
  CHECK(space->SetWindows({}).ok());
  EQUAL(FaultLevel(space.get(), kDirectMap), 1);
}

TEST(flush_forgets_translations) {
  auto guest = std::make_shared<Guest>(1 << 20);
  Tables tables(guest, 0x1000, 4);
  tables.Map(kKernel, 0x5000);
  auto space = tables.Open(Open(guest));
  EQUAL(space->Translate(kKernel).value(), 0x5000u);
  tables.Map(kKernel, 0x6000);
  EQUAL(space->Translate(kKernel).value(), 0x5000u);
  space->Flush();
  EQUAL(space->Translate(kKernel).value(), 0x6000u);
}

TEST(reads_end_at_the_first_page_that_is_not_there) {
  for (const bool mapped : {true, false}) {
    auto guest = std::make_shared<Guest>(1 << 20);
    guest->is_mapped = mapped;
    Tables tables(guest, 0x1000, 4);
    tables.Map(kKernel, 0x80000);
    tables.Map(kKernel + 0x1000, 0x82000);
    tables.Map(kKernel + 0x3000, uint64_t{1} << 30);
    guest->Put64(0x80ffc, 0x1111'1111'2222'2222);
    guest->Put<uint32_t>(0x82000, 0x33333333);
    auto space = tables.Open(Open(guest));
    uint64_t value = 0;
    CHECK(space->ReadExact(kKernel + 0xffc, reinterpret_cast<uint8_t*>(&value), 8).ok());
    EQUAL(value, 0x3333'3333'2222'2222u);
    Status status = space->ReadExact(kKernel + 0x1ffc, reinterpret_cast<uint8_t*>(&value), 8);
    EQUAL(status.error().fault.address, kKernel + 0x2000);
    EQUAL(status.error().fault.requested, 8u);
    EQUAL(status.error().fault.transferred, 4u);
    EQUAL(status.error().fault.level, 1);
    EQUAL(status.error().fault.cr3, 0x1000u);
    status = space->ReadExact(kKernel + 0x3000, reinterpret_cast<uint8_t*>(&value), 8);
    EQUAL(status.error().fault.level, 0);
    std::vector<uint8_t> all(0x10000);
    EQUAL(space->Read(kKernel, all.data(), all.size()).value(), 0x2000u);
    EQUAL(space->Read(kKernel + 7, all.data(), all.size()).value(), 0x1ff9u);
    EQUAL(space->Read(kKernel + 7, all.data(), 0).value(), 0u);
  }
}

TEST(reads_at_the_end_of_addresses) {
  for (const bool mapped : {true, false}) {
    auto guest = std::make_shared<Guest>(1 << 20);
    guest->is_mapped = mapped;
    Tables tables(guest, 0x1000, 4);
    tables.Map(0xffff'ffff'ffff'f000, 0x80000);
    tables.Map(0, 0x81000);
    guest->Put<uint8_t>(0x80fff, 0x5a);
    auto space = tables.Open(Open(guest));
    uint8_t bytes[16];
    EQUAL(space->Read(UINT64_MAX, bytes, 1).value(), 1u);
    EQUAL(bytes[0], 0x5au);
    EQUAL(space->Read(UINT64_MAX, bytes, 16).value(), 1u);
    EQUAL(space->Read(UINT64_MAX - 7, bytes, 8).value(), 8u);
    CHECK(!space->ReadExact(UINT64_MAX - 6, bytes, 8).ok());
  }
}

TEST(a_source_that_is_gone_is_no_fault) {
  auto guest = std::make_shared<Guest>(1 << 20);
  guest->is_mapped = false;
  Tables tables(guest, 0x1000, 4);
  tables.Map(kKernel, 0x5000);
  for (size_t n = 0; n < 6; ++n) {
    auto memory = Open(guest);
    auto space = tables.Open(memory);
    guest->reads = 0;
    guest->fail_at = n;
    uint64_t value;
    const Status status = space->ReadExact(kKernel, reinterpret_cast<uint8_t*>(&value), 8);
    EQUAL(status.ok(), n >= 5);
    if (n < 5) CHECK(status.error().code == Code::kClosed);
    if (n < 4) CHECK(space->Walk(kKernel).error().code == Code::kClosed);
    if (n < 4) CHECK(space->Mappings(0, UINT64_MAX, 10).error().code == Code::kClosed);
  }
}

// The TLB and the cache of page tables against a walk of every level.
TEST(random_tables_translate_as_they_walk) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 60; ++round) {
    auto guest = std::make_shared<Guest>(0x10000);
    guest->is_mapped = round % 2 == 0;
    for (uint64_t at = 0; at < 0x10000; at += 8) {
      const uint64_t bits = random();
      guest->Put64(at,
                   (bits & 0xe000'0000'0000'0fff) | ((bits >> 20 & 0x1f) << 12) | (bits >> 30 & 1));
    }
    const int levels = round % 3 == 0 ? 5 : 4;
    auto space = Tables(guest, (random() % 16) << 12, levels).Open(Open(guest));
    for (int i = 0; i < 2000; ++i) {
      uint64_t address = random() & ((uint64_t{1} << (12 + 9 * levels)) - 1);
      if (i % 2 == 0) address &= 0x0000'7000'07ff'ffff;
      if ((address >> (11 + 9 * levels) & 1) != 0) address |= ~uint64_t{0} << (12 + 9 * levels);
      const auto steps = space->Walk(address).value();
      const auto physical = space->Translate(address);
      EQUAL(space->Translate(address).ok(), physical.ok());
      if (!physical.ok()) continue;
      CHECK(!steps.empty());
      const AddressSpace::Step& leaf = steps.back();
      const uint64_t size = uint64_t{1} << (12 + 9 * (leaf.level - 1));
      EQUAL(physical.value(),
            (leaf.entry & 0x000f'ffff'ffff'f000 & ~(size - 1)) | (address & (size - 1)));
    }
  }
}

}  // namespace
}  // namespace vmi::test

MAIN
