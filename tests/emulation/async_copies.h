#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "emulation/guarded_memory.h"

namespace sfumato::emulation {

/// The cp.async copies of one thread. They take effect as late as they may: in the wait for them.
class AsyncCopies {
 public:
  struct Copy {
    void* to;
    const void* from;
    int bytes;
    int zero_fill_bytes;
  };

  /// Why the hardware would refuse the copy; empty if it would not.
  static std::string problem(const Copy& copy, const GuardedMemory& shared);

  /// From here on the target may change at any time: it holds 0xff bytes.
  void start(const Copy& copy);
  void commit() { group_ends_.push_back(static_cast<std::ptrdiff_t>(copies_.size())); }
  void wait(int pending_groups);
  void clear();

 private:
  std::vector<Copy> copies_;                // not landed yet
  std::vector<std::ptrdiff_t> group_ends_;  // committed groups, as places in copies_
};

}  // namespace sfumato::emulation
