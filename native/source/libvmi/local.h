// libvmi in this process.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "source/libvmi/engine.h"
#include "source/libvmi/events.h"

namespace libvmi {

class LocalEngine final : public Engine {
 public:
  LocalEngine(std::shared_ptr<const Library> library, Domain domain, Duration patience);

  const Facts& facts() const override { return facts_; }
  bool bounded() const override { return false; }
  bool attached() const override { return instance_ != nullptr; }
  // The guest was paused by an instance that is gone: End resumes it.
  void NotePaused() { paused_ = true; }

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

  // Xen's number of the domain, once it is attached; empty with other hypervisors.
  std::optional<uint32_t> xen_domain() const { return xen_domain_; }
  // For a thread that does nothing but listen: what it gets is in events().queue(), which other
  // threads may use at any time.
  vmi::Status ListenTurn(Duration timeout);
  Cr3Events& events() { return events_; }
  // Lets go without a call: somebody else turned Xen's monitor off, and libvmi would do it again,
  // to whoever turned it on since. What libvmi holds of the guest goes with the process.
  void Abandon();

 private:
  const std::shared_ptr<const Library> library_;
  const Facts facts_;
  const Domain domain_;
  const Duration patience_;
  Instance instance_ = nullptr;
  bool paused_ = false;
  std::optional<uint32_t> xen_domain_;
  // Its limit of memory is known, and put back at the end.
  bool limited_ = false;
  Cr3Events events_;
};

}  // namespace libvmi
