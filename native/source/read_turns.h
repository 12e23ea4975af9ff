// Whether two threads that read another process had better be in the kernel at once, or in turns.
//
// Each element of process_vm_readv takes the lock of that process's address space and a reference to the page. Where these lines move
// slowly between the cores, two threads at once take up to three times as long for each element, and both are sooner done if one
// takes its last batch apart while the other is in the kernel; where they do not, to wait would waste a core. Hosts differ, and so do
// a host's minutes: it is measured.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace vmi {

class ReadTurns {
 public:
  struct Plan {
    // Whether the batch waits for its turn.
    bool in_turns = false;
    bool counts = false;
  };

  // One batch, for as long as it is in the kernel. Those of few elements neither wait nor count.
  class Turn {
   public:
    Turn(ReadTurns* turns, size_t elements);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    ReadTurns* turns_;
    size_t elements_;
    Plan plan_;
  };

  bool in_turns() const { return in_turns_.load(std::memory_order_relaxed); }

  // Of the next batch.
  Plan Next();
  // A batch of so many elements ended, at `now` nanoseconds.
  void Record(Plan plan, size_t elements, int64_t now);

 private:
  static constexpr size_t kFew = 8;
  // Of so many batches the first ones are read the other way, to see what that takes.
  static constexpr uint32_t kPeriod = 2048;
  static constexpr uint32_t kTrial = 128;
  // Of those and of the others the first ones do not count: what the threads have in their caches is of the other way still.
  static constexpr uint32_t kSettle = 16;

  // What one way took lately.
  struct Way {
    std::atomic<uint64_t> nanoseconds{0};
    std::atomic<uint64_t> elements{0};
  };

  bool Wait();

  std::atomic<bool> in_turns_{false};
  std::atomic<uint32_t> batches_{0};
  // Threads that are inside now.
  std::atomic<uint32_t> inside_{0};
  // When the last batch ended.
  std::atomic<int64_t> last_end_{0};
  // At once, in turns.
  Way ways_[2];
};

}  // namespace vmi
