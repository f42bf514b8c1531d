#include "emulation/emulator.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "emulation/async_copies.h"
#include "emulation/fiber_pool.h"
#include "emulation/guarded_memory.h"
#include "emulation/launch_limits.h"
#include "emulation/schedule.h"

constinit thread_local uint3 threadIdx = {0, 0, 0};
constinit thread_local uint3 blockIdx = {0, 0, 0};
constinit thread_local dim3 blockDim = {0, 0, 0};
constinit thread_local dim3 gridDim = {0, 0, 0};

namespace sfumato::emulation {
namespace {

constexpr unsigned kWarp = 32;

/// Unwinds the threads of a block that failed.
struct Abandoned {};

std::string place(const std::source_location& where) {
  const std::string file = where.file_name();
  const std::size_t slash = file.rfind('/');
  return (slash == std::string::npos ? file : file.substr(slash + 1)) + ":" +
         std::to_string(where.line());
}

bool same_place(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

std::string hexadecimal(unsigned value) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", value);
  return text;
}

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

Emulator& emulator() {
  thread_local Emulator one;
  return one;
}

int Emulator::refuse(int status, const std::string& why) {
  error = why;
  last_status = status;
  return status;
}

int Emulator::allow_shared_memory(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<std::size_t>(bytes) > most_shared)
    return refuse(cudaErrorInvalidValue, "cudaFuncSetAttribute: " + std::to_string(bytes) +
                                             " bytes of shared memory, at most " +
                                             std::to_string(most_shared) + " are there");
  allowed_[kernel] = static_cast<std::size_t>(bytes);
  return cudaSuccess;
}

int Emulator::launch(const LaunchShape& shape, const std::function<void()>& thread) {
  if (inside_kernel()) return refuse(cudaErrorNotSupported, "a launch inside a kernel");
  const auto found = allowed_.find(shape.kernel);
  const Refusal refusal = refusal_of(shape, found == allowed_.end() ? 0 : found->second);
  if (refusal.status != cudaSuccess) return refuse(refusal.status, refusal.why);
  const auto& [gx, gy, gz] = shape.grid;
  const auto& [bx, by, bz] = shape.block;
  gridDim = dim3(gx, gy, gz);
  blockDim = dim3(bx, by, bz);
  const unsigned threads = bx * by * bz;
  if (threads_.size() < threads) threads_.resize(threads);
  warps_.resize((threads + kWarp - 1) / kWarp);
  shared_.emplace(shape.shared_bytes);
  body_ = &thread;
  failed_ = false;
  ++statistics.launches;
  const std::uint64_t blocks = std::uint64_t{gx} * gy * gz;
  schedule.begin_launch(blocks);
  for (std::uint64_t i = 0; i < blocks && !failed_; ++i) {
    const std::uint64_t block = schedule.next_block();
    blockIdx = {static_cast<unsigned>(block % gx), static_cast<unsigned>(block / gx % gy),
                static_cast<unsigned>(block / gx / gy)};
    run_block(threads);
  }
  shared_.reset();
  body_ = nullptr;
  if (!failed_) return cudaSuccess;
  return last_status = cudaErrorLaunchFailure;
}

void Emulator::run_block(unsigned threads) {
  ++statistics.blocks;
  shared_->forget();
  finished_ = at_barrier_ = 0;
  for (Warp& warp : warps_) warp.open.clear();
  free_meetings_.clear();
  for (const auto& meeting : meetings_) free_meetings_.push_back(meeting.get());
  threads_.resize(threads);
  for (unsigned i = 0; i < threads; ++i)
    threads_[i].reset({i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y});
  schedule.begin_block(threads);
  Thread* const first = next();
  Fiber& fiber = pool_.acquire();
  first->fiber = &fiber;
  fiber.task = first;
  pool_.switch_to(pool_.main(), fiber);
  current_ = nullptr;
  if (!failed_ && !shared_->margins_intact())
    abandon("block " + triple(blockIdx.x, blockIdx.y, blockIdx.z) +
            " wrote beside its shared memory of " + std::to_string(shared_->bytes()) + " bytes");
}

/// The life of a fiber: it runs threads from start to end. A thread that nobody has started needs
/// no switch.
void Emulator::work(Fiber& fiber) {
  while (fiber.task != nullptr) {
    run_thread(*static_cast<Thread*>(fiber.task));
    Thread* const following = next();
    if (following != nullptr && following->fiber == nullptr) {
      following->fiber = &fiber;
      fiber.task = following;
      continue;
    }
    pool_.release(fiber);
    pool_.switch_to(fiber, following == nullptr ? pool_.main() : *following->fiber);
  }
}

void Emulator::run_thread(Thread& thread) {
  current_ = &thread;
  threadIdx = thread.index;
  try {
    (*body_)();
  } catch (const Abandoned&) {
  } catch (const std::exception& problem) {
    if (!failed_) abandon(name(thread) + " threw: " + problem.what());
  }
  thread.state = Thread::State::kDone;
  ++finished_;
}

/// Null when all threads are done.
Thread* Emulator::next() {
  if (finished_ == threads_.size()) return nullptr;
  unsigned number = schedule.take();
  if (number == Schedule::kNobody) {
    report_standstill();
    if (finished_ == threads_.size()) return nullptr;
    number = schedule.take();
  }
  return &threads_[number];
}

/// Lets others go on until the schedule comes back to the calling thread.
void Emulator::pause() {
  Thread* const self = current_;
  Thread* const following = next();
  if (following != self) {
    if (following->fiber == nullptr) {
      following->fiber = &pool_.acquire();
      following->fiber->task = following;
    }
    pool_.switch_to(*self->fiber, *following->fiber);
    current_ = self;
    threadIdx = self->index;
  }
  if (failed_) throw Abandoned{};
}

void Emulator::wake(Thread& thread) {
  thread.state = Thread::State::kRunning;
  schedule.can_go_on(number_of(thread));
}

/// Gives the block up: waiting threads wake to unwind, the others do not start.
void Emulator::abandon(const std::string& why) {
  if (failed_) return;
  failed_ = true;
  error = why;
  for (Thread& thread : threads_) {
    if (thread.state == Thread::State::kDone) continue;
    if (thread.state != Thread::State::kRunning) {
      wake(thread);
    } else if (thread.fiber == nullptr) {
      thread.state = Thread::State::kDone;
      schedule.cannot_go_on(number_of(thread));
      ++finished_;
    }
  }
}

void Emulator::fail(const std::string& why, const std::source_location& where) {
  require_kernel(why.c_str());
  abandon(name(*current_) + ": " + why + " at " + place(where));
  throw Abandoned{};
}

std::string Emulator::name(const Thread& thread) const {
  return "block " + triple(blockIdx.x, blockIdx.y, blockIdx.z) + ", thread " +
         triple(thread.index.x, thread.index.y, thread.index.z);
}

std::string Emulator::activity(const Thread& thread) const {
  switch (thread.state) {
    case Thread::State::kDone: return "has finished";
    case Thread::State::kAtBarrier: return "waits at the barrier of " + place(thread.where);
    case Thread::State::kInWarp:
      return "waits in the warp operation of " + place(thread.where) + " with mask " +
             hexadecimal(thread.mask);
    default: return "runs";
  }
}

/// Nobody can go on: says for whom somebody waits.
void Emulator::report_standstill() {
  const auto in_warp = std::find_if(threads_.begin(), threads_.end(), [](const Thread& thread) {
    return thread.state == Thread::State::kInWarp;
  });
  if (in_warp != threads_.end()) {
    const unsigned number = number_of(*in_warp), first = number - number % kWarp;
    unsigned arrived = 0;
    for (const detail::Meeting* meeting : warps_[number / kWarp].open)
      if (meeting->mask == in_warp->mask && (meeting->arrived >> (number % kWarp) & 1u))
        arrived = meeting->arrived;
    const auto lane = static_cast<unsigned>(std::countr_zero(in_warp->mask & ~arrived));
    abandon(name(*in_warp) + " " + activity(*in_warp) + " for lane " + std::to_string(lane) +
            ", which " + activity(threads_[first + lane]));
    return;
  }
  const Thread* waiting = nullptr;
  const Thread* absent = nullptr;
  for (const Thread& thread : threads_) {
    const bool waits = thread.state == Thread::State::kAtBarrier;
    if (waits && waiting == nullptr) waiting = &thread;
    if (!waits && absent == nullptr) absent = &thread;
  }
  abandon(name(*waiting) + " " + activity(*waiting) + ", which " +
          std::to_string(threads_.size() - at_barrier_) + " of " + std::to_string(threads_.size()) +
          " threads never reach; the first of them is " + std::to_string(number_of(*absent)) +
          ", which " + activity(*absent));
}

void Emulator::block_barrier(const std::source_location& where) {
  require_kernel("a barrier");
  if (at_barrier_ == 0) barrier_ = where;
  if (!same_place(barrier_, where))
    fail("a barrier, while others of the block are at that of " + place(barrier_), where);
  if (++at_barrier_ < threads_.size()) {
    current_->state = Thread::State::kAtBarrier;
    current_->where = where;
  } else {
    at_barrier_ = 0;
    ++statistics.barriers;
    for (Thread& thread : threads_) thread.state = Thread::State::kRunning;
    schedule.all_can_go_on();
  }
  pause();
}

detail::Meeting& Emulator::open_meeting(unsigned mask, std::size_t size,
                                        const std::source_location& where) {
  if (free_meetings_.empty()) {
    meetings_.push_back(std::make_unique<detail::Meeting>());
    free_meetings_.push_back(meetings_.back().get());
  }
  detail::Meeting& meeting = *free_meetings_.back();
  free_meetings_.pop_back();
  meeting.mask = mask;
  meeting.arrived = 0;
  meeting.size = size;
  meeting.where = where;
  if (mask != 0xffffffffu) std::memset(meeting.values, 0xff, kWarp * size);
  return meeting;
}

detail::Meeting& Emulator::meet(unsigned mask, const void* mine, std::size_t size,
                                const std::source_location& where) {
  require_kernel("a warp operation");
  const unsigned number = number_of(*current_), lane = number % kWarp, first = number - lane;
  if ((mask >> lane & 1u) == 0)
    fail("a warp operation with mask " + hexadecimal(mask) + ", which leaves out its own lane",
         where);
  if (static_cast<unsigned>(std::bit_width(mask)) > threads_.size() - first)
    fail("a warp operation with mask " + hexadecimal(mask) + ", but the warp has only " +
             std::to_string(threads_.size() - first) + " lanes",
         where);
  std::vector<detail::Meeting*>& open = warps_[number / kWarp].open;
  const auto found = std::find_if(open.begin(), open.end(),
                                  [&](const detail::Meeting* one) { return one->mask == mask; });
  detail::Meeting& meeting = found != open.end() ? **found : open_meeting(mask, size, where);
  if (found == open.end()) open.push_back(&meeting);
  if (meeting.size != size || !same_place(meeting.where, where))
    fail("a warp operation, while other lanes of its mask are in that of " + place(meeting.where),
         where);
  std::memcpy(meeting.values + lane * size, mine, size);
  meeting.arrived |= 1u << lane;
  current_->where = where;
  current_->mask = mask;
  if (meeting.arrived != mask) {
    current_->state = Thread::State::kInWarp;
  } else {
    std::erase(open, &meeting);
    meeting.readers = std::popcount(mask);
    for (unsigned rest = mask; rest != 0; rest &= rest - 1)
      wake(threads_[first + static_cast<unsigned>(std::countr_zero(rest))]);
  }
  pause();
  return meeting;
}

void Emulator::leave(detail::Meeting& meeting) {
  if (--meeting.readers == 0) free_meetings_.push_back(&meeting);
}

void Emulator::async_copy(const AsyncCopies::Copy& copy) {
  require_kernel("an asynchronous copy");
  const std::string problem = AsyncCopies::problem(copy, *shared_);
  if (!problem.empty()) fail(problem, std::source_location::current());
  current_->copies.start(copy);
}

void Emulator::async_commit() {
  require_kernel("a group of asynchronous copies");
  current_->copies.commit();
}

void Emulator::async_wait(int pending_groups) {
  require_kernel("a wait for asynchronous copies");
  current_->copies.wait(pending_groups);
}

}  // namespace

