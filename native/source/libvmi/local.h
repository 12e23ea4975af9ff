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
  vmi::Status StartCr3Writes() override;
  vmi::Status Listen(Duration timeout, std::vector<Cr3Write>* writes) override;
  vmi::Status StopCr3Writes() override;
  void End() override;

 private:
  const std::shared_ptr<const Library> library_;
  const Facts facts_;
  const Domain domain_;
  const Duration patience_;
  Instance instance_ = nullptr;
  bool paused_ = false;
  // Number of the domain of Xen, once its limit is known.
  std::optional<uint32_t> limited_;
  Cr3Events events_;
};

}  // namespace libvmi
