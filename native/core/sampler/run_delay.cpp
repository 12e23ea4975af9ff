#include "core/sampler/run_delay.h"

#include <cstdlib>

#include <fcntl.h>
#include <unistd.h>

namespace vmi {

RunDelay::RunDelay() : fd_(open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)) {}

RunDelay::~RunDelay() {
  if (fd_ >= 0) close(fd_);
}

uint64_t RunDelay::Read() const {
  char text[96];
  const ssize_t length = fd_ < 0 ? -1 : pread(fd_, text, sizeof text - 1, 0);
  if (length <= 0) return kUnknown;
  text[length] = '\0';
  char* end = nullptr;
  const uint64_t ran = std::strtoull(text, &end, 10);
  // A host that keeps no such times shows zeroes.
  if (*end != ' ' || ran == 0) return kUnknown;
  return std::strtoull(end, nullptr, 10);
}

}  // namespace vmi
