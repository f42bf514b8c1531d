#pragma once
#include <cstdint>
#include <functional>
#include <future>
#include <optional>
#include <span>
#include <vector>

#include "sfumato/generate/objective.h"

namespace sfumato {

/// Physical batches of which the next is drawn by another thread while one computes. What is taken
/// has the bits of drawing it there and then: a batch is a function of its step and records.
class BatchQueue {
 public:
  /// `records`: those of the batch, at most `physical`, to which it is padded. Runs in another
  /// thread, but never twice at a time.
  using Draw = std::function<TrainingBatch(std::int64_t step, std::span<const std::int64_t> records,
                                           std::int64_t physical)>;
  explicit BatchQueue(Draw draw) : draw_(std::move(draw)) {}
  ~BatchQueue() { drop(); }

  /// Starts to draw a batch; one that was begun before and not taken is forgotten.
  void prepare(std::int64_t step, std::span<const std::int64_t> records, std::int64_t physical);
  /// The batch that was prepared, if it is this one; else it is drawn now. What draw() throws comes
  /// out here.
  TrainingBatch take(std::int64_t step, std::span<const std::int64_t> records,
                     std::int64_t physical);

 private:
  struct Request {
    std::int64_t step = 0;
    std::vector<std::int64_t> records;
    std::int64_t physical = 0;
    bool operator==(const Request&) const = default;
  };
  void drop();

  Draw draw_;
  Request request_;  ///< of drawn_; stays where it is while the other thread reads it
  std::future<TrainingBatch> drawn_;
};

}  // namespace sfumato
