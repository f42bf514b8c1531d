#include "emulation/emulator.h"

#include <cuda_runtime.h>

#include "emulation/block_emulator.h"
#include "emulation/launch_limits.h"

constinit thread_local uint3 threadIdx = {0, 0, 0};
constinit thread_local uint3 blockIdx = {0, 0, 0};
constinit thread_local dim3 blockDim = {0, 0, 0};
constinit thread_local dim3 gridDim = {0, 0, 0};

namespace sfumato::emulation {

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
  proxy_.open(shape.shared_bytes);
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
  proxy_.close();
  body_ = nullptr;
  if (!failed_) return cudaSuccess;
  return last_status = cudaErrorLaunchFailure;
}

void Emulator::run_block(unsigned threads) {
  ++statistics.blocks;
  shared_->forget();
  proxy_.forget();
  named_barriers_.clear();
  products_.clear();
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
  if (const std::string left = failed_ ? "" : unfinished(); !left.empty())
    abandon("block " + triple(blockIdx.x, blockIdx.y, blockIdx.z) + " ended " + left);
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
  while (number == Schedule::kNobody && !failed_ && land_copy()) number = schedule.take();
  if (number == Schedule::kNobody) {
    if (!failed_) report_standstill();
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

void set_schedule(std::uint64_t seed) { emulator().schedule.set_seed(seed); }
std::size_t most_shared_memory() { return emulator().most_shared; }
void set_most_shared_memory(std::size_t bytes) { emulator().most_shared = bytes; }
int compute_capability() { return emulator().capability; }
void set_compute_capability(int capability) { emulator().capability = capability; }
int multiprocessors() { return emulator().multiprocessors; }
void set_multiprocessors(int count) { emulator().multiprocessors = count; }
std::string last_error() { return emulator().error; }
void clear_error() { emulator().error.clear(); }
Statistics statistics() { return emulator().statistics; }
void reset_statistics() { emulator().statistics = {}; }

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
