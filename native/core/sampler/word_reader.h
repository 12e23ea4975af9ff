// Reads a few words of guest memory that the guest may be writing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/memory.h"

namespace vmi {

// One piece of physical memory to read: 4-aligned, a multiple of 4 bytes, at most 32.
struct WordRead {
  uint64_t physical = 0;
  void* into = nullptr;
  uint32_t length = 0;
};

// Mapped memory is loaded word by word, each in one load and all in the order of the batch, so
// that a later word is not older than an earlier one. Copied memory takes one system call a batch,
// which reads in the same order.
class WordReader {
 public:
  static constexpr size_t kMaxBatch = 64;

  explicit WordReader(Memory* memory) : memory_(memory) {}

  // false: one of them is not to be read, and nothing that was read means anything.
  bool Read(const WordRead* reads, size_t count);

 private:
  bool Load(const WordRead* reads, size_t count);

  Memory* memory_;
};

}  // namespace vmi
