// Mapped files and the memory of another process.
#include <cstdlib>
#include <cstring>

#include <atomic>
#include <string>
#include <thread>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "core/paging/address_space.h"
#include "core/bus_guard.h"
#include "core/gather/gatherer.h"
#include "core/scan/scan.h"
#include "source/segments.h"

namespace vmi::test {
namespace {

using Kind = SegmentSpec::Kind;

// A memfd or a file on disk that is gone when the test ends.
class File {
 public:
  explicit File(uint64_t size, bool on_disk = false) {
    if (on_disk) {
      char path[] = "/tmp/vmi-segments-XXXXXX";
      fd_ = mkstemp(path);
      unlink(path);
    } else {
      fd_ = memfd_create("guest", MFD_CLOEXEC);
    }
    CHECK(fd_ >= 0);
    Resize(size);
  }
  ~File() { close(fd_); }

  int fd() const { return fd_; }
  void Resize(uint64_t size) { EQUAL(ftruncate(fd_, static_cast<off_t>(size)), 0); }
  void Put64(uint64_t at, uint64_t value) {
    EQUAL(pwrite(fd_, &value, 8, static_cast<off_t>(at)), 8);
  }
  void Fill(uint64_t at, size_t length, uint8_t byte) {
    const std::vector<uint8_t> bytes(length, byte);
    EQUAL(pwrite(fd_, bytes.data(), length, static_cast<off_t>(at)), static_cast<ssize_t>(length));
  }
  uint64_t Blocks() const {
    struct stat status {};
    fstat(fd_, &status);
    return static_cast<uint64_t>(status.st_blocks);
  }

