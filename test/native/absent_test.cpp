// RAM whose content a dump does not have.
#include <cstring>

#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "core/memory.h"
#include "core/scan/scan.h"
#include "source/segments.h"

namespace vmi::test {
namespace {

using Kind = SegmentSpec::Kind;

constexpr uint64_t kPages = 100;

// Every page full of its number; `holes`: but those that are a multiple of 5, which are holes.
int MakeFile(bool holes) {
  const int fd = memfd_create("dump", MFD_CLOEXEC);
  EQUAL(ftruncate(fd, kPages * kPageSize), 0);
  for (uint64_t page = 0; page < kPages; ++page) {
    if (holes && page % 5 == 0) continue;
    const std::vector<uint8_t> bytes(kPageSize, static_cast<uint8_t>(page + 1));
    EQUAL(pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(page * kPageSize)),
          static_cast<ssize_t>(kPageSize));
  }
  return fd;
}

bool IsHeld(uint64_t page) { return page % 7 != 3 && page < 96; }

std::shared_ptr<Memory> Open(int fd) {
  SegmentSpec file;
  file.physical = 0x10000;
  file.length = kPages * kPageSize;
  file.fd = fd;
  file.present.resize((kPages + 7) / 8);
  for (uint64_t page = 0; page < kPages; ++page) {
    if (IsHeld(page)) file.present[page / 8] |= static_cast<uint8_t>(1u << page % 8);
  }
  SegmentSpec none;
  none.kind = Kind::kAbsent;
  none.physical = 0x10000 + kPages * kPageSize;
  none.length = 4 * kPageSize;
  auto source = OpenSegments({file, none}, std::nullopt);
  CHECK(source.ok());
  close(fd);
  return std::make_shared<Memory>(std::move(source.value()));
}

TEST(what_is_absent_ends_a_read_and_is_said_to_be) {
  for (const bool holes : {false, true}) {
    auto memory = Open(MakeFile(holes));
    EQUAL(memory->ranges().size(), 1u);
    CHECK(memory->mapped());
    std::vector<uint8_t> bytes(kPages * kPageSize);
    for (uint64_t page = 0; page < kPages + 4; ++page) {
      const uint64_t address = 0x10000 + page * kPageSize;
      const bool held = page < kPages && IsHeld(page);
      EQUAL(memory->Absent(address + 7), !held);
      uint64_t end = page;
      while (end < kPages && IsHeld(end)) ++end;
      EQUAL(memory->Read(address + 8, bytes.data(), bytes.size()).value(),
            held ? (end - page) * kPageSize - 8 : 0);
      const auto word = memory->ReadU64(address + 16);
      EQUAL(word.ok(), held);
      const uint8_t byte = holes && page % 5 == 0 ? 0 : static_cast<uint8_t>(page + 1);
      if (held) {
        EQUAL(word.value() & 0xff, byte);
        EQUAL(bytes[0], byte);
      } else {
        EQUAL(word.error().fault.absent, true);
      }
    }
    CHECK(!memory->Absent(0));
    CHECK(!memory->ReadU64(0).error().fault.absent);
  }
}

TEST(a_scan_passes_over_what_is_absent) {
  for (const bool holes : {false, true}) {
    auto memory = Open(MakeFile(holes));
    for (uint64_t page = 0; page < kPages; ++page) {
      ScanRequest request;
      request.pattern.assign(32, static_cast<uint8_t>(page + 1));
      request.stride = kPageSize;
      const auto hits = Scan(memory.get(), request, [] { return false; }).value();
      EQUAL(hits.size(), IsHeld(page) && !(holes && page % 5 == 0) ? 1u : 0u);
    }
    // Over the border of two pages, neither of which is absent.
    ScanRequest request;
    request.pattern = {7, 8};
    EQUAL(Scan(memory.get(), request, [] { return false; }).value().size(), 1u);
    request.pattern = {4, 5};
    EQUAL(Scan(memory.get(), request, [] { return false; }).value().size(), 0u);
  }
}

}  // namespace
}  // namespace vmi::test

MAIN
