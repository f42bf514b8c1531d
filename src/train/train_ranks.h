#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "sfumato/config/config.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/nn/named_tensors.h"

namespace sfumato {

/// The ranks of a training: what rank 0 does for all, what all agree on, and that an error of one
/// is not taken for its death. All calls are collective but leads().
class TrainRanks {
 public:
  explicit TrainRanks(std::shared_ptr<Communicator> ranks) : ranks_(std::move(ranks)) {}

  bool leads() const { return ranks_->leads(); }
  bool alone() const { return ranks_->alone(); }
  const std::shared_ptr<Communicator>& communicator() const { return ranks_; }

  /// As in dist/together.h.
  void on_leader(const std::function<void()>& work);
  void everywhere(const std::function<void()>& work);

  std::int64_t from_leader(std::int64_t value);
  /// A tensor of rank 0, of any size and type; on the CPU.
  at::Tensor from_leader(const at::Tensor& tensor);
  /// Copies of rank 0's; those of the others have the same names, sizes and types.
  NamedGroups from_leader(const NamedGroups& groups);
  std::int64_t smallest(std::int64_t value);
  /// Whether a signal asked any rank to stop: all then end alike.
  bool stop_requested();
  /// performance.threads, or this rank's share of its machine. Not collective.
  void set_threads(const Config& config) const;
  /// UsageError, which names ranks and section, unless all settings but performance.*, which is
  /// each rank's own affair, and the places of run and store are alike.
  void require_same_settings(const Config& config);
  void require_same(const std::string& name, const std::string& value, const std::string& remedy);

  /// Before an exception that leaves training: where all ranks throw, they part in order.
  void leave_if_all_do();
  /// When all is done.
  void leave() { ranks_->leave(); }

 private:
  template <class Call>
  void ending_together(const Call& call);

  std::shared_ptr<Communicator> ranks_;
  bool all_end_ = false;
};

}  // namespace sfumato
