#include "libvmi_stderr.h"

#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

namespace libvmi {

#ifdef __GLIBC__
namespace {

thread_local std::string* log_of_this_thread = nullptr;

ssize_t Write(void*, const char* bytes, size_t length) {
  if (log_of_this_thread != nullptr) {
    std::string& log = *log_of_this_thread;
    log.append(bytes, std::min(length, CaptureStderr::kMaxLog - log.size()));
    return static_cast<ssize_t>(length);
  }
  return write(STDERR_FILENO, bytes, length);
}

// `stderr` belongs to the process, so this does too. The stream is never closed: a thread may have
// read the variable just before it was put back.
struct Redirection {
  std::mutex mutex;
  FILE* stream = nullptr;
  FILE* original = nullptr;
  unsigned captures = 0;
};

Redirection& TheRedirection() {
  static auto* redirection = new Redirection;
  return *redirection;
}

}  // namespace

CaptureStderr::CaptureStderr(std::string* log) {
  log_of_this_thread = log;
  Redirection& redirection = TheRedirection();
  const std::lock_guard<std::mutex> lock(redirection.mutex);
  if (redirection.captures++ > 0) return;
  if (redirection.stream == nullptr) {
    cookie_io_functions_t functions = {};
    functions.write = Write;
    redirection.stream = fopencookie(nullptr, "w", functions);
    // Unbuffered: a shared buffer would mix the lines of different threads.
    if (redirection.stream != nullptr) setvbuf(redirection.stream, nullptr, _IONBF, 0);
  }
  redirection.original = stderr;
  if (redirection.stream != nullptr) stderr = redirection.stream;
}

CaptureStderr::~CaptureStderr() {
  Redirection& redirection = TheRedirection();
  {
    const std::lock_guard<std::mutex> lock(redirection.mutex);
    if (--redirection.captures == 0) stderr = redirection.original;
  }
  log_of_this_thread = nullptr;
}
#else
CaptureStderr::CaptureStderr(std::string*) {}
CaptureStderr::~CaptureStderr() = default;
#endif

}  // namespace libvmi
