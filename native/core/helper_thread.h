// One more thread for work that comes in blocks, kept between jobs: to start a thread takes as long
// as a hundred reads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include <pthread.h>

namespace vmi {

class HelperThread {
 public:
  // Threads that may run one job: the caller, which is 0, and the helper, which is 1.
  static constexpr int kThreads = 2;

  HelperThread() = default;
  ~HelperThread() { Stop(); }
  HelperThread(const HelperThread&) = delete;
  HelperThread& operator=(const HelperThread&) = delete;

  // Calls work(block, thread) for every block below `count`, in ascending order as seen from either
  // thread, and returns when all are done. The helper takes its share when it is there in time:
  // nobody waits for it to wake. It throws nothing.
  template <typename Work>
  void Run(size_t count, Work&& work) {
    const auto call = [](void* context, size_t block, int thread) {
      (*static_cast<Work*>(context))(block, thread);
    };
    Share(count, call, const_cast<void*>(static_cast<const void*>(&work)));
  }

  // Ends the thread. The next Run starts it again.
  void Stop();

 private:
  using Call = void (*)(void* context, size_t block, int thread);
  enum State : uint32_t {
    // No job; the helper waits for one.
    kIdle,
    // A job that the helper has not seen yet.
    kOpen,
    // Both are at it.
    kJoined,
    // The helper found no block left.
    kLeft,
    kStop,
  };

  void Share(size_t count, Call call, void* context);
  bool Start();
  void TakeBlocks(int thread);
  void Serve();
  bool AwaitJob();
  static void* Main(void* self);

  // One job at a time; whoever comes second works alone.
  std::mutex busy_;
  bool started_ = false;
  pthread_t thread_{};
  std::atomic<uint32_t> state_{kIdle};
  // Whether the helper sleeps, or is about to.
  std::atomic<uint32_t> sleeps_{0};
  // The job.
  Call call_ = nullptr;
  void* context_ = nullptr;
  size_t count_ = 0;
  std::atomic<size_t> next_{0};
};

}  // namespace vmi
