// Guest-physical memory that is open, closing or closed.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "core/helper_thread.h"
#include "core/physical_source.h"
#include "core/result.h"

namespace vmi {

class Memory {
 public:
  explicit Memory(std::unique_ptr<PhysicalSource> source);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  const std::vector<Range>& ranges() const { return ranges_; }
  bool mapped() const { return mapped_; }
  // PhysicalSource::parallel().
  bool parallel() const { return parallel_; }

  // Drops what the source caches; kClosed when closed or when the guest is gone.
  Status Begin();

  // kClosed when closed, the source's error once it had one. Every operation asks first and, when a
  // read failed, last: a source that is gone must not look like a page that is not there.
  Status Check() const {
    if (open_.load(std::memory_order_relaxed)) return {};
    return Unusable();
  }

  // Bytes read before the first address that is not RAM.
  Result<size_t> Read(uint64_t physical, uint8_t* into, size_t length);
  Status ReadMany(ReadRequest* requests, size_t count);
  // Little-endian, or kFault.
  Result<uint64_t> ReadU64(uint64_t physical);
  // PhysicalSource::writable().
  bool writable() const { return writable_; }
  // Bytes written before the first that cannot be; kUnsupported where it is not writable().
  Result<size_t> Write(uint64_t physical, const uint8_t* from, size_t length);

  // Below: only between a Check and the next Close.

  size_t Copy(uint64_t physical, uint8_t* into, size_t length);
  void CopyBatch(ReadRequest* requests, size_t count);
  // Calls work(block, thread) for every block below `count`: on two threads at once where the
  // source is parallel(), so that of this class only CopyBlock may be called in it.
  template <typename Work>
  void ForBlocks(size_t count, Work&& work) {
    if (parallel_) return helper_.Run(count, std::forward<Work>(work));
    for (size_t block = 0; block < count; ++block) work(block, 0);
  }
  // As CopyBatch, on the calling thread alone.
  void CopyBlock(ReadRequest* requests, size_t count);
  bool LoadU64(uint64_t physical, uint64_t* value);
  const uint8_t* Direct(uint64_t physical, size_t length) {
    return source_->Direct(physical, length);
  }
  bool Flat(uint64_t physical, uint64_t length, FlatRun* run) {
    return source_->Flat(physical, length, run);
  }
  void Refresh() { source_->Refresh(); }
  bool NextData(uint64_t from, uint64_t last, uint64_t limit, Range* run) {
    return source_->NextData(from, last, limit, run);
  }
  // PhysicalSource::Absent().
  bool Absent(uint64_t physical);
  // The range that holds `physical`, or nullptr.
  const Range* FindRange(uint64_t physical) const;

  // Ends work on other threads, waits for it, releases the source. Idempotent.
  void Close();

  // Keeps the source open on a thread that is not the owner's.
  class Use {
   public:
    explicit Use(Memory* memory);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    const Status& status() const { return status_; }

   private:
    Memory* memory_;
    Status status_;
  };

 private:
  Status Unusable() const;
  void Fail(Status status);
  bool Recover();

  std::unique_ptr<PhysicalSource> source_;
  std::vector<Range> ranges_;
  bool mapped_;
  bool parallel_;
  bool writable_;
  HelperThread helper_;
  // False from the start of Close, and once the source has failed.
  std::atomic<bool> open_{true};
  mutable std::mutex mutex_;
  std::condition_variable idle_;
  size_t uses_ = 0;
  bool closed_ = false;
  Status failure_;
};

}  // namespace vmi
