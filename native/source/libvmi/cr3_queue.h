// Writes to CR3 between whoever gets them from the hypervisor and whoever reads them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

namespace libvmi {

struct Cr3Write {
  uint64_t value = 0;
  uint64_t previous = 0;
  uint32_t vcpu = 0;
};

// What was written to CR3 since the last look.
struct Cr3Writes {
  std::vector<Cr3Write> writes;
  // Writes that were lost since the start, because nobody took them in time.
  uint64_t dropped = 0;
};

// Keeps the latest `capacity` writes and counts those that it drops. A reader that is slow, or does
// not run at all, costs the guest nothing. Thread-safe.
class Cr3Queue {
 public:
  // Forgets everything; the count begins at 0.
  void Reset(size_t capacity);
  void Push(const Cr3Write& write);
  // Adds what another queue handed over, and takes its count of lost writes.
  void Add(const Cr3Writes& batch);
  // Takes all there is; waits for the first for at most `timeout`.
  Cr3Writes Take(std::chrono::milliseconds timeout);
  // Ends every wait for as long as there is nothing to take.
  void WakeReaders();
  bool empty() const;
  // Lost so far, here and before.
  uint64_t dropped() const;

 private:
  void PushLocked(const Cr3Write& write);

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Cr3Write> writes_;
  size_t capacity_ = 1;
  uint64_t dropped_ = 0;
  uint64_t dropped_before_ = 0;
  uint64_t wakes_ = 0;
};

}  // namespace libvmi
