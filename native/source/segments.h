// The source that all but libvmi are: runs of RAM in mapped files or in the memory of a process.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <sys/types.h>

#include "core/physical_source.h"
#include "core/result.h"

namespace vmi {

// NativeSegment of types/addon.d.ts.
struct SegmentSpec {
  enum class Kind { kFile, kProcess, kAbsent };
  Kind kind = Kind::kFile;
  uint64_t physical = 0;
  uint64_t length = 0;
  // In the file, or the address in the process.
  uint64_t offset = 0;
  int fd = -1;
  // Of a process: memory of no file, so that what was never touched is zeroes, and is not read.
  bool anonymous = false;
  // Of a file: one bit a page, the lowest first, set where the file holds the page; empty: all.
  std::vector<uint8_t> present = {};
};

// kMisuse for segments that cannot be meant, kAttach for what the host refuses. `writable`: the
// descriptors are open for writing, and the process may be written.
Result<std::unique_ptr<PhysicalSource>> OpenSegments(std::vector<SegmentSpec> segments,
                                                     std::optional<pid_t> pid,
                                                     bool writable = false);

}  // namespace vmi
