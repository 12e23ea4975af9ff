// libvmi in a process of its own.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "source/libvmi/engine.h"
#include "source/libvmi/process.h"
#include "source/libvmi/wire.h"

namespace libvmi {

// A crash in libvmi, and a call that exceeds its deadline, end that process: the call is kCrashed
// or kBusy, and the next one starts a new process and brings it to where the last one was
// (vmi_init, vmi_init_paging, vmi_init_os).
class RemoteEngine final : public Engine {
 public:
  // Starts the process, which loads the library `path` (see Library::Open): kLibraryMissing,
  // kUnsupported, kAttach, kCrashed.
  static vmi::Result<std::unique_ptr<Engine>> Start(const std::string& path, Domain domain,
                                                    Duration deadline);
  ~RemoteEngine() override;

  const Facts& facts() const override { return facts_; }
  bool bounded() const override { return true; }
  bool attached() const override { return attached_; }
  void SetDeadline(Duration deadline) override { deadline_ = deadline; }
  std::string TakeLog() override;

  vmi::Status Attach() override;
  vmi::Status Invoke(const Call& call, const std::vector<Value>& arguments, bool fresh,
                     Outcome* outcome) override;
  vmi::Status InitOs(const Config& config, Os* os) override;
  vmi::Status Read(Piece* pieces, size_t count, bool stale) override;
  vmi::Status FlushCaches() override;
  vmi::Status StartCr3Writes(size_t capacity) override;
  vmi::Status Listen(Duration timeout, Cr3Writes* writes) override;
  vmi::Status StopCr3Writes() override;
  void End() override;

 private:
  RemoteEngine(std::string path, Domain domain, Duration deadline);

  vmi::Status Launch();
  // There is a process, attached if this one is.
  vmi::Status Ready();
  // One question to the process that runs; `name` is what it is told of in errors.
  vmi::Status Ask(const char* name, const std::string& request, std::string* answer);
  // The same, for an answer that is a status alone.
  vmi::Status Ask(const char* name, const std::string& request);
  vmi::Status Gone(const char* name, bool late);
  // After the end of the process: sees to it that no guest of Xen waits for it. What there is to
  // say of it, for an error's message.
  std::string LetGuestGo();
  vmi::Status ReadSlots(Piece* pieces, size_t count, bool stale);

  const std::string path_;
  const Domain domain_;
  Duration deadline_;
  Facts facts_;
  std::unique_ptr<HostProcess> process_;
  bool attached_ = false;
  // The guest is: a process that ends leaves it so.
  bool paused_ = false;
  bool listening_ = false;
  // What is asked again of a new process, in order: names and requests that succeeded.
  std::vector<std::pair<const char*, std::string>> setup_;
  std::string output_;
};

}  // namespace libvmi
