#pragma once
#include <cstdint>
#include <string>

namespace sfumato::emulation {

/// An mbarrier (PTX ISA 9.7.13.15) in its 8 bytes of shared memory: a phase ends when as many
/// arrivals as were promised have come and no bytes are missing.
class Mbarrier {
 public:
  static constexpr std::int64_t kMostArrivals = (1 << 20) - 1, kMostBytes = (1 << 20) - 1;

  static Mbarrier started(std::int64_t arrivals);
  static Mbarrier read(const void* place);
  void write(void* place) const;

  /// False for memory in which nobody has initialised a barrier.
  bool valid() const { return valid_; }
  /// Of the phase under way.
  unsigned parity() const { return parity_; }
  /// Bytes that are expected (added), or have come (negative), and arrivals. What the hardware does
  /// not allow; empty if it does.
  std::string expect(std::int64_t bytes);
  void arrive() { --pending_; }
  /// Ends the phase if it is complete.
  bool turn();
  std::string text() const;

 private:
  bool valid_ = false;
  unsigned parity_ = 0;
  std::int64_t arrivals_ = 0, pending_ = 0, bytes_ = 0;
};

}  // namespace sfumato::emulation
