#pragma once
#include <chrono>
#include <memory>
#include <string>

namespace sfumato {

/// Ends the process with `message` and status 5 unless this object ends within `time`: for what may
/// block for ever in a library.
class Deadline {
 public:
  Deadline(std::chrono::milliseconds time, std::string message);
  ~Deadline();
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// Ends the process with `message` and status 5, from any thread. What is half-written of a run is
/// ignored later.
[[noreturn]] void end_for_lost_rank(const std::string& message);

}  // namespace sfumato
