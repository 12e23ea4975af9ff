// Finds a byte pattern in physical memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/memory.h"
#include "core/result.h"

namespace vmi {

struct ScanRequest {
  static constexpr size_t kMaxPattern = 256;
  static constexpr size_t kMaxHits = 65'536;
  static constexpr uint64_t kMaxStride = uint64_t{1} << 30;
  static constexpr size_t kMaxOffsets = 64;
  static constexpr size_t kMaxThreads = 16;
  // Where the caller does not say: a thread for each so many bytes, at most so many.
  static constexpr uint64_t kPerThread = uint64_t{256} << 20;
  static constexpr size_t kUsualThreads = 4;

  std::vector<uint8_t> pattern;
  // Only addresses k * stride + offsets[i], each offset below the stride.
  uint64_t stride = 1;
  std::vector<uint64_t> offsets = {0};
  uint64_t start = 0;
  uint64_t last = UINT64_MAX;
  size_t max = kMaxHits;
  // 0: as many as suit the memory and the host. What is found does not depend on it.
  size_t threads = 0;
};

// Addresses where the whole pattern lies in RAM within [start, last], ascending. Holes of a file
// are not read: a pattern of zeroes is not found in one, but one that begins or ends in data is.
// kAborted once `is_cancelled` says so (it is asked every few megabytes, on the calling thread),
// kClosed once the memory is being closed. Runs on any thread.
Result<std::vector<uint64_t>> Scan(Memory* memory, ScanRequest request,
                                   const std::function<bool()>& is_cancelled);

}  // namespace vmi
