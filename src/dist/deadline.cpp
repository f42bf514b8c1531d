#include "dist/deadline.h"

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"

namespace sfumato {

struct Deadline::State {
  std::mutex mutex;
  std::condition_variable changed;
  bool met = false;
};

Deadline::Deadline(std::chrono::milliseconds time, std::string message)
    : state_(std::make_shared<State>()) {
  std::thread([state = state_, time, text = std::move(message)] {
    std::unique_lock<std::mutex> lock(state->mutex);
    if (!state->changed.wait_for(lock, time, [&] { return state->met; })) end_for_lost_rank(text);
  }).detach();
}

Deadline::~Deadline() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->met = true;
  state_->changed.notify_all();
}

void end_for_lost_rank(const std::string& message) {
  log_error(message);
  std::_Exit(static_cast<int>(ErrorKind::kDevice));
}

}  // namespace sfumato
