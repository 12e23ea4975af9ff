#pragma once

#include <string>

namespace libvmi {

// While alive, what this thread prints through C's `stderr` and `stdout` goes to `log` (its first
// kMaxLog bytes) instead of the process's own. libvmi explains its failures there and nowhere else:
// on stdout when it was built with its Bareflank driver, as it is by default, where it would land
// in the middle of what a program prints for others to read.
//
// With glibc both are variables; for as long as any capture lives they point to streams that look
// at the writing thread: a capturing one fills its log, any other one reaches descriptor 1 or 2 as
// always. Without glibc nothing is captured.
class CaptureOutput {
 public:
  static constexpr size_t kMaxLog = 4096;

  explicit CaptureOutput(std::string* log);
  ~CaptureOutput();
  CaptureOutput(const CaptureOutput&) = delete;
  CaptureOutput& operator=(const CaptureOutput&) = delete;
};

}  // namespace libvmi
