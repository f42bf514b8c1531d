#pragma once
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace sfumato {

/// Threads that turn In into Out, bounded and in order: results come out as inputs went in, so
/// nothing downstream depends on the number of threads, and at most `capacity` are in flight. An
/// exception of the work comes out of pop(), at its place in the order.
///
/// One thread calls push() and pop(); full() says when pop() must come first.
template <typename In, typename Out>
class OrderedWorkers {
 public:
  OrderedWorkers(std::size_t threads, std::size_t capacity, std::function<Out(In&&)> work)
      : work_(std::move(work)), slots_(capacity) {
    for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
  }

  ~OrderedWorkers() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  OrderedWorkers(const OrderedWorkers&) = delete;
  OrderedWorkers& operator=(const OrderedWorkers&) = delete;

  bool empty() const { return pushed_ == popped_; }
  bool full() const { return pushed_ - popped_ == slots_.size(); }

  void push(In&& input) {
    {
      const std::lock_guard lock(mutex_);
      Slot& slot = slots_[pushed_ % slots_.size()];
      slot.input = std::move(input);
      slot.done = false;
      ++pushed_;
    }
    wake_.notify_one();
  }

  Out pop() {
    Slot& slot = slots_[popped_ % slots_.size()];
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return slot.done; });
    ++popped_;
    if (slot.error) std::rethrow_exception(std::exchange(slot.error, nullptr));
    return std::move(slot.output);
  }

 private:
  struct Slot {
    In input;
    Out output;
    std::exception_ptr error;
    bool done = false;
  };

  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return stopping_ || taken_ < pushed_; });
      if (stopping_) return;
      Slot& slot = slots_[taken_++ % slots_.size()];
      lock.unlock();
      try {
        slot.output = work_(std::move(slot.input));
      } catch (...) {
        slot.error = std::current_exception();
      }
      lock.lock();
      slot.done = true;
      done_.notify_one();
    }
  }

  std::function<Out(In&&)> work_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<Slot> slots_;
  std::size_t pushed_ = 0;  ///< written by the calling thread, under the mutex
  std::size_t popped_ = 0;  ///< calling thread only
  std::size_t taken_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;  ///< last: they use all of the above
};

}  // namespace sfumato
