// What a walk of a list proved of its rows, for a later walk that takes it at its word: see
// Plan::Prove.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/gather/plan.h"

namespace vmi {

class Proofs {
 public:
  // Starts a walk, at `now` nanoseconds of a clock that does not go back, that takes proofs less
  // than `age` old: room for `count` rows of a plan that proves something. What the rows of another
  // plan proved is forgotten.
  void Begin(const Plan& plan, size_t count, int64_t now, int64_t age);

  // Of rows [first, end), whose other columns are there: writes the proof's column of those that
  // are proved, and marks them in `proved`, one byte a row, 0 for the others. Threads may share the
  // rows of a walk between them.
  void Recall(const Plan& plan, const RowBuffer& rows, size_t first, size_t end,
              uint8_t* proved) const;

  // Keeps what was read of rows [first, end) that are not marked.
  void Keep(const Plan& plan, const RowBuffer& rows, size_t first, size_t end,
            const uint8_t* proved);

  // The next walk's rows, each by its number in this one; one that is too large: it was not in this
  // one.
  void Reorder(const std::vector<uint32_t>& numbers);

 private:
  struct Entry {
    // 0: nothing is proved.
    uint64_t base = 0;
    uint64_t keys[Plan::kMaxKeys] = {};
    uint64_t value = 0;
    int64_t time = 0;
  };

  uint64_t plan_ = 0;
  int64_t now_ = 0;
  int64_t age_ = 0;
  std::vector<Entry> entries_;
  std::vector<Entry> spare_;
};

}  // namespace vmi
