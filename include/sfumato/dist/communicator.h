#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace sfumato {

/// The processes ("ranks") that compute one logical step together, and what they tell each other.
/// Everything but rank() and size() is collective: all ranks make the same calls in the same order,
/// one whose share of the batch is empty included, with tensors of the same number, shapes, types
/// and strides. A call returns when its result is there. Where a rank is lost or does not answer in
/// time, the others get a DeviceError, and what they gave holds nothing that may be used.
///
/// Rank 0 owns what a run has once: ledger, session key and run directory. Sums that cross between
/// ranks are private and bear no noise yet, so whoever sees the connection must be trusted as much
/// as the machines.
class Communicator {
 public:
  virtual ~Communicator() = default;
  /// 0 ... size() - 1.
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;

  /// Every tensor, dense and of a floating or integer type, becomes its sum over all ranks, with
  /// the same bits on each.
  virtual void all_reduce_sum(const std::vector<at::Tensor>& tensors) = 0;
  /// Every tensor, dense, becomes that of rank 0.
  virtual void broadcast(const std::vector<at::Tensor>& tensors) = 0;
  /// The same for bytes, of which every rank has as many.
  virtual void broadcast(std::span<std::byte> bytes) = 0;
  /// Returns when all ranks have come.
  virtual void barrier() = 0;
};

/// This process alone: rank 0 of 1. Calls leave what they were given as it is, and cost nothing.
std::shared_ptr<Communicator> single_process();

}  // namespace sfumato
