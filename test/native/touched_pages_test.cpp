// Anonymous memory of another process, most of which it never touched.
#include <cstring>

#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "core/memory.h"
#include "core/scan/scan.h"
#include "source/segments.h"

namespace vmi::test {
namespace {

using Kind = SegmentSpec::Kind;

constexpr size_t kPages = 4096;

// A child with 16 MiB of which it has touched every third page, and touches page 1 on SIGUSR1.
class Child {
 public:
  Child() {
    int ready[2];
    EQUAL(pipe(ready), 0);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      sigset_t signals;
      sigemptyset(&signals);
      sigaddset(&signals, SIGUSR1);
      sigprocmask(SIG_BLOCK, &signals, nullptr);
      auto* memory = static_cast<uint8_t*>(mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      madvise(memory, kPages * kPageSize, MADV_NOHUGEPAGE);
      for (size_t page = 0; page < kPages; page += 3) Touch(memory, page);
      if (write(ready[1], &memory, sizeof memory) != sizeof memory) _exit(1);
      for (int signal; sigwait(&signals, &signal) == 0;) {
        Touch(memory, 1);
        if (write(ready[1], "", 1) != 1) _exit(1);
      }
      _exit(0);
    }
    EQUAL(read(ready[0], &address_, sizeof address_), static_cast<ssize_t>(sizeof address_));
    ready_ = ready[0];
    close(ready[1]);
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    close(ready_);
  }

  std::shared_ptr<Memory> Open() const {
    SegmentSpec spec;
    spec.kind = Kind::kProcess;
    spec.length = kPages * kPageSize;
    spec.offset = address_;
    spec.anonymous = true;
    auto source = OpenSegments({spec}, pid_);
    CHECK(source.ok());
    return std::make_shared<Memory>(std::move(source.value()));
  }
  void TouchPage1() const {
    kill(pid_, SIGUSR1);
    char byte;
    EQUAL(read(ready_, &byte, 1), 1);
  }
  // Pages that the child has: of the file system /proc, not of what is tested.
  size_t Pages() const {
    const int fd = open(("/proc/" + std::to_string(pid_) + "/pagemap").c_str(), O_RDONLY);
    std::vector<uint64_t> entries(kPages);
    const auto bytes = static_cast<ssize_t>(kPages * sizeof(uint64_t));
    EQUAL(pread(fd, entries.data(), static_cast<size_t>(bytes),
                static_cast<off_t>(address_ / kPageSize * sizeof(uint64_t))),
          bytes);
    close(fd);
    size_t pages = 0;
    for (const uint64_t entry : entries) pages += entry >> 63;
    return pages;
  }
  static uint64_t Word(size_t page) { return 0x1234'5678'0000'0000 + page; }

 private:
  static void Touch(uint8_t* memory, size_t page) {
    const uint64_t word = Word(page);
    std::memcpy(memory + page * kPageSize + 8, &word, sizeof word);
  }

  pid_t pid_ = -1;
  int ready_ = -1;
  uint64_t address_ = 0;
};

constexpr size_t kTouched = (kPages + 2) / 3;

TEST(untouched_pages_are_zeroes_and_stay_untouched) {
  Child child;
  auto memory = child.Open();
  EQUAL(child.Pages(), kTouched);
  for (size_t page = 0; page < kPages; ++page) {
    EQUAL(memory->ReadU64(page * kPageSize + 8).value(), page % 3 == 0 ? Child::Word(page) : 0u);
  }
  std::vector<uint8_t> bytes(kPages * kPageSize, 0xff);
  EQUAL(memory->Read(0, bytes.data(), bytes.size()).value(), bytes.size());
  for (size_t at = 0; at < bytes.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + at, sizeof word);
    const size_t page = at / kPageSize;
    EQUAL(word, at % kPageSize == 8 && page % 3 == 0 ? Child::Word(page) : 0u);
  }
  // Across borders, in batches that are split over threads.
  std::vector<ReadRequest> requests;
  std::vector<uint8_t> into(16 * 4000);
  for (size_t i = 0; i < 4000; ++i)
    requests.push_back({(i + 1) * kPageSize - 4, into.data() + 16 * i, 16, 0});
  CHECK(memory->ReadMany(requests.data(), requests.size()).ok());
  for (size_t i = 0; i < 4000; ++i) {
    EQUAL(requests[i].transferred, 16u);
    uint32_t low;
    std::memcpy(&low, into.data() + 16 * i + 12, sizeof low);
    EQUAL(low, (i + 1) % 3 == 0 ? static_cast<uint32_t>(Child::Word(i + 1)) : 0u);
  }
  EQUAL(child.Pages(), kTouched);
}

TEST(scans_touch_nothing_and_find_what_is_there) {
  Child child;
  auto memory = child.Open();
  ScanRequest request;
  request.pattern.resize(8);
  for (const size_t page : {size_t{0}, size_t{3}, size_t{2046}, size_t{4095}}) {
    const uint64_t word = Child::Word(page);
    std::memcpy(request.pattern.data(), &word, sizeof word);
    CHECK(Scan(memory.get(), request, [] { return false; }).value() ==
          std::vector<uint64_t>{page * kPageSize + 8});
  }
  // Over the border of an untouched page, and one that only touched pages have.
  const std::vector<uint8_t> high = {0x78, 0x56, 0x34, 0x12};
  request.pattern = high;
  EQUAL(Scan(memory.get(), request, [] { return false; }).value().size(), kTouched);
  EQUAL(child.Pages(), kTouched);
}

TEST(a_page_that_is_touched_later_is_seen) {
  Child child;
  auto memory = child.Open();
  EQUAL(memory->ReadU64(kPageSize + 8).value(), 0u);
  child.TouchPage1();
  EQUAL(memory->ReadU64(kPageSize + 8).value(), Child::Word(1));
  ScanRequest request;
  request.pattern = {1, 0, 0, 0, 0x78, 0x56, 0x34, 0x12};
  CHECK(Scan(memory.get(), request, [] { return false; }).value() ==
        std::vector<uint64_t>{kPageSize + 8});
}

}  // namespace
}  // namespace vmi::test

MAIN
