// At most one thread at a time in a system call that reads another process, if so told.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace vmi {

class ReadTurns {
 public:
  void Set(bool in_turns) { in_turns_.store(in_turns, std::memory_order_relaxed); }

  // One batch, for as long as it is in the kernel. One of few elements does not wait.
  class Turn {
   public:
    Turn(ReadTurns* turns, size_t elements);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    ReadTurns* turns_;
    bool takes_part_;
  };

 private:
  static constexpr size_t kFew = 8;

  bool Wait();

  std::atomic<bool> in_turns_{false};
  // Threads that are inside now.
  std::atomic<uint32_t> inside_{0};
};

}  // namespace vmi
