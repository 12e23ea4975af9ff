#include "core/gather/gatherer.h"

#include <cstring>

#include "core/gather/copied.h"
#include "core/gather/mapped.h"
#include "core/gather/rows.h"

namespace vmi {

Status Gatherer::Gather(const Plan& plan, const uint64_t* bases, size_t count,
                        const RowBuffer& rows, size_t first) {
  Status status = space_->memory()->Check();
  if (!status.ok()) return status;
  if (count == 0) return {};
  std::memmove(Rows(plan, rows, first).bases, bases, count * sizeof *bases);
  FillRows(plan, rows, first, count);
  return space_->memory()->Check();
}

Status Gatherer::GatherNodes(const Plan& plan, const uint64_t* nodes, size_t count, uint64_t link,
                             const RowBuffer& rows, size_t first) {
  Status status = space_->memory()->Check();
  if (!status.ok()) return status;
  if (count == 0) return {};
  uint8_t* bases = Rows(plan, rows, first).bases;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t base = nodes[i] - link;
    std::memcpy(bases + i * sizeof base, &base, sizeof base);
  }
  FillRows(plan, rows, first, count);
  return space_->memory()->Check();
}

void Gatherer::FillRows(const Plan& plan, const RowBuffer& rows, size_t first, size_t count) {
  std::memset(rows.bytes + first * sizeof(uint32_t), 0, count * sizeof(uint32_t));
  if (space_->memory()->mapped()) {
    GatherMapped(space_, plan, Rows(plan, rows, first), count);
  } else {
    GatherCopied(space_, plan, Rows(plan, rows, 0), first, first + count, {}, &scratch_);
  }
}

}  // namespace vmi
