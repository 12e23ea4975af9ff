#include "source/libvmi/output.h"

#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

namespace libvmi {

#ifdef __GLIBC__
namespace {

thread_local std::string* log_of_this_thread = nullptr;

// One of the process's two streams. Its stand-in is never closed: a thread may have read the
// variable just before it was put back.
struct Stream {
  FILE** variable;
  int descriptor;
  FILE* stand_in = nullptr;
  FILE* original = nullptr;

  void Replace();
  void PutBack() { *variable = original; }
};

ssize_t Write(void* cookie, const char* bytes, size_t length) {
  if (log_of_this_thread != nullptr) {
    std::string& log = *log_of_this_thread;
    log.append(bytes, std::min(length, CaptureOutput::kMaxLog - log.size()));
    return static_cast<ssize_t>(length);
  }
  return write(static_cast<Stream*>(cookie)->descriptor, bytes, length);
}

void Stream::Replace() {
  if (stand_in == nullptr) {
    cookie_io_functions_t functions = {};
    functions.write = Write;
    stand_in = fopencookie(this, "w", functions);
    // Unbuffered: a shared buffer would mix the lines of different threads.
    if (stand_in != nullptr) setvbuf(stand_in, nullptr, _IONBF, 0);
  }
  original = *variable;
  if (stand_in != nullptr) *variable = stand_in;
}

// The streams belong to the process, so this does too.
struct Redirection {
  std::mutex mutex;
  Stream streams[2] = {{&stdout, STDOUT_FILENO}, {&stderr, STDERR_FILENO}};
  unsigned captures = 0;
};

Redirection& TheRedirection() {
  static auto* redirection = new Redirection;
  return *redirection;
}

}  // namespace

CaptureOutput::CaptureOutput(std::string* log) {
  log_of_this_thread = log;
  Redirection& redirection = TheRedirection();
  const std::lock_guard<std::mutex> lock(redirection.mutex);
  if (redirection.captures++ > 0) return;
  for (Stream& stream : redirection.streams) stream.Replace();
}

CaptureOutput::~CaptureOutput() {
  Redirection& redirection = TheRedirection();
  {
    const std::lock_guard<std::mutex> lock(redirection.mutex);
    if (--redirection.captures == 0) {
      for (Stream& stream : redirection.streams) stream.PutBack();
    }
  }
  log_of_this_thread = nullptr;
}
#else
CaptureOutput::CaptureOutput(std::string*) {}
CaptureOutput::~CaptureOutput() = default;
#endif

}  // namespace libvmi
