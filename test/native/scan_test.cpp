// Scans against a search byte by byte.
#include <random>

#include "check.h"
#include "core/scan.h"
#include "fake_source.h"

namespace vmi::test {
namespace {

bool Never() { return false; }

std::vector<uint64_t> Expected(Guest& guest, const ScanRequest& request) {
  std::vector<uint64_t> hits;
  for (const Range& range : guest.ranges) {
    for (uint64_t at = range.start; at - range.start + request.pattern.size() <= range.length; ++at) {
      if (at < request.start || at + (request.pattern.size() - 1) > request.last) continue;
      bool wanted = false;
      for (const uint64_t offset : request.offsets) wanted = wanted || at % request.stride == offset;
      if (!wanted || hits.size() == request.max) continue;
      bool equal = true;
      for (size_t i = 0; i < request.pattern.size() && equal; ++i) {
        equal = guest.bad_pages.count((at + i) & ~kPageMask) == 0 && *guest.At(at + i) == request.pattern[i];
      }
      if (equal) hits.push_back(at);
    }
  }
  return hits;
}

TEST(finds_what_a_plain_search_finds) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 300; ++round) {
    auto guest = std::make_shared<Guest>(Range{0x3000, 0x6000}, Range{0x10000, 0x5000});
    guest->is_mapped = round % 2 == 0;
    const uint64_t letters = 1 + random() % 3;
    for (uint8_t& byte : guest->bytes) byte = static_cast<uint8_t>(random() % (letters + 1));
    if (round % 3 == 0) guest->bad_pages.insert(0x5000);
    ScanRequest request;
    request.pattern.resize(1 + random() % (round % 5 == 0 ? 256 : 12));
    const uint64_t at = 0x3000 + random() % 0x5000;
    for (size_t i = 0; i < request.pattern.size(); ++i) request.pattern[i] = *guest->At(at + i);
    if (round % 4 == 1) {
      request.stride = 1 + random() % 5000;
      request.offsets = {random() % request.stride, random() % request.stride};
    }
    if (round % 7 == 0) request.start = 0x3000 + random() % 0x5000;
    if (round % 7 <= 1) request.last = 0x4000 + random() % 0x10000;
    request.max = round % 6 == 0 ? 3 : 65536;
    auto memory = Open(guest);
    const auto hits = Scan(memory.get(), request, Never).value();
    CHECK(hits == Expected(*guest, request));
  }
}

TEST(finds_patterns_across_chunks) {
  for (const bool mapped : {true, false}) {
    auto guest = std::make_shared<Guest>(5 << 20);
    guest->is_mapped = mapped;
    ScanRequest request;
    for (int i = 0; i < 100; ++i) request.pattern.push_back(static_cast<uint8_t>(i + 1));
    std::vector<uint64_t> expected;
    for (const uint64_t at : {(2 << 20) - 50, (4 << 20) - 99, (4 << 20) + 1, (5 << 20) - 100}) {
      std::memcpy(guest->At(at), request.pattern.data(), 100);
      expected.push_back(at);
    }
    auto memory = Open(guest);
    CHECK(Scan(memory.get(), request, Never).value() == expected);
  }
}

TEST(works_at_the_end_of_addresses) {
  auto guest = std::make_shared<Guest>(0x2000, 0xffff'ffff'ffff'e000);
  guest->Put64(UINT64_MAX - 7, 0x1122334455667788);
  for (const uint64_t stride : {1, 8, 4096}) {
    ScanRequest request;
    request.pattern = {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
    request.stride = stride;
    request.offsets = {stride == 4096 ? 0xff8u : 0u};
    auto memory = Open(guest);
    CHECK(Scan(memory.get(), request, Never).value() == std::vector<uint64_t>{UINT64_MAX - 7});
  }
}

TEST(stops_when_told) {
  auto guest = std::make_shared<Guest>(8 << 20);
  for (const bool mapped : {true, false}) {
    guest->is_mapped = mapped;
    auto memory = Open(guest);
    ScanRequest request;
    request.pattern = {1, 2, 3};
    int asked = 0;
    const auto hits = Scan(memory.get(), request, [&] { return ++asked > 2; });
    CHECK(hits.error().code == Code::kAborted);
    guest->reads = 0;
    guest->fail_at = 2;
    if (!mapped) CHECK(Scan(memory.get(), request, Never).error().code == Code::kClosed);
    guest->fail_at = SIZE_MAX;
    memory->Close();
    CHECK(Scan(memory.get(), request, Never).error().code == Code::kClosed);
  }
}

TEST(refuses_what_cannot_be_meant) {
  auto guest = std::make_shared<Guest>(0x1000);
  auto memory = Open(guest);
  const auto refuses = [&](auto change) {
    ScanRequest request;
    request.pattern = {1};
    change(request);
    const auto hits = Scan(memory.get(), request, Never);
    CHECK(!hits.ok());
    CHECK(hits.error().code == Code::kMisuse);
  };
  refuses([](ScanRequest& request) { request.pattern.clear(); });
  refuses([](ScanRequest& request) { request.pattern.resize(257); });
  refuses([](ScanRequest& request) { request.stride = 0; });
  refuses([](ScanRequest& request) { request.offsets = {1}; });
  refuses([](ScanRequest& request) { request.offsets.clear(); });
  refuses([](ScanRequest& request) { request.max = 0; });
  refuses([](ScanRequest& request) { request.max = 65'537; });
}

}  // namespace
}  // namespace vmi::test

MAIN
