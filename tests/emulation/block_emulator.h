#pragma once
// The emulator of one host thread: what emulator.h offers, beneath. emulator.cpp runs blocks and
// their threads, meetings.cpp what threads wait in.
#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulation/async_copies.h"
#include "emulation/emulator.h"
#include "emulation/fiber_pool.h"
#include "emulation/guarded_memory.h"
#include "emulation/schedule.h"

namespace sfumato::emulation {

/// Unwinds the threads of a block that failed.
struct Abandoned {};

/// A CUDA thread of the block at hand.
struct Thread {
  enum class State { kRunning, kAtBarrier, kInWarp, kDone };
  State state = State::kRunning;
  uint3 index = {0, 0, 0};
  Fiber* fiber = nullptr;  // null until it starts
  std::source_location where;
  unsigned mask = 0;
  AsyncCopies copies;

  void reset(uint3 at) {
    state = State::kRunning;
    index = at;
    fiber = nullptr;
    copies.clear();
  }
};

/// Meetings of one warp that wait for lanes.
struct Warp {
  std::vector<detail::Meeting*> open;
};

/// Runs the blocks of a launch, one after another, and the threads of a block by turns.
class Emulator {
 public:
  Emulator() : pool_([this](Fiber& fiber) { work(fiber); }) {}

  int launch(const LaunchShape& shape, const std::function<void()>& thread);
  int allow_shared_memory(const void* kernel, int bytes);

  bool inside_kernel() const { return current_ != nullptr; }
  void require_kernel(const char* what) const {
    if (!inside_kernel()) throw std::logic_error(std::string(what) + " outside a kernel");
  }
  int current_lane() const {
    require_kernel("a warp operation");
    return static_cast<int>(number_of(*current_) % kWarp);
  }
  void* shared_memory() const {
    require_kernel("shared memory");
    return shared_->data();
  }
  void block_barrier(const std::source_location& where);
  detail::Meeting& meet(unsigned mask, const void* mine, std::size_t size,
                        const std::source_location& where);
  void leave(detail::Meeting& meeting);
  void async_copy(const AsyncCopies::Copy& copy);
  void async_commit();
  void async_wait(int pending_groups);
  [[noreturn]] void fail(const std::string& why, const std::source_location& where);

  Schedule schedule;
  Statistics statistics;
  std::string error;
  int last_status = cudaSuccess;
  std::size_t most_shared = kMostSharedMemory;

 private:
  int refuse(int status, const std::string& why);
  void run_block(unsigned threads);
  void work(Fiber& fiber);
  Thread* next();
  void pause();
  void run_thread(Thread& thread);
  void wake(Thread& thread);
  unsigned number_of(const Thread& thread) const {
    return static_cast<unsigned>(&thread - threads_.data());
  }
  void abandon(const std::string& why);
  void report_standstill();
  std::string name(const Thread& thread) const;
  std::string activity(const Thread& thread) const;
  detail::Meeting& open_meeting(unsigned mask, std::size_t size, const std::source_location& where);

  FiberPool pool_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<std::unique_ptr<detail::Meeting>> meetings_;
  std::vector<detail::Meeting*> free_meetings_;
  std::map<const void*, std::size_t> allowed_;
  std::optional<GuardedMemory> shared_;
  const std::function<void()>* body_ = nullptr;
  Thread* current_ = nullptr;
  unsigned finished_ = 0;
  unsigned at_barrier_ = 0;
  std::source_location barrier_;
  bool failed_ = false;
};

/// That of the calling host thread.
Emulator& emulator();

}  // namespace sfumato::emulation
