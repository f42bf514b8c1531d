#pragma once
#include <boost/context/fiber.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace sfumato::emulation {

/// A stack with its registers. `task` is what the fiber shall do when it is switched to.
struct Fiber {
  boost::context::fiber context;
  void* task = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
  const void* stack_bottom = nullptr;
  std::size_t stack_bytes = 0;
};

/// Fibers that are made once and used again. Each runs `work` when first switched to; `work` ends
/// when it sees a null task.
class FiberPool {
 public:
  explicit FiberPool(std::function<void(Fiber&)> work);
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  /// The host thread itself.
  Fiber& main() { return main_; }
  /// One that nobody uses.
  Fiber& acquire();
  /// Gives back. The fiber may still run until it switches away.
  void release(Fiber& fiber) { idle_.push_back(&fiber); }
  /// Returns when somebody switches to `from`.
  void switch_to(Fiber& from, Fiber& to);

 private:
  void make();
  void started();

  std::function<void(Fiber&)> work_;
  Fiber main_;
  Fiber* previous_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
};

}  // namespace sfumato::emulation
