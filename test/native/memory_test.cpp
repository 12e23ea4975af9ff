// Open, closing, closed.
#include <atomic>
#include <thread>

#include "check.h"
#include "core/scan/scan.h"
#include "fake_source.h"

namespace vmi::test {
namespace {

TEST(reads_end_where_ram_ends) {
  for (const bool mapped : {true, false}) {
    auto guest = std::make_shared<Guest>(Range{0x1000, 0x2000}, Range{0x8000, 0x1000});
    guest->is_mapped = mapped;
    guest->Put64(0x2ff8, 0x1122334455667788);
    auto memory = Open(guest);
    uint8_t bytes[64];
    EQUAL(memory->Read(0x2ff8, bytes, 64).value(), 8u);
    EQUAL(memory->Read(0x3000, bytes, 64).value(), 0u);
    EQUAL(memory->Read(UINT64_MAX, bytes, 64).value(), 0u);
    EQUAL(memory->ReadU64(0x2ff8).value(), 0x1122334455667788u);
    const auto fault = memory->ReadU64(0x2ffc);
    CHECK(fault.error().code == Code::kFault);
    EQUAL(fault.error().fault.address, 0x3000u);
    EQUAL(fault.error().fault.transferred, 4u);
    CHECK(!fault.error().fault.is_virtual);
    CHECK(memory->FindRange(0x8fff)->start == 0x8000);
    CHECK(memory->FindRange(0x9000) == nullptr);
    CHECK(memory->FindRange(0) == nullptr);
  }
}

TEST(nothing_works_after_close) {
  auto memory = Open(std::make_shared<Guest>(0x1000));
  memory->Close();
  memory->Close();
  uint8_t bytes[8];
  CHECK(memory->Begin().error().code == Code::kClosed);
  CHECK(memory->Read(0, bytes, 8).error().code == Code::kClosed);
  CHECK(memory->ReadU64(0).error().code == Code::kClosed);
}

TEST(a_source_that_failed_stays_failed) {
  auto guest = std::make_shared<Guest>(0x1000);
  guest->is_mapped = false;
  guest->fail_at = 0;
  auto memory = Open(guest);
  uint8_t bytes[8];
  CHECK(memory->Read(0, bytes, 8).error().message == "the guest is gone");
  guest->fail_at = SIZE_MAX;
  CHECK(memory->Read(0, bytes, 8).error().message == "the guest is gone");
  CHECK(memory->Begin().error().message == "the guest is gone");
  memory->Close();
  CHECK(memory->Begin().error().message == "the memory is closed");
}

TEST(a_source_that_recovers_fails_one_operation) {
  auto guest = std::make_shared<Guest>(0x1000);
  guest->is_mapped = false;
  guest->recovers = true;
  guest->fail_at = 0;
  auto memory = Open(guest);
  uint8_t bytes[8];
  CHECK(memory->Read(0, bytes, 8).error().message == "the guest is gone");
  guest->fail_at = SIZE_MAX;
  const size_t reads = guest->reads;
  // The rest of the operation does not get as far as the source.
  CHECK(memory->Read(0, bytes, 8).error().message == "the guest is gone");
  EQUAL(memory->Copy(0, bytes, 8), 0u);
  EQUAL(guest->reads, reads);
  CHECK(memory->Begin().ok());
  EQUAL(memory->Read(0, bytes, 8).value(), 8u);
  memory->Close();
  CHECK(memory->Begin().error().code == Code::kClosed);
}

TEST(close_waits_for_a_scan_and_ends_it) {
  for (int round = 0; round < 20; ++round) {
    auto guest = std::make_shared<Guest>(32 << 20);
    guest->is_mapped = round % 2 == 0;
    auto memory = Open(guest);
    std::atomic<int> asked{0};
    std::atomic<bool> closed{false};
    Code code = Code::kMisuse;
    std::thread scan([&] {
      ScanRequest request;
      request.pattern = {1};
      const auto hits = Scan(memory.get(), request, [&] {
        CHECK(!closed);
        ++asked;
        while (asked == 3 && !closed && memory->Check().ok()) std::this_thread::yield();
        return false;
      });
      code = hits.error().code;
    });
    while (asked < 3) std::this_thread::yield();
    memory->Close();
    closed = true;
    scan.join();
    CHECK(code == Code::kClosed);
  }
}

}  // namespace
}  // namespace vmi::test

MAIN
