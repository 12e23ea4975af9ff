// Look-ups follow pointers, and where a read is a system call each step costs one. What the last
// look-up of the same thing read is read first, in one batch; a step then takes its bytes from
// there when it leads to the same address, and reads itself when not.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/memory.h"

namespace vmi {

// Of one thread. Only addresses are kept from one look-up to the next, no bytes.
class ReadPaths {
 public:
  // Starts a look-up of `index` under `head`: reads ahead, and keeps the addresses of the reads
  // that follow.
  void Begin(Memory* memory, uint64_t head, uint64_t index);

  // From here on nothing that was read ahead is used.
  void End() {
    path_ = nullptr;
    ahead_count_ = 0;
  }

  // The reads of a look-up, between them others may come that want to see what is there now.
  class Along {
   public:
    explicit Along(ReadPaths* paths);
    ~Along() { paths_->is_along_ = false; }
    Along(const Along&) = delete;
    Along& operator=(const Along&) = delete;

   private:
    ReadPaths* paths_;
  };

  // As Memory::CopyBatch. Each read that was ahead is used once: whoever reads again wants to see
  // what is there now.
  void CopyBatch(Memory* memory, ReadRequest* requests, size_t count) {
    if (!is_along_) return memory->CopyBatch(requests, count);
    CopyAlong(memory, requests, count);
  }

 private:
  static constexpr size_t kPaths = 4096;
  static constexpr size_t kMaxReads = 10;
  static constexpr size_t kMaxBytes = 2048;

  struct Step {
    uint64_t physical = 0;
    uint32_t length = 0;
  };
  struct Path {
    uint64_t head = 0;
    uint64_t index = 0;
    size_t count = 0;
    std::array<Step, kMaxReads> steps;
  };

  void CopyAlong(Memory* memory, ReadRequest* requests, size_t count);
  bool Take(ReadRequest* request);

  // Allocated with the first look-up.
  std::vector<Path> paths_;
  // The look-up that runs, and the bytes of all its reads.
  Path* path_ = nullptr;
  bool is_along_ = false;
  int64_t began_ = 0;
  size_t bytes_ = 0;
  std::array<ReadRequest, kMaxReads> ahead_;
  size_t ahead_count_ = 0;
  std::array<uint8_t, kMaxBytes> buffer_;
};

}  // namespace vmi
