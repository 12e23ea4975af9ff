#include "core/lookup/look_ups.h"

namespace vmi {

Result<uint64_t> LookUps::Find(const RadixTree& tree, uint64_t head, uint64_t index) {
  AddressSpace* space = gatherer_->space();
  Status status = space->memory()->Check();
  if (!status.ok()) return status;
  paths_.Begin(head, index);
  const ReadPaths::Along along(&paths_);
  return LookUp(space, tree, head, index);
}

Status LookUps::Gather(const Plan& plan, const uint64_t* bases, size_t count,
                       const RowBuffer& rows) {
  const ReadPaths::Along along(&paths_);
  return gatherer_->Gather(plan, bases, count, rows);
}

}  // namespace vmi
