#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "emulation/block_emulator.h"
#include "emulation/launch_limits.h"

namespace sfumato::emulation {
namespace {

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

}  // namespace

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
    case Thread::State::kAtNamedBarrier:
      return "waits at barrier " + std::to_string(thread.barrier_id) + " of " + place(thread.where);
    case Thread::State::kAtMbarrier:
      return "waits in " + place(thread.where) + " for the end of parity " +
             std::to_string(thread.parity) + " of an mbarrier with " +
             Mbarrier::read(thread.mbarrier).text();
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
  const auto alone = std::find_if(threads_.begin(), threads_.end(), [](const Thread& thread) {
    return thread.state == Thread::State::kAtMbarrier ||
           thread.state == Thread::State::kAtNamedBarrier;
  });
  if (alone != threads_.end()) {
    abandon(name(*alone) + " " + activity(*alone) + ", and nobody else can go on");
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

}  // namespace sfumato::emulation