 private:
  int fd_ = -1;
};

std::shared_ptr<Memory> OpenMemory(std::vector<SegmentSpec> segments,
                                   std::optional<pid_t> pid = std::nullopt) {
  auto source = OpenSegments(std::move(segments), pid);
  if (!source.ok()) {
    std::cerr << source.error().message << '\n';
    std::exit(1);
  }
  return std::make_shared<Memory>(std::move(source.value()));
}

Error OpenFails(std::vector<SegmentSpec> segments, std::optional<pid_t> pid = std::nullopt) {
  auto source = OpenSegments(std::move(segments), pid);
  CHECK(!source.ok());
  return source.TakeError();
}

uint64_t Load(Memory* memory, uint64_t physical) { return memory->ReadU64(physical).value(); }

TEST(segments_are_checked) {
  File file(0x4000);
  const int fd = file.fd();
  const auto misuse = [&](std::vector<SegmentSpec> segments) {
    CHECK(OpenFails(std::move(segments)).code == Code::kMisuse);
  };
  misuse({});
  misuse({{Kind::kFile, 0x10, 0x1000, 0, fd}});
  misuse({{Kind::kFile, 0, 0x10, 0, fd}});
  misuse({{Kind::kFile, 0, 0, 0, fd}});
  misuse({{Kind::kFile, 0xffff'ffff'ffff'f000, 0x2000, 0, fd}});
  misuse({{Kind::kFile, 0, 0x1000, UINT64_MAX, fd}});
  misuse({{Kind::kFile, 0, 0x1000, INT64_MAX, fd}});
  misuse({{Kind::kFile, 0, 0x2000, 0, fd}, {Kind::kFile, 0x1000, 0x1000, 0, fd}});
  misuse({{Kind::kProcess, 0, 0x1000, 0x1000, -1}});
  const Error beyond = OpenFails({{Kind::kFile, 0, 0x4000, 0x1000, fd}});
  CHECK(beyond.code == Code::kAttach);
  CHECK(beyond.message.find("beyond the file") != std::string::npos);
  CHECK(OpenFails({{Kind::kFile, 0, 0x1000, 0x5000, fd}}).code == Code::kAttach);
  CHECK(OpenFails({{Kind::kFile, 0, 0x1000, 0, 9999}}).code == Code::kAttach);
  int pipes[2];
  EQUAL(pipe(pipes), 0);
  CHECK(OpenFails({{Kind::kFile, 0, 0x1000, 0, pipes[0]}}).code == Code::kAttach);
  close(pipes[0]);
  close(pipes[1]);
  const int write_only = open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_WRONLY);
  CHECK(OpenFails({{Kind::kFile, 0, 0x1000, 0, write_only}}).code == Code::kAttach);
  close(write_only);
}

TEST(neighbours_are_one_range_and_reads_cross_them) {
  File file(0x8000);
  file.Put64(0x5ff8, 0x1111111111111111);
  file.Put64(0x2000, 0x2222222222222222);
  auto memory = OpenMemory({{Kind::kFile, 0x10000, 0x1000, 0x2000, file.fd()},
                            {Kind::kFile, 0xf000, 0x1000, 0x5000, file.fd()},
                            {Kind::kFile, 0x20000, 0x1000, 0, file.fd()}});
  EQUAL(memory->ranges().size(), 2u);
  EQUAL(memory->ranges()[0].start, 0xf000u);
  EQUAL(memory->ranges()[0].length, 0x2000u);
  CHECK(memory->mapped());
  EQUAL(Load(memory.get(), 0xfffc), 0x2222222211111111u);
  std::vector<uint8_t> bytes(0x4000);
  EQUAL(memory->Read(0xf001, bytes.data(), bytes.size()).value(), 0x1fffu);
}

TEST(offsets_need_no_alignment) {
  for (const bool on_disk : {false, true}) {
    File file(0x10000, on_disk);
    file.Put64(0x123, 0x1234);
    file.Put64(0x123 + 0x2ff8, 0x5678);
    file.Fill(0x6000, 0x1000, 7);
    auto memory = OpenMemory({{Kind::kFile, 0, 0x3000, 0x123, file.fd()},
                              {Kind::kFile, 0x3000, 0x2000, 0x5fff, file.fd()}});
    EQUAL(Load(memory.get(), 0), 0x1234u);
    EQUAL(Load(memory.get(), 0x2ff8), 0x5678u);
    EQUAL(Load(memory.get(), 0x3000), 0x0707070707070700u);
  }
}

TEST(holes_are_read_and_stay_holes) {
  File file(64 << 20);
  for (uint64_t at = 0; at < (64 << 20); at += 1 << 20) file.Put64(at, at + 1);
  const uint64_t blocks = file.Blocks();
  auto memory = OpenMemory({{Kind::kFile, 0, 64 << 20, 0, file.fd()}});
  std::vector<uint8_t> bytes(64 << 20, 0xff);
  for (uint64_t at = 0; at < (64 << 20); at += 4096) {
    EQUAL(Load(memory.get(), at), at % (1 << 20) == 0 ? at + 1 : 0);
    EQUAL(Load(memory.get(), at), at % (1 << 20) == 0 ? at + 1 : 0);
  }
  EQUAL(memory->Read(0, bytes.data(), bytes.size()).value(), bytes.size());
  for (uint64_t at = 0; at < (64 << 20); at += 8) {
    uint64_t value;
    std::memcpy(&value, bytes.data() + at, 8);
    EQUAL(value, at % (1 << 20) == 0 ? at + 1 : 0);
  }
  ScanRequest request;
  request.pattern = {1, 0, 0x10, 0};  // 0x100001: the second page that holds data
  EQUAL(Scan(memory.get(), request, [] { return false; }).value().size(), 1u);
  // A pattern that begins in a hole, and one that ends in one.
  request.pattern = {0, 0, 1, 0, 0x10, 0};
  CHECK(Scan(memory.get(), request, [] { return false; }).value() ==
        std::vector<uint64_t>{(1 << 20) - 2});
  file.Fill(0x30'0ffe, 2, 0x77);
  request.pattern = {0x77, 0x77, 0, 0};
  CHECK(Scan(memory.get(), request, [] { return false; }).value() ==
        std::vector<uint64_t>{0x30'0ffe});
  EQUAL(file.Blocks(), blocks);
}

TEST(a_hole_that_is_filled_is_seen) {
  File file(1 << 20);
  auto memory = OpenMemory({{Kind::kFile, 0, 1 << 20, 0, file.fd()}});
  EQUAL(Load(memory.get(), 0x5008), 0u);
  file.Put64(0x5008, 77);
  EQUAL(Load(memory.get(), 0x5008), 77u);
  file.Put64(0x5008, 78);
  EQUAL(Load(memory.get(), 0x5008), 78u);
}

TEST(the_position_of_the_caller_stays) {
  File file(1 << 20);
  file.Put64(0x8000, 1);
  EQUAL(lseek(file.fd(), 0x123, SEEK_SET), 0x123);
  auto memory = OpenMemory({{Kind::kFile, 0, 1 << 20, 0, file.fd()}});
  EQUAL(Load(memory.get(), 0x8000), 1u);
  EQUAL(Load(memory.get(), 0x9000), 0u);
  EQUAL(lseek(file.fd(), 0, SEEK_CUR), 0x123);
}

TEST(a_truncated_file_is_a_fault_and_no_signal) {
  for (const bool on_disk : {false, true}) {
    for (const bool full : {false, true}) {
      File file(0x100000, on_disk);
      file.Fill(0, full ? 0x100000 : 0x80000, 5);
      auto memory = OpenMemory({{Kind::kFile, 0, 0x100000, 0, file.fd()}});
      std::vector<uint8_t> bytes(0x100000);
      EQUAL(memory->Read(0, bytes.data(), bytes.size()).value(), bytes.size());
      file.Resize(0x4000);
      EQUAL(memory->Read(0, bytes.data(), bytes.size()).value(), 0x4000u);
      EQUAL(memory->Read(0x3ffc, bytes.data(), 8).value(), 4u);
      CHECK(memory->ReadU64(0x5000).error().code == Code::kFault);
      CHECK(memory->ReadU64(0x90000).error().code == Code::kFault);

      ScanRequest request;
      request.pattern = {5, 5, 5, 5};
      request.stride = 4096;
      EQUAL(Scan(memory.get(), request, [] { return false; }).value().size(), 4u);
      request.stride = 1;
      EQUAL(Scan(memory.get(), request, [] { return false; }).value().size(), 0x4000u - 3);

      // A gather whose pages go away under it.
      auto space = std::move(AddressSpace::Create(memory, 0, 4).value());
      CHECK(space->SetWindows({{0xffff'8880'0000'0000, 0x100000, 0}}).ok());
      const int32_t triples[] = {-1, 0, 8, -1, 0x2000, 8};
      auto plan = std::move(Plan::Create(triples, 6).value());
      const std::vector<uint64_t> bases = {0xffff'8880'0000'1000, 0xffff'8880'0000'3000,
                                           0xffff'8880'0001'0000};
      std::vector<uint8_t> rows(RowLayout(*plan, 3).total);
      CHECK(Gatherer(space.get()).Gather(*plan, bases.data(), 3, {rows.data(), 3}).ok());
      const uint32_t expected[] = {0, 2, 3};
      CHECK(std::memcmp(rows.data(), expected, sizeof expected) == 0);
      CHECK(bus_frame == nullptr);
    }
  }
}

TEST(long_reads_bring_every_byte_and_stop_where_the_file_was_cut) {
  constexpr uint64_t kSize = 24 << 20;
  File file(kSize);
  std::vector<uint8_t> expected(kSize);
  // No two neighbours of a cache line are alike; a hole in the middle.
  for (uint64_t i = 0; i < kSize; ++i)
    expected[i] = static_cast<uint8_t>(i * 37 + (i >> 8) * 11 + 1);
  std::memset(expected.data() + 0x500000, 0, 0x3000);
  EQUAL(pwrite(file.fd(), expected.data(), 0x500000, 0), 0x500000);
  const uint64_t after = 0x503000;
  EQUAL(pwrite(file.fd(), expected.data() + after, kSize - after, static_cast<off_t>(after)),
        static_cast<ssize_t>(kSize - after));
  auto memory = OpenMemory({{Kind::kFile, 0, kSize, 0, file.fd()}});
  std::vector<uint8_t> bytes(kSize + 64);
  for (const size_t skew : {0, 1, 63}) {
    for (int again = 0; again < 2; ++again) {
      std::fill(bytes.begin(), bytes.end(), uint8_t{0xee});
      EQUAL(memory->Read(skew, bytes.data() + skew, kSize - skew).value(), kSize - skew);
      CHECK(std::memcmp(bytes.data() + skew, expected.data() + skew, kSize - skew) == 0);
      EQUAL(bytes[kSize], 0xee);
    }
  }
  file.Resize(0xa00000);
  EQUAL(memory->Read(0, bytes.data(), kSize).value(), 0xa00000u);
  CHECK(bus_frame == nullptr);
}

TEST(signals_of_others_reach_their_handler) {
  const pid_t child = fork();
  if (child == 0) {
    // Ours was installed by the tests above: take its place as a library that came before it would
    // have.
    File file(0x1000);
    void* map = mmap(nullptr, 0x1000, PROT_READ, MAP_SHARED, file.fd(), 0);
    file.Resize(0);
    // No handler before ours: the process ends by the signal.
    _exit(*static_cast<volatile char*>(map));
  }
  int status = 0;
  waitpid(child, &status, 0);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  CHECK(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
#else
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
#endif
}

TEST(guards_belong_to_their_thread) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      for (int round = 0; round < 50; ++round) {
        File file(0x4000);
        file.Fill(0, 0x4000, 1);
        auto memory = OpenMemory({{Kind::kFile, 0, 0x4000, 0, file.fd()}});
        file.Resize(0x1000);
        uint8_t bytes[0x4000];
        EQUAL(memory->Read(0, bytes, sizeof bytes).value(), 0x1000u);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A child that shows its memory until it is told to go.
class Child {
 public:
  Child() {
    int to_parent[2];
    EQUAL(pipe(to_parent), 0);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      auto* memory = static_cast<uint8_t*>(
          mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      for (size_t i = 0; i < kSize; i += 8) {
        const uint64_t value = i * 3;
        std::memcpy(memory + i, &value, 8);
      }
      munmap(memory + kGap, 0x1000);
      if (write(to_parent[1], &memory, sizeof memory) != sizeof memory) _exit(1);
      while (true) pause();
    }
    EQUAL(read(to_parent[0], &address_, sizeof address_), static_cast<ssize_t>(sizeof address_));
    close(to_parent[0]);
    close(to_parent[1]);
  }
  ~Child() { Kill(); }
  void Kill(bool reap = true) {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    if (!reap) {
      siginfo_t info{};
      waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
      return;
    }
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

  static constexpr size_t kSize = 0x400000;
  static constexpr size_t kGap = 0x10000;
  pid_t pid() const { return pid_; }
  uint64_t address() const { return address_; }

 private:
  pid_t pid_ = -1;
  uint64_t address_ = 0;
};

TEST(reads_a_process) {
  Child child;
  auto memory = OpenMemory({{Kind::kProcess, 0, Child::kSize, child.address(), -1}}, child.pid());
  CHECK(!memory->mapped());
  CHECK(memory->Begin().ok());
  EQUAL(Load(memory.get(), 0x800), 0x1800u);
  EQUAL(Load(memory.get(), 0x804), 0x1818'00000000u);
  EQUAL(Load(memory.get(), Child::kSize - 8), (Child::kSize - 8) * 3);
  // The gap ends a read, and only those that touch it.
  std::vector<uint8_t> bytes(Child::kSize);
  EQUAL(memory->Read(0, bytes.data(), bytes.size()).value(), Child::kGap);
  EQUAL(memory->Read(Child::kGap + 0x1000, bytes.data(), bytes.size()).value(),
        Child::kSize - Child::kGap - 0x1000);

  std::vector<ReadRequest> requests;
  std::vector<uint64_t> values(3000);
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t physical =
        i % 3 == 0 ? Child::kGap + i * 8 % 0x1000 : (i * 7919 * 8) % Child::kSize;
    requests.push_back({physical, reinterpret_cast<uint8_t*>(&values[i]), 8, 99});
  }
  CHECK(memory->ReadMany(requests.data(), requests.size()).ok());
  for (size_t i = 0; i < values.size(); ++i) {
    const bool in_gap = requests[i].physical - Child::kGap < 0x1000;
    EQUAL(requests[i].transferred, in_gap ? 0u : 8u);
    if (!in_gap) EQUAL(values[i], requests[i].physical * 3);
  }

  ScanRequest request;
  request.pattern.resize(8);
  const uint64_t wanted = 0x200000 * 3;
  std::memcpy(request.pattern.data(), &wanted, 8);
  request.stride = 8;
  CHECK(Scan(memory.get(), request, [] { return false; }).value() ==
        std::vector<uint64_t>{0x200000});
}

// Batches of this size are split over two threads each.
TEST(large_batches_of_several_threads_do_not_mix) {
  Child child;
  auto memory = OpenMemory({{Kind::kProcess, 0, Child::kSize, child.address(), -1}}, child.pid());
  std::vector<std::thread> threads;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([&memory, seed] {
      std::vector<ReadRequest> requests(2000);
      std::vector<uint64_t> values(requests.size());
      for (uint64_t round = 0; round < 20; ++round) {
        for (size_t i = 0; i < requests.size(); ++i) {
          const uint64_t at = (i * 7919 * seed + round) * 8 % Child::kSize;
          requests[i] = {at, reinterpret_cast<uint8_t*>(&values[i]), 8, 99};
        }
        CHECK(memory->ReadMany(requests.data(), requests.size()).ok());
        for (size_t i = 0; i < requests.size(); ++i) {
          const bool in_gap = requests[i].physical - Child::kGap < 0x1000;
          EQUAL(requests[i].transferred, in_gap ? 0u : 8u);
          if (!in_gap) EQUAL(values[i], requests[i].physical * 3);
        }
      }
    });
  }
  threads.emplace_back([&memory] {
    for (uint64_t round = 1; round <= 10; ++round) {
      ScanRequest request;
      request.pattern.resize(8);
      const uint64_t wanted = round * 0x50000 * 3;
      std::memcpy(request.pattern.data(), &wanted, 8);
      request.stride = 8;
      request.threads = 3;
      CHECK(Scan(memory.get(), request, [] { return false; }).value() ==
            std::vector<uint64_t>{round * 0x50000});
    }
  });
  for (std::thread& thread : threads) thread.join();
}

// Both halves see that the process is gone, and say so once.
TEST(large_batches_end_when_the_process_does) {
  Child child;
  auto memory = OpenMemory({{Kind::kProcess, 0, Child::kSize, child.address(), -1}}, child.pid());
  std::atomic<int> reading{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      std::vector<uint64_t> values(2000);
      std::vector<ReadRequest> requests(values.size());
      for (bool is_first = true;; is_first = false) {
        for (size_t k = 0; k < requests.size(); ++k) {
          requests[k] = {0x20000 + k * 8, reinterpret_cast<uint8_t*>(&values[k]), 8, 99};
        }
        const Status status = memory->ReadMany(requests.data(), requests.size());
        if (is_first) ++reading;
        if (status.ok()) continue;
        CHECK(status.error().code == Code::kClosed);
        return;
      }
    });
  }
  while (reading < 3) std::this_thread::yield();
  child.Kill();
  for (std::thread& thread : threads) thread.join();
  CHECK(memory->Begin().error().code == Code::kClosed);
}

TEST(mixes_a_process_and_files) {
  Child child;
  File file(0x2000);
  file.Fill(0, 0x2000, 9);
  auto memory = OpenMemory({{Kind::kProcess, 0x2000, 0x2000, child.address(), -1},
                            {Kind::kFile, 0x1000, 0x1000, 0, file.fd()},
                            {Kind::kFile, 0x4000, 0x1000, 0, file.fd()},
                            {Kind::kProcess, 0x5000, 0x1000, child.address() + Child::kGap, -1}},
                           child.pid());
  EQUAL(memory->ranges().size(), 1u);
  CHECK(!memory->mapped());
  std::vector<uint8_t> bytes(0x6000);
  EQUAL(memory->Read(0x1000, bytes.data(), bytes.size()).value(), 0x4000u);
  EQUAL(bytes[0], 9u);
  EQUAL(bytes[0x1008], 24u);
  EQUAL(bytes[0x3000], 9u);
}

TEST(notices_that_the_process_is_gone) {
  for (const bool reap : {true, false}) {
    Child child;
    File file(0x1000);
    auto memory = OpenMemory({{Kind::kProcess, 0, 0x1000, child.address(), -1}}, child.pid());
    auto mapped = OpenMemory({{Kind::kFile, 0, 0x1000, 0, file.fd()}}, child.pid());
    CHECK(mapped->Begin().ok());
    const pid_t pid = child.pid();
    child.Kill(reap);
    // What was seen less than 100 us ago may be taken for what is.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const auto value = memory->ReadU64(0);
    CHECK(value.error().code == Code::kClosed);
    CHECK(value.error().message == "QEMU process " + std::to_string(pid) + " has exited");
    CHECK(memory->Begin().error().code == Code::kClosed);
    CHECK(mapped->Begin().error().code == Code::kClosed);
  }
}

TEST(a_process_that_cannot_be_read_is_refused_at_once) {
  Child child;
  const Error nothing = OpenFails({{Kind::kProcess, 0, 0x1000, 0x1000, -1}}, child.pid());
  CHECK(nothing.code == Code::kAttach);
  child.Kill();
  CHECK(OpenFails({{Kind::kProcess, 0, 0x1000, 0x1000, -1}}, 0x3fff'fff0).code == Code::kAttach);
  if (getuid() != 0) {
    const Error denied = OpenFails({{Kind::kProcess, 0, 0x1000, 0x1000, -1}}, 1);
    CHECK(denied.message.find("CAP_SYS_PTRACE") != std::string::npos);
  } else {
    // As root: give up the right in a child.
    Child target;
    const pid_t pid = fork();
    if (pid == 0) {
      if (setuid(65534) != 0) _exit(2);
      auto source = OpenSegments({{Kind::kProcess, 0, 0x1000, target.address(), -1}}, target.pid());
      const bool told = !source.ok() && source.error().code == Code::kAttach &&
                        source.error().message.find("CAP_SYS_PTRACE") != std::string::npos;
      _exit(told ? 0 : 1);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    EQUAL(WEXITSTATUS(status), 0);
  }
}

// hugetlbfs: SEEK_DATA calls everything data there, and a touched hole allocates a huge page or
// raises SIGBUS.
TEST(holes_of_huge_pages_are_not_touched) {
  const int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
  const bool sized = fd >= 0 && ftruncate(fd, 4 << 20) == 0;
  auto source = OpenSegments({{Kind::kFile, 0, 4 << 20, 0, fd}}, std::nullopt);
  if (!sized || !source.ok()) {
    std::cerr << "    skipped: no huge pages on this host (vm.nr_hugepages)\n";
    if (fd >= 0) close(fd);
    return;
  }
  {
    auto memory = std::make_shared<Memory>(std::move(source.value()));
    EQUAL(Load(memory.get(), 0x1000), 0u);
    std::vector<uint8_t> bytes(4 << 20, 1);
    EQUAL(memory->Read(0, bytes.data(), bytes.size()).value(), bytes.size());
    EQUAL(bytes[0x345678], 0u);
    struct stat status {};
    fstat(fd, &status);
    EQUAL(status.st_blocks, 0);
    const uint64_t value = 0x1234;
    auto* page = static_cast<uint8_t*>(
        mmap(nullptr, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 2 << 20));
    CHECK(page != MAP_FAILED);
    std::memcpy(page + 0x5000, &value, 8);
    munmap(page, 2 << 20);
    EQUAL(Load(memory.get(), 0x205000), 0x1234u);
    EQUAL(Load(memory.get(), 0x205000), 0x1234u);
    EQUAL(Load(memory.get(), 0x3ffff8), 0u);
    EQUAL(Load(memory.get(), 0x1000), 0u);
    fstat(fd, &status);
    EQUAL(status.st_blocks, (2 << 20) / 512);
  }
  close(fd);
}

}  // namespace
}  // namespace vmi::test

MAIN
