#include "source/libvmi/program.h"

#include <dlfcn.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char** environ;

namespace libvmi {

std::string HostProgram() {
  Dl_info info = {};
  if (dladdr(reinterpret_cast<const void*>(&HostProgram), &info) == 0 || info.dli_fname == nullptr)
    return kHostProgram;
  char real[PATH_MAX];
  const std::string addon = realpath(info.dli_fname, real) != nullptr ? real : info.dli_fname;
  return addon.substr(0, addon.rfind('/') + 1) + kHostProgram;
}

bool ReleaseDomain(uint32_t domain, std::chrono::milliseconds patience) {
  const std::string program = HostProgram();
  const std::string number = std::to_string(domain);
  const char* arguments[] = {kHostProgram, "--release", number.c_str(), nullptr};
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  pid_t pid = -1;
  const int failed = posix_spawn(&pid, program.c_str(), nullptr, &attributes,
                                 const_cast<char* const*>(arguments), environ);
  posix_spawnattr_destroy(&attributes);
  if (failed != 0) return false;
  const auto until = std::chrono::steady_clock::now() + patience;
  int status = 0;
  pid_t ended = 0;
  while ((ended = waitpid(pid, &status, WNOHANG)) == 0) {
    if (std::chrono::steady_clock::now() < until) {
      poll(nullptr, 0, 5);
      continue;
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return false;
  }
  return ended == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace libvmi
