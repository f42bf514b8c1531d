#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "emulation/async_proxy.h"

namespace sfumato::emulation {

/// The wgmma products of one thread (PTX ISA 9.7.15). Operands are read, and sums written, as late
/// as they may be: in the wait for their group.
class WarpgroupProducts {
 public:
  /// What all threads of a warpgroup have to agree on.
  struct Signature {
    int columns;
    std::uint64_t a, b;
    bool a_is_m_major, b_is_n_major;
    bool operator==(const Signature&) const = default;
  };

  void clear();
  void fence() { fenced_ = true; }
  /// Why the hardware would not do it; empty if it does.
  std::string problem(const WarpgroupProduct& product) const;
  void start(const WarpgroupProduct& product);
  void commit() { group_ends_.push_back(products_.size()); }
  /// `thread`: its number in the block. False where an operand lies outside of shared memory.
  bool wait(int pending_groups, unsigned thread, const AsyncProxy& proxy);
  /// Whether a thread may end.
  bool all_done() const { return products_.empty(); }
  std::size_t started() const { return started_; }

 private:
  bool multiply(const WarpgroupProduct& product, unsigned thread, const AsyncProxy& proxy);

  bool fenced_ = false;
  std::size_t started_ = 0;
  std::vector<WarpgroupProduct> products_;
  std::vector<std::size_t> group_ends_;
  std::map<float*, std::vector<float>> sums_;  // of accumulators under way
};

}  // namespace sfumato::emulation
