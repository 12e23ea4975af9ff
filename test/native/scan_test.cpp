// Scans against a search byte by byte.
#include <random>
#include <thread>

#include "check.h"
#include "core/scan/scan.h"
#include "fake_source.h"

namespace vmi::test {
namespace {

bool Never() { return false; }

std::vector<uint64_t> Expected(Guest& guest, const ScanRequest& request) {
  std::vector<uint64_t> hits;
  for (const Range& range : guest.ranges) {
    for (uint64_t at = range.start; at - range.start + request.pattern.size() <= range.length;
         ++at) {
      if (at < request.start || at + (request.pattern.size() - 1) > request.last) continue;
      bool wanted = false;
      for (const uint64_t offset : request.offsets)
        wanted = wanted || at % request.stride == offset;
      if (!wanted || hits.size() == request.max) continue;
      bool equal = true;
      for (size_t i = 0; i < request.pattern.size() && equal; ++i) {
        equal = guest.bad_pages.count((at + i) & ~kPageMask) == 0 &&
                *guest.At(at + i) == request.pattern[i];
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
    guest->is_parallel = true;
    request.threads = random() % 4;
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

TEST(finds_the_same_with_any_number_of_threads) {
  std::mt19937_64 random(12);
  constexpr uint64_t kBase = 0x100000;
  constexpr uint64_t kSize = 13 << 20;
  constexpr uint64_t kPiece = 2 << 20;
  for (int round = 0; round < 12; ++round) {
    auto guest = std::make_shared<Guest>(Range{kBase, kSize}, Range{kBase + 2 * kSize, kPiece});
    guest->is_mapped = round % 2 == 0;
    guest->is_parallel = true;
    ScanRequest request;
    request.pattern = {9, 8, 7, 6, 5, 4, 3, 2, 1};
    const uint64_t length = request.pattern.size();
    // Around every border of a piece, and anywhere; at least a pattern apart.
    std::vector<uint64_t> places;
    for (uint64_t at = kBase; at + kPiece < kBase + kSize; at += kPiece) {
      const uint64_t border = (at / kPiece + 1) * kPiece;
      const uint64_t first = border - length - random() % (2 * length);
      places.insert(places.end(),
                    {first, first + length, first + 2 * length, border + kPageSize - 4});
    }
    for (int i = 0; i < 200; ++i) places.push_back(kBase + 64 + random() % (kSize / 64 - 2) * 64);
    places.push_back(kBase + kSize - length);
    places.push_back(kBase + 2 * kSize);
    std::sort(places.begin(), places.end());
    std::vector<uint64_t> planted;
    for (const uint64_t at : places) {
      if (planted.empty() || at - planted.back() >= length) planted.push_back(at);
    }
    for (const uint64_t at : planted) std::memcpy(guest->At(at), request.pattern.data(), length);
    if (round % 3 == 1) guest->bad_pages = {2 * kPiece - kPageSize, 3 * kPiece, 0x123000};
    if (round % 4 >= 2) request.start = kBase + 0x1234;
    if (round % 5 == 4) request.last = kBase + kSize - 1;
    request.max = round < 6 ? 65'536 : 1 + random() % 100;
    std::vector<uint64_t> expected;
    for (const uint64_t at : planted) {
      const bool is_bad = guest->bad_pages.count(at & ~kPageMask) +
                              guest->bad_pages.count((at + length - 1) & ~kPageMask) >
                          0;
      if (is_bad || at < request.start || at + length - 1 > request.last ||
          expected.size() == request.max)
        continue;
      expected.push_back(at);
    }
    auto memory = Open(guest);
    for (const size_t threads : {0, 1, 2, 3, 16}) {
      request.threads = threads;
      CHECK(Scan(memory.get(), request, Never).value() == expected);
    }
  }
}

// The first of them, not those that some thread found first.
TEST(keeps_the_lowest_addresses) {
  auto guest = std::make_shared<Guest>(16 << 20);
  auto memory = Open(guest);
  for (const size_t max : {1, 1000, 65'536}) {
    ScanRequest request;
    request.pattern = {0};
    request.max = max;
    request.threads = 8;
    const auto hits = Scan(memory.get(), request, Never).value();
    EQUAL(hits.size(), max);
    for (size_t i = 0; i < max; ++i) EQUAL(hits[i], i);
  }
}

TEST(asks_on_the_calling_thread) {
  auto guest = std::make_shared<Guest>(32 << 20);
  auto memory = Open(guest);
  ScanRequest request;
  request.pattern = {1};
  request.threads = 4;
  const auto caller = std::this_thread::get_id();
  CHECK(Scan(memory.get(), request,
             [&] {
               CHECK(std::this_thread::get_id() == caller);
               return false;
             })
            .value()
            .empty());
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
  for (const size_t threads : {1, 3}) {
    for (const bool mapped : {true, false}) {
      auto guest = std::make_shared<Guest>(16 << 20);
      guest->is_mapped = mapped;
      guest->is_parallel = true;
      auto memory = Open(guest);
      ScanRequest request;
      request.pattern = {1, 2, 3};
      request.threads = threads;
      // Other threads may have done all but the calling one's first piece.
      const auto hits = Scan(memory.get(), request, [] { return true; });
      CHECK(!hits.ok());
      CHECK(hits.error().code == Code::kAborted);
      guest->reads = 0;
      guest->fail_at = 2;
      if (!mapped) CHECK(Scan(memory.get(), request, Never).error().code == Code::kClosed);
      guest->fail_at = SIZE_MAX;
      memory->Close();
      CHECK(Scan(memory.get(), request, Never).error().code == Code::kClosed);
    }
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
  refuses([](ScanRequest& request) { request.threads = 17; });
}

}  // namespace
}  // namespace vmi::test

MAIN
