#include "emulation/fiber_pool.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <new>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace sfumato::emulation {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = 256 << 10;  // instrumented frames are large
#else
constexpr std::size_t kStackBytes = 64 << 10;
#endif

/// Stacks with a guard page below. Their tops lie at different places of a page, so that fibers at
/// the same depth do not fight for the same cache sets.
class Stacks {
 public:
  explicit Stacks(std::size_t number) : number_(number) {}

  boost::context::stack_context allocate() {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t whole = kStackBytes + 2 * page;
    void* const begin = mmap(nullptr, whole, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (begin == MAP_FAILED) throw std::bad_alloc();
    mprotect(begin, page, PROT_NONE);
    boost::context::stack_context stack;
    stack.size = whole - number_ * 320 % page;
    stack.sp = static_cast<char*>(begin) + stack.size;
    return stack;
  }

  void deallocate(boost::context::stack_context& stack) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    munmap(static_cast<char*>(stack.sp) - stack.size, kStackBytes + 2 * page);
  }

 private:
  std::size_t number_;
};

}  // namespace

FiberPool::FiberPool(std::function<void(Fiber&)> work) : work_(std::move(work)) {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  void* bottom = nullptr;
  pthread_attr_getstack(&attributes, &bottom, &main_.stack_bytes);
  main_.stack_bottom = bottom;
  pthread_attr_destroy(&attributes);
}

FiberPool::~FiberPool() {
  for (const auto& fiber : fibers_) {
    fiber->task = nullptr;
    switch_to(main_, *fiber);
  }
}

Fiber& FiberPool::acquire() {
  if (idle_.empty()) make();
  Fiber& fiber = *idle_.back();
  idle_.pop_back();
  return fiber;
}

void FiberPool::make() {
  fibers_.push_back(std::make_unique<Fiber>());
  Fiber& fiber = *fibers_.back();
  Stacks stacks(fibers_.size());
  const boost::context::stack_context stack = stacks.allocate();
  fiber.stack_bottom = static_cast<char*>(stack.sp) - stack.size;
  fiber.stack_bytes = stack.size;
  fiber.context = boost::context::fiber(
      std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack), stacks,
      [this, &fiber](boost::context::fiber&& caller) {
        started();
        previous_->context = std::move(caller);
        work_(fiber);
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_start_switch_fiber(nullptr, main_.stack_bottom, main_.stack_bytes);
#endif
        previous_ = &fiber;
        return std::move(main_.context);
      });
  idle_.push_back(&fiber);
}

void FiberPool::started() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void FiberPool::switch_to(Fiber& from, Fiber& to) {
  previous_ = &from;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_bottom, to.stack_bytes);
#endif
  boost::context::fiber caller = std::move(to.context).resume();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
  previous_->context = std::move(caller);
}

}  // namespace sfumato::emulation
