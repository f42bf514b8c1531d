#pragma once
// The emulator of one host thread: what emulator.h offers, beneath. emulator.cpp runs blocks and
// their threads, meetings.cpp what threads wait in, proxy_meetings.cpp what they wait for of the
// asynchronous proxy.
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
#include "emulation/async_proxy.h"
#include "emulation/emulator.h"
#include "emulation/fiber_pool.h"
#include "emulation/guarded_memory.h"
#include "emulation/mbarriers.h"
#include "emulation/schedule.h"
#include "emulation/warpgroup_products.h"

namespace sfumato::emulation {

/// Unwinds the threads of a block that failed.
struct Abandoned {};

/// A CUDA thread of the block at hand.
struct Thread {
  enum class State { kRunning, kAtBarrier, kAtNamedBarrier, kAtMbarrier, kInWarp, kDone };
  State state = State::kRunning;
  uint3 index = {0, 0, 0};
  Fiber* fiber = nullptr;  // null until it starts
  std::source_location where;
  unsigned mask = 0;
  int barrier_id = 0;              // at a named barrier
  const void* mbarrier = nullptr;  // waited for, the phase of this parity
  unsigned parity = 0;
  AsyncCopies copies;
  WarpgroupProducts products;

  void reset(uint3 at) {
    state = State::kRunning;
    index = at;
    fiber = nullptr;
    copies.clear();
    products.clear();
  }
};

/// A barrier of some of the block's threads: how many come together, and have come.
struct NamedBarrier {
  int threads = 0, arrived = 0;
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
  std::uint32_t shared_address(const void* place, std::size_t bytes,
                               const std::source_location& where);
  void named_barrier(int id, int threads, const std::source_location& where);
  void mbarrier_init(void* barrier, unsigned arrivals, const std::source_location& where);
  void mbarrier_arrive(void* barrier, unsigned expected_bytes, const std::source_location& where);
  void mbarrier_wait(void* barrier, unsigned parity, const std::source_location& where);
  void fence_async_proxy();
  void tensor_copy(const TensorCopy& copy, const std::source_location& where);
  void warpgroup_fence();
  void warpgroup_product(const WarpgroupProduct& product, const std::source_location& where);
  void warpgroup_commit();
  void warpgroup_wait(int pending_groups, const std::source_location& where);
  [[noreturn]] void fail(const std::string& why, const std::source_location& where);

  Schedule schedule;
  Statistics statistics;
  std::string error;
  int last_status = cudaSuccess;
  std::size_t most_shared = kMostSharedMemory;
  int capability = 80, multiprocessors = 4;

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
  bool land_copy();
  Mbarrier mbarrier_at(const void* barrier, const char* what, const std::source_location& where);
  bool advance(void* place, Mbarrier barrier);
  void require_capability(int least, const char* what, const std::source_location& where);
  std::string unfinished() const;
  detail::Meeting& open_meeting(unsigned mask, std::size_t size, const std::source_location& where);

  FiberPool pool_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<std::unique_ptr<detail::Meeting>> meetings_;
  std::vector<detail::Meeting*> free_meetings_;
  std::map<const void*, std::size_t> allowed_;
  std::optional<GuardedMemory> shared_;
  AsyncProxy proxy_;
  std::map<int, NamedBarrier> named_barriers_;
  std::map<unsigned, std::vector<WarpgroupProducts::Signature>> products_;  // of each warpgroup
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
