#include "core/lists/list_walker.h"

#include <algorithm>
#include <string>

#include "core/lists/list_walk.h"

namespace vmi {

namespace {

Status CorruptHead(uint64_t head, const std::string& message) {
  Error error;
  error.code = Code::kCorrupt;
  error.message = message;
  error.address = head;
  return error;
}

}  // namespace

Result<std::unique_ptr<ListWalker>> ListWalker::Create(AddressSpace* space, const Plan& plan,
                                                       uint32_t link) {
  if (plan.columns().size() >= Plan::kMaxColumns) {
    return {Code::kMisuse, "Expected a plan of at most " + std::to_string(Plan::kMaxColumns - 1) +
                               " columns but received " + std::to_string(plan.columns().size())};
  }
  return std::unique_ptr<ListWalker>(new ListWalker(space, plan, link));
}

Status ListWalker::Walk(const uint64_t* heads, size_t head_count, size_t max,
                        const RowBuffer& into) {
  retries_ = 0;
  Status status = space_->memory()->Check();
  if (!status.ok()) return status;
  // `into` may lie over them.
  const std::vector<uint64_t> own_heads(heads, heads + head_count);
  for (const uint64_t head : own_heads) {
    if (!IsPlausibleNode(*space_, head))
      return CorruptHead(head, "the list head " + Hex(head) + " is not a kernel address");
  }
  const bool is_mapped = space_->memory()->mapped();
  const uint64_t twice = nodes_.Begin(own_heads.data(), head_count, !is_mapped);
  if (twice != 0) return CorruptHead(twice, "two lists have the same head, " + Hex(twice));
  // Before anything else is read: what follows is newer, and decides.
  if (is_mapped) {
    mapped_.Begin(into);
  } else {
    copied_.Begin(own_heads, &nodes_.last(), into);
  }
  max = static_cast<size_t>(std::min<uint64_t>(max, kMaxRowBytes / RowLayout(plan_, 1).total));
  ListWalk walk(space_, max, &nodes_, is_mapped ? &mapped_ : nullptr,
                is_mapped ? nullptr : &copied_);
  status = walk.Run(own_heads);
  retries_ = walk.retries();
  if (status.ok()) nodes_.End();
  return status;
}

Status ListWalker::Fill(const RowBuffer& rows) {
  if (space_->memory()->mapped()) return mapped_.Fill(nodes_.last(), rows);
  copied_.Fill(nodes_.rows(), rows);
  return space_->memory()->Check();
}

}  // namespace vmi