void set_schedule(std::uint64_t seed) { emulator().schedule.set_seed(seed); }
std::size_t most_shared_memory() { return emulator().most_shared; }
void set_most_shared_memory(std::size_t bytes) { emulator().most_shared = bytes; }
std::string last_error() { return emulator().error; }
void clear_error() { emulator().error.clear(); }
Statistics statistics() { return emulator().statistics; }
void reset_statistics() { emulator().statistics = {}; }

void* shared_memory() { return emulator().shared_memory(); }
void block_barrier(std::source_location where) { emulator().block_barrier(where); }
void async_copy(void* to, const void* from, int bytes, int zero_fill_bytes) {
  emulator().async_copy({to, from, bytes, zero_fill_bytes});
}
void async_commit() { emulator().async_commit(); }
void async_wait(int pending_groups) { emulator().async_wait(pending_groups); }
void fail(const std::string& why, std::source_location where) { emulator().fail(why, where); }

namespace detail {

Meeting& meet(unsigned mask, const void* mine, std::size_t size,
              const std::source_location& where) {
  return emulator().meet(mask, mine, size, where);
}
void leave(Meeting& meeting) { emulator().leave(meeting); }
int current_lane() { return emulator().current_lane(); }

}  // namespace detail

int launch(const LaunchShape& shape, const std::function<void()>& thread) {
  return emulator().launch(shape, thread);
}
int allow_shared_memory(const void* kernel, int bytes) {
  return emulator().allow_shared_memory(kernel, bytes);
}
int take_last_status(bool clear) {
  const int status = emulator().last_status;
  if (clear) emulator().last_status = cudaSuccess;
  return status;
}

}  // namespace sfumato::emulation
