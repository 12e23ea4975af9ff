// Gathers: what a plan names, from mapped memory and in batches.
#include <random>

#include "check.h"
#include "core/gather/gatherer.h"
#include "fake_source.h"

namespace vmi::test {
namespace {

struct Rows {
  Rows(const Plan& plan, size_t count)
      : layout(plan, count), bytes(layout.total + 64, 0xee), plan_(plan) {}

  uint32_t Mask(size_t row) const { return Load<uint32_t>(row * 4); }
  uint64_t Base(size_t row) const { return Load<uint64_t>(layout.bases + row * 8); }
  uint64_t U64(size_t row, size_t column) const {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data() + layout.columns[column] + row * plan_.columns()[column].size,
                std::min<size_t>(8, plan_.columns()[column].size));
    return value;
  }
  template <typename T>
  T Load(size_t at) const {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
  }

  RowLayout layout;
  std::vector<uint8_t> bytes;

 private:
  const Plan& plan_;
};

std::unique_ptr<Plan> MakePlan(std::vector<int32_t> triples) {
  return std::move(Plan::Create(triples.data(), triples.size()).value());
}

Rows Run(AddressSpace* space, const Plan& plan, const std::vector<uint64_t>& bases) {
  Rows rows(plan, bases.size());
  CHECK(Gatherer(space)
            .Gather(plan, bases.data(), bases.size(), {rows.bytes.data(), bases.size()})
            .ok());
  // Nothing is written beyond the rows.
  for (size_t i = rows.layout.total; i < rows.bytes.size(); ++i) EQUAL(rows.bytes[i], 0xeeu);
  return rows;
}

TEST(follows_pointers) {
  for (const bool mapped : {true, false}) {
    DirectMapped machine(1 << 20);
    machine.guest->is_mapped = mapped;
    auto& guest = *machine.guest;
    guest.Put<uint32_t>(0x80010, 42);
    guest.Put64(0x80018, kDirectMap + 0x90000);
    guest.Put64(0x90008, kDirectMap + 0xa0000);
    guest.Put64(0xa0000 - 8, 0x1234);
    auto space = machine.Open();
    const auto plan = MakePlan({-1, 0x10, 4, -1, 0x18, 8, 1, 8, 8, 2, -8, 8, -1, 0x20, 8, 4, 0, 8});
    const Rows rows = Run(space.get(), *plan, {kDirectMap + 0x80000, kDirectMap + 0x80000});
    for (size_t row = 0; row < 2; ++row) {
      EQUAL(rows.Mask(row), 0u);
      EQUAL(rows.Base(row), kDirectMap + 0x80000);
      EQUAL(rows.U64(row, 0), 42u);
      EQUAL(rows.U64(row, 1), kDirectMap + 0x90000);
      EQUAL(rows.U64(row, 3), 0x1234u);
      // NULL leads to zeroes, not to a fault.
      EQUAL(rows.U64(row, 4), 0u);
      EQUAL(rows.U64(row, 5), 0u);
    }
  }
}

TEST(marks_what_cannot_be_read) {
  for (const bool mapped : {true, false}) {
    DirectMapped machine(1 << 20);
    machine.guest->is_mapped = mapped;
    auto& guest = *machine.guest;
    guest.Put64(0x80000, 0xdeadbeef);
    guest.Put64(0x80008, 0x8000'0000'0000'0000);
    guest.Put64(machine.tables.Entry(kDirectMap + 0x81000, 1), 0);
    guest.bad_pages.insert(0x83000);
    auto space = machine.Open();
    // Column 3 crosses into a page that is not mapped, column 4 lies in it, 5 in one that cannot be
    // read.
    const auto plan = MakePlan(
        {-1, 0, 8, 0, 0, 8, 1, 0, 8, -1, 0xff8, 16, -1, 0x1000, 8, -1, 0x3000, 8, -1, 0x2000, 8});
    const Rows rows = Run(space.get(), *plan, {kDirectMap + 0x80000, 0, UINT64_MAX - 3});
    EQUAL(rows.Mask(0), 0b111010u);
    EQUAL(rows.U64(0, 0), 0xdeadbeefu);
    for (size_t k = 1; k < 6; ++k) EQUAL(rows.U64(0, k), 0u);
    // A base is no pointer that may be NULL: it is where the row is.
    EQUAL(rows.Mask(1), 0b1111001u);
    // Beyond 2^64 there is nothing.
    EQUAL(rows.Mask(2) & 1, 1u);
  }
}

TEST(addresses_wrap_as_pointers_do) {
  for (const bool mapped : {true, false}) {
    DirectMapped machine(1 << 20);
    machine.guest->is_mapped = mapped;
    machine.tables.Map(0xffff'ffff'ffff'f000, 0x80000);
    machine.tables.Map(0, 0x81000);
    machine.guest->Put64(0x81007, 7);
    machine.guest->Put64(0x80ff0, 6);
    auto space = machine.Open();
    const auto plan = MakePlan({-1, 8, 8, -1, -15, 8, -1, -3, 8, -1, 0, 1, -1, 1, 1});
    const Rows rows = Run(space.get(), *plan, {UINT64_MAX});
    EQUAL(rows.Mask(0), 0b00100u);
    EQUAL(rows.U64(0, 0), 7u);
    EQUAL(rows.U64(0, 1), 6u);
    EQUAL(rows.U64(0, 2), 0u);
  }
}

TEST(many_rows_that_share_a_page_are_one_request) {
  DirectMapped machine(4 << 20, 2);
  machine.guest->is_mapped = false;
  std::vector<uint64_t> bases;
  for (uint64_t i = 0; i < 1000; ++i) {
    // Two to a page; from one page to the next it is too far to read what is between.
    const uint64_t base = 0x100000 + i / 2 * kPageSize + i % 2 * 0x40;
    machine.guest->Put64(base, kDirectMap + 0x80000);
    bases.push_back(kDirectMap + base);
  }
  machine.guest->Put64(0x80010, 7);
  auto space = machine.Open();
  CHECK(space->SetWindows({{kDirectMap, 4 << 20, 0}}).ok());
  const auto plan = MakePlan({-1, 0, 8, 0, 0x10, 8, 0, 0x100, 4});
  const Rows rows = Run(space.get(), *plan, bases);
  for (size_t i = 0; i < bases.size(); ++i) EQUAL(rows.U64(i, 1), 7u);
  EQUAL(machine.guest->reads, 2u);
  EQUAL(machine.guest->requests, 500u + 1u);
}

TEST(rows_that_repeat_a_pointer_repeat_its_faults) {
  DirectMapped machine(1 << 20);
  Guest& guest = *machine.guest;
  guest.is_mapped = false;
  guest.bad_pages.insert(0x90000);
  auto space = machine.Open();
  CHECK(space->SetWindows({{kDirectMap, 1 << 20, 0}}).ok());
  std::vector<uint64_t> bases;
  for (uint64_t i = 0; i < 9; ++i) {
    bases.push_back(kDirectMap + 0x80000 + i * 8);
    guest.Put64(0x80000 + i * 8, i / 3 == 0   ? kDirectMap + 0x90000
                                 : i / 3 == 1 ? 0
                                              : kDirectMap + 0x91000);
  }
  guest.Put64(0x91000, 5);
  const auto plan = MakePlan({-1, 0, 8, 0, 0, 8, 0, 4090, 8});
  const Rows rows = Run(space.get(), *plan, bases);
  for (size_t i = 0; i < bases.size(); ++i) {
    EQUAL(rows.Mask(i), i / 3 == 0 ? 6u : 0u);
    EQUAL(rows.U64(i, 1), i / 3 == 2 ? 5u : 0u);
  }
}

TEST(bases_may_lie_in_the_rows) {
  DirectMapped machine(1 << 20);
  for (uint64_t i = 0; i < 64; ++i) machine.guest->Put64(0x80000 + i * 8, i);
  auto space = machine.Open();
  const auto plan = MakePlan({-1, 0, 8});
  for (const size_t at : {size_t{0}, size_t{64}, size_t{128}, size_t{256}}) {
    Rows rows(*plan, 16);
    std::vector<uint64_t> bases;
    for (uint64_t i = 0; i < 16; ++i) bases.push_back(kDirectMap + 0x80000 + i * 8);
    std::memcpy(rows.bytes.data() + at, bases.data(), 128);
    CHECK(Gatherer(space.get())
              .Gather(*plan, reinterpret_cast<uint64_t*>(rows.bytes.data() + at), 16,
                      {rows.bytes.data(), 16})
              .ok());
    for (size_t i = 0; i < 16; ++i) EQUAL(rows.U64(i, 0), i);
  }
}

TEST(a_source_that_is_gone_is_an_error) {
  for (size_t n = 0; n < 12; ++n) {
    DirectMapped machine(1 << 20);
    machine.guest->is_mapped = false;
    machine.guest->Put64(0x80000, kDirectMap + 0x90000);
    auto space = machine.Open();
    machine.guest->fail_at = n;
    const auto plan = MakePlan({-1, 0, 8, 0, 0, 8});
    Rows rows(*plan, 1);
    const uint64_t base = kDirectMap + 0x80000;
    const Status status = Gatherer(space.get()).Gather(*plan, &base, 1, {rows.bytes.data(), 1});
    if (!status.ok()) CHECK(status.error().code == Code::kClosed);
    // Four loads find the page, and the table of the next one with it; two batches read.
    EQUAL(status.ok(), n >= 6);
  }
}

// One plan over mapped memory and in batches, against a column at a time.
TEST(a_window_is_loaded_only_where_all_its_pages_may_be) {
  DirectMapped machine(1 << 20);
  auto& guest = *machine.guest;
  guest.is_flat = true;
  guest.Put64(0x81ff8, 0x1234);
  guest.Put64(0x81ffc, 0x5678);
  guest.bad_pages = {0x82000};
  auto space = machine.Open();
  CHECK(space->SetWindows({{kDirectMap, 1 << 20, 0}}).ok());
  // A word, and columns that are far apart, both on this side of the bad page and across.
  for (const auto& plan : {MakePlan({-1, 0, 8}), MakePlan({-1, 0, 8, -1, -3000, 8})}) {
    // The second time the good page is known.
    for (int round = 0; round < 2; ++round) {
      const Rows rows = Run(space.get(), *plan,
                            {kDirectMap + 0x81ff8, kDirectMap + 0x81ffc, kDirectMap + 0x82000});
      EQUAL(rows.Mask(0), 0u);
      EQUAL(rows.U64(0, 0), 0x5678'0000'1234u);
      EQUAL(rows.Mask(1), 1u);
      EQUAL(rows.U64(1, 0), 0u);
      EQUAL(rows.Mask(2), 1u);
      EQUAL(rows.U64(2, 0), 0u);
    }
  }
}

TEST(nothing_is_loaded_beyond_the_end_of_what_is_mapped) {
  constexpr uint64_t kEnd = 0x80000;
  DirectMapped machine(1 << 20);
  auto& guest = *machine.guest;
  guest.is_flat = true;
  for (uint64_t at = kEnd; at < (1 << 20); at += kPageSize)
    guest.Put64(machine.tables.Entry(kDirectMap + at, 1), 0);
  guest.Put64(kEnd - 8, 0x1234);
  guest.Put64(kEnd, 0x5678);
  auto space = machine.Open();
  CHECK(space->SetWindows({{kDirectMap, kEnd, 0}}).ok());
  std::fill(guest.known.begin(), guest.known.end(), uint8_t{1});
  const auto plan = MakePlan({-1, 0, 8});
  std::vector<uint64_t> bases;
  for (uint64_t i = 0; i <= 8; ++i) bases.push_back(kDirectMap + kEnd - 8 + i);
  const Rows rows = Run(space.get(), *plan, bases);
  for (size_t row = 0; row < bases.size(); ++row) {
    EQUAL(rows.Mask(row), row == 0 ? 0u : 1u);
    EQUAL(rows.U64(row, 0), row == 0 ? 0x1234u : 0u);
  }
}

TEST(a_null_pointer_leads_to_zeroes_whatever_lies_at_zero) {
  for (const bool is_flat : {true, false}) {
    DirectMapped machine(1 << 20);
    auto& guest = *machine.guest;
    guest.is_flat = is_flat;
    guest.Put64(0x8, 0x99);
    auto space = machine.Open();
    CHECK(space->SetWindows({{0, 1 << 20, 0}}).ok());
    const auto plan = MakePlan({-1, 0, 8, 0, 8, 8});
    guest.Put64(0x80008, 0x80000);
    const Rows rows = Run(space.get(), *plan, {0x80000, 0x80008, 0});
    for (size_t row = 0; row < 3; ++row) EQUAL(rows.Mask(row), 0u);
    EQUAL(rows.U64(0, 1), 0u);
    EQUAL(rows.U64(1, 1), 0x80000u);
    // A base is none.
    EQUAL(rows.U64(2, 0), 0u);
  }
}

TEST(rows_that_take_a_page_table_are_read_again_whole) {
  DirectMapped machine(1 << 20);
  auto& guest = *machine.guest;
  guest.is_mapped = false;
  guest.is_parallel = true;
  auto space = machine.Open();
  CHECK(space->SetWindows({{kDirectMap, 0x80000, 0}}).ok());
  const auto plan = MakePlan({-1, 0, 8, -1, 0x80000, 8});
  std::vector<uint64_t> bases;
  for (uint64_t i = 0; i < 300; ++i) {
    bases.push_back(kDirectMap + 0x10000 + i * 64);
    guest.Put64(0x10000 + i * 64, i);
    guest.Put64(0x90000 + i * 64, i * i);
  }
  // A page that cannot be read until all that is in windows was.
  guest.bad_pages.insert(0x11000);
  guest.before_read = [&](size_t n) {
    if (n == 3) guest.bad_pages.clear();
  };
  guest.reads = 0;
  const Rows rows = Run(space.get(), *plan, bases);
  for (uint64_t i = 0; i < bases.size(); ++i) {
    EQUAL(rows.Mask(i), 0u);
    EQUAL(rows.U64(i, 0), i);
    EQUAL(rows.U64(i, 1), i * i);
  }
}

TEST(random_plans_agree_however_they_are_read) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; ++round) {
    DirectMapped machine(1 << 18);
    auto& guest = *machine.guest;
    for (uint64_t at = 0x10000; at < (1 << 18); at += 8) {
      const uint64_t bits = random();
      guest.Put64(at, bits % 4 == 0 ? 0 : bits % 4 == 1 ? bits : kDirectMap + (bits & 0x3ffff));
    }
    for (int i = 0; i < 6; ++i)
      guest.Put64(machine.tables.Entry(kDirectMap + ((random() % 48 + 16) << 12), 1), 0);
    for (int i = 0; i < 3; ++i) guest.bad_pages.insert((random() % 48 + 16) << 12);

    std::vector<int32_t> triples;
    std::vector<int32_t> pointers = {-1};
    const int columns = 1 + static_cast<int>(random() % 32);
    for (int k = 0; k < columns; ++k) {
      const int32_t sizes[] = {1, 2, 4, 8, 8, 8, 8, 16, 24, 100, 4096};
      const int32_t size = sizes[random() % 11];
      triples.insert(triples.end(), {pointers[random() % pointers.size()],
                                     static_cast<int32_t>(random() % 12000) - 2000, size});
      if (size == 8) pointers.push_back(k);
    }
    const auto plan = MakePlan(triples);
    std::vector<uint64_t> bases;
    const size_t many = round % 10 == 0 ? 400 : 40;
    for (size_t i = 0; i < random() % many; ++i)
      bases.push_back(kDirectMap + 0x10000 + random() % 0x30000);
    if (random() % 4 == 0) bases.push_back(random());

    guest.is_mapped = true;
    guest.is_flat = round % 4 == 0;
    auto space = machine.Open();
    if (round % 2 == 0) CHECK(space->SetWindows({{kDirectMap, 1 << 18, 0}}).ok());
    // The first makes pages known that the second then loads from without asking.
    const Rows first = Run(space.get(), *plan, bases);
    const Rows direct = Run(space.get(), *plan, bases);
    CHECK(first.bytes == direct.bytes);
    guest.is_mapped = false;
    guest.is_parallel = round % 3 == 0;
    auto batched_space = machine.Open();
    if (round % 2 == 0) CHECK(batched_space->SetWindows({{kDirectMap, 1 << 18, 0}}).ok());
    const Rows batched = Run(batched_space.get(), *plan, bases);
    CHECK(std::memcmp(direct.bytes.data(), batched.bytes.data(),
                      plan->columns().empty() ? 0 : bases.size() * 4) == 0);

    for (size_t row = 0; row < bases.size(); ++row) {
      EQUAL(direct.Base(row), bases[row]);
      EQUAL(batched.Base(row), bases[row]);
      for (size_t k = 0; k < plan->columns().size(); ++k) {
        const Column& column = plan->columns()[k];
        const uint64_t start =
            column.from < 0 ? bases[row] : direct.U64(row, static_cast<size_t>(column.from));
        std::vector<uint8_t> expected(column.size);
        bool faulty = false;
        if (column.from < 0 || start != 0) {
          const auto read = space->Read(start + static_cast<uint64_t>(int64_t{column.offset}),
                                        expected.data(), column.size);
          faulty = read.value() < column.size;
          if (faulty) std::fill(expected.begin(), expected.end(), 0);
        }
        EQUAL(direct.Mask(row) >> k & 1, static_cast<uint32_t>(faulty));
        const size_t at = direct.layout.columns[k] + row * column.size;
        CHECK(std::memcmp(direct.bytes.data() + at, expected.data(), column.size) == 0);
        CHECK(std::memcmp(batched.bytes.data() + at, expected.data(), column.size) == 0);
      }
    }
  }
}

}  // namespace
}  // namespace vmi::test

MAIN
