#pragma once

#include <string>

namespace libvmi {

// While alive, what this thread prints through C's `stderr` goes to `log` (its first kMaxLog bytes)
// instead of the process's standard error. libvmi explains its failures there and nowhere else.
//
// glibc's `stderr` is a variable; for as long as any capture lives it points to a stream that looks at
// the writing thread: a capturing one fills its log, any other one reaches descriptor 2 as always.
// Without glibc nothing is captured.
class CaptureStderr {
 public:
  static constexpr size_t kMaxLog = 4096;

  explicit CaptureStderr(std::string* log);
  ~CaptureStderr();
  CaptureStderr(const CaptureStderr&) = delete;
  CaptureStderr& operator=(const CaptureStderr&) = delete;
};

}  // namespace libvmi
