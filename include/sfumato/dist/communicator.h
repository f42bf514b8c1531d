#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace sfumato {

/// Elements begin ... end - 1.
struct Slice {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

/// What rank `rank` of `size` owns of `count` elements: [count r / W, count (r + 1) / W). The only
/// place of that rule. Slices follow one another, cover everything and differ by one element at
/// most; some are empty where there are more ranks than elements.
Slice slice_of(int64_t count, int64_t rank, int64_t size);

/// The processes ("ranks") that compute one logical step together, and what they tell each other.
///
/// Collective are all calls but those of the first group and hold(): all ranks make them in the
/// same order, one whose share of the batch is empty included, with tensors of the same number,
/// sizes and types. A call returns when its result is there. One thread at a time calls.
///
/// Where a rank is lost, hangs or does not answer in time, the others get a LostRank (exit status
/// 5), and what they gave holds nothing that may be used. One that is busy elsewhere than in a call
/// is ended with that status, at most some seconds later (RankOptions), but never while it holds.
///
/// Rank 0 owns what a run has once: ledger, session key and run directory. Sums that cross between
/// ranks are private and bear no noise yet, and nothing encrypts them: whoever sees the connection
/// must be trusted as much as the machines.
class Communicator {
 public:
  virtual ~Communicator() = default;

  /// 0 ... size() - 1.
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;
  bool leads() const { return rank() == 0; }
  bool alone() const { return size() == 1; }
  /// This one's place among the ranks on its host, and how many these are.
  virtual int64_t local_rank() const { return 0; }
  virtual int64_t local_size() const { return 1; }
  /// "rank 3 on node-b", for messages.
  virtual std::string name_of(int64_t rank) const;

  /// Every tensor becomes its sum over all ranks, in place, with the same bits on each: float32,
  /// float64, int32 or int64, contiguous. DeviceError for others: the connection adds memory,
  /// not elements.
  virtual void all_reduce_sum(const std::vector<at::Tensor>& tensors) = 0;
  /// Of every flat tensor, of those types, the elements of slice_of(numel, rank(), size()) become
  /// their sums over all ranks; the others hold nothing of use then. Sends about half as much.
  virtual void reduce_slices(const std::vector<at::Tensor>& flat) = 0;
  /// Every tensor, contiguous and of any type, becomes that of rank `from`.
  virtual void broadcast(const std::vector<at::Tensor>& tensors, int64_t from) = 0;
  /// Those of rank 0, of which every rank has as many.
  virtual void broadcast(std::span<std::byte> bytes) = 0;
  /// Returns when all ranks have come.
  virtual void barrier() = 0;

  // Made of these:

  /// The text that rank 0 has; what others give is ignored.
  std::string from_leader(const std::string& text);
  int64_t from_leader(int64_t number);
  /// What every rank gives, in their order.
  std::vector<int64_t> gather(int64_t number);
  /// Whether it is true on any rank.
  bool any(bool flag);
  /// UsageError on all ranks unless `value`, of any length, is on all what it is on rank 0. Names
  /// the ranks that differ, `name` ("the configuration") and `remedy` (a sentence). All ranks
  /// have left then, so that each ends with that status.
  void require_same(const std::string& name, const std::string& value, const std::string& remedy);

  /// The last call, on all ranks: this rank ends in order, and the others do not take it for lost.
  /// Returns when all have left, or LostRank. Without it, the end of a rank is an error to the
  /// others; so call it also before an error that all ranks throw alike.
  virtual void leave() {}

 protected:
  friend class RankHold;
  virtual void hold_begins() {}
  virtual void hold_ends() {}
};

/// While one lives, this rank may take as long as it likes between two calls, and the loss of
/// another is acted on only afterwards: for what must not end half-way, such as a stage between its
/// charge and its result. May be nested. A call that is itself made under it, and needs the lost
/// rank, still throws.
class RankHold {
 public:
  explicit RankHold(Communicator& ranks) : ranks_(ranks) { ranks_.hold_begins(); }
  ~RankHold() { ranks_.hold_ends(); }
  RankHold(const RankHold&) = delete;
  RankHold& operator=(const RankHold&) = delete;

 private:
  Communicator& ranks_;
};

/// This process alone: rank 0 of 1. Calls leave what they were given as it is, refuse what those
/// of several ranks do, and cost nothing.
std::shared_ptr<Communicator> single_process();

}  // namespace sfumato
