#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace sfumato::emulation {

inline constexpr unsigned kWarp = 32;  // threads

/// Who goes on: threads that can are kept as a set of ranks, and the order of ranks is the
/// schedule.
class Schedule {
 public:
  static constexpr unsigned kNobody = ~0u;

  void set_seed(std::uint64_t seed);
  void begin_launch(std::uint64_t blocks);
  std::uint64_t next_block();
  /// All of `threads` threads can go on.
  void begin_block(unsigned threads);
  void all_can_go_on();
  void can_go_on(unsigned thread) {
    const unsigned rank = rank_of_[thread];
    ready_[rank / 64] |= std::uint64_t{1} << (rank % 64);
  }
  void cannot_go_on(unsigned thread) {
    const unsigned rank = rank_of_[thread];
    ready_[rank / 64] &= ~(std::uint64_t{1} << (rank % 64));
  }
  /// Whether the youngest of several copies lands first.
  bool youngest_first() const { return seed_ % 2 == 1; }
  /// Takes one thread out of the set; kNobody if it is empty.
  unsigned take();

 private:
  enum class Kind { kInOrder, kReversed, kEverySwitch, kThreadsAhead, kWarpsAhead };

  std::uint64_t draw();
  unsigned draw_below(unsigned bound) {
    return static_cast<unsigned>((draw() >> 32) * bound >> 32);
  }
  void shuffle_ranks();
  unsigned first_from(unsigned rank) const;

  Kind kind_ = Kind::kInOrder;
  std::uint64_t seed_ = 0;
  std::uint64_t state_ = 0;
  std::uint64_t blocks_ = 0, at_block_ = 0, block_stride_ = 1;
  unsigned threads_ = 0;
  std::array<std::uint64_t, 16> ready_ = {};
  std::array<std::uint16_t, 1024> thread_at_ = {};
  std::array<std::uint16_t, 1024> rank_of_ = {};
};

}  // namespace sfumato::emulation
