#include "core/lists/proofs.h"

#include <cstring>

#include <array>

namespace vmi {

namespace {

// The columns of one proof, as plain pointers.
struct Cells {
  Cells(const Plan& plan, const RowBuffer& rows) : masks(rows.bytes) {
    const RowLayout layout(plan, rows.capacity);
    const Proof& proof = *plan.proof();
    bases = rows.bytes + layout.bases;
    value = rows.bytes + layout.columns[proof.column];
    fault = uint32_t{1} << proof.column;
    // What a proof of fewer keys leaves is the base once more.
    keys.fill(bases);
    for (size_t k = 0; k < proof.keys.size(); ++k) {
      keys[k] = rows.bytes + layout.columns[proof.keys[k]];
    }
  }

  static uint64_t Load(const uint8_t* column, size_t row) {
    uint64_t value;
    std::memcpy(&value, column + row * sizeof value, sizeof value);
    return value;
  }
  bool IsFaulty(size_t row) const {
    uint32_t mask;
    std::memcpy(&mask, masks + row * sizeof mask, sizeof mask);
    return (mask & fault) != 0;
  }

  uint8_t* masks;
  uint8_t* bases;
  uint8_t* value;
  std::array<uint8_t*, Plan::kMaxKeys> keys;
  // The value's bit.
  uint32_t fault = 0;
};

}  // namespace

void Proofs::Begin(const Plan& plan, size_t count, int64_t now, int64_t age) {
  now_ = now;
  age_ = age;
  if (plan_ != plan.number()) entries_.clear();
  plan_ = plan.number();
  entries_.resize(count);
}

void Proofs::Recall(const Plan& plan, const RowBuffer& rows, size_t first, size_t end,
                    uint8_t* proved) const {
  const Cells cells(plan, rows);
  for (size_t row = first; row < end; ++row) {
    const Entry& entry = entries_[row];
    bool same =
        entry.base != 0 && now_ - entry.time < age_ && Cells::Load(cells.bases, row) == entry.base;
    for (size_t k = 0; k < Plan::kMaxKeys; ++k)
      same = same && Cells::Load(cells.keys[k], row) == entry.keys[k];
    proved[row - first] = same;
    if (same) std::memcpy(cells.value + row * sizeof entry.value, &entry.value, sizeof entry.value);
  }
}

void Proofs::Keep(const Plan& plan, const RowBuffer& rows, size_t first, size_t end,
                  const uint8_t* proved) {
  const Cells cells(plan, rows);
  for (size_t row = first; row < end; ++row) {
    if (proved[row - first] != 0) continue;
    Entry& entry = entries_[row];
    entry.base = 0;
    entry.value = Cells::Load(cells.value, row);
    if (cells.IsFaulty(row) || !plan.IsProof(entry.value)) continue;
    entry.base = Cells::Load(cells.bases, row);
    for (size_t k = 0; k < Plan::kMaxKeys; ++k) entry.keys[k] = Cells::Load(cells.keys[k], row);
    entry.time = now_;
  }
}

void Proofs::Reorder(const std::vector<uint32_t>& numbers) {
  spare_.resize(numbers.size());
  for (size_t row = 0; row < numbers.size(); ++row) {
    spare_[row] = numbers[row] < entries_.size() ? entries_[numbers[row]] : Entry();
  }
  entries_.swap(spare_);
}

}  // namespace vmi
