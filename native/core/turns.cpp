#include "core/turns.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace vmi {

namespace {

int64_t Now() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Turns::Job::Job(Turns* turns, PhysicalSource* source, size_t blocks)
    : turns_(turns), blocks_(blocks), lock_(turns->busy_, std::defer_lock) {
  if (blocks < kFew || !lock_.try_lock()) return;
  in_turns_ = turns_->Next(blocks_);
  source->ReadInTurns(in_turns_);
  start_ = Now();
}

Turns::Job::~Job() {
  if (lock_.owns_lock()) turns_->Record(blocks_, in_turns_, Now() - start_);
}

bool Turns::Next(size_t blocks) {
  // The last one shows what it takes the usual way.
  if (++jobs_ < kPeriod || blocks != last_blocks_) return in_turns_;
  jobs_ = 0;
  return !in_turns_;
}

void Turns::Record(size_t blocks, bool in_turns, int64_t nanoseconds) {
  if (blocks == last_blocks_ && in_turns != last_in_turns_ && nanoseconds > 0 &&
      last_nanoseconds_ > 0) {
    const auto [turns, once] = in_turns ? std::pair(nanoseconds, last_nanoseconds_)
                                        : std::pair(last_nanoseconds_, nanoseconds);
    // One of a thread that was stopped changes nothing.
    const double ratio =
        std::clamp(static_cast<double>(turns) / static_cast<double>(once), 0.8, 1.25);
    ratio_ += ratio_ == 0 ? ratio : (ratio - ratio_) / 4;
    // Nearly the same is no reason to change.
    if (ratio_ < 0.97) in_turns_ = true;
    if (ratio_ > 1.03) in_turns_ = false;
  }
  last_blocks_ = blocks;
  last_in_turns_ = in_turns;
  last_nanoseconds_ = nanoseconds;
}

}  // namespace vmi
