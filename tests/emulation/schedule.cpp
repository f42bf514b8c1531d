#include "emulation/schedule.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace sfumato::emulation {

void Schedule::set_seed(std::uint64_t seed) {
  seed_ = state_ = seed;
  constexpr Kind kDrawn[] = {Kind::kThreadsAhead, Kind::kWarpsAhead, Kind::kEverySwitch};
  kind_ = seed == 0 ? Kind::kInOrder : seed == 1 ? Kind::kReversed : kDrawn[seed % 3];
}

std::uint64_t Schedule::draw() {  // splitmix64
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// Blocks are visited with a stride that has no factor in common with their number.
void Schedule::begin_launch(std::uint64_t blocks) {
  state_ = seed_;
  blocks_ = blocks;
  at_block_ = 0;
  block_stride_ = 1;
  if (kind_ == Kind::kInOrder) return;
  at_block_ = blocks - 1;
  block_stride_ = blocks - 1;
  if (kind_ == Kind::kReversed) return;
  at_block_ = draw() % blocks;
  do {
    block_stride_ = draw() % blocks;
  } while (std::gcd(block_stride_, blocks) != 1);
}

std::uint64_t Schedule::next_block() {
  const std::uint64_t block = at_block_;
  at_block_ = (at_block_ + block_stride_) % blocks_;
  return block;
}

void Schedule::shuffle_ranks() {
  if (kind_ == Kind::kWarpsAhead) {
    // Warps in a drawn order, the lanes of each from the last to the first.
    const unsigned warps = (threads_ + kWarp - 1) / kWarp;
    std::array<std::uint16_t, 1024 / kWarp> order;
    for (unsigned i = 0; i < warps; ++i) order[i] = static_cast<std::uint16_t>(i);
    for (unsigned i = warps; i > 1; --i) std::swap(order[i - 1], order[draw_below(i)]);
    unsigned rank = 0;
    for (unsigned i = 0; i < warps; ++i)
      for (unsigned lane = kWarp; lane-- > 0;)
        if (const unsigned thread = order[i] * kWarp + lane; thread < threads_)
          thread_at_[rank++] = static_cast<std::uint16_t>(thread);
    return;
  }
  for (unsigned i = threads_; i > 1; --i) std::swap(thread_at_[i - 1], thread_at_[draw_below(i)]);
}

void Schedule::begin_block(unsigned threads) {
  threads_ = threads;
  for (unsigned i = 0; i < threads; ++i)
    thread_at_[i] = static_cast<std::uint16_t>(kind_ == Kind::kReversed ? threads - 1 - i : i);
  if (kind_ != Kind::kInOrder && kind_ != Kind::kReversed) shuffle_ranks();
  for (unsigned rank = 0; rank < threads; ++rank)
    rank_of_[thread_at_[rank]] = static_cast<std::uint16_t>(rank);
  ready_ = {};
  all_can_go_on();
}

void Schedule::all_can_go_on() {
  for (unsigned word = 0; word < threads_ / 64; ++word) ready_[word] = ~std::uint64_t{0};
  if (threads_ % 64 != 0) ready_[threads_ / 64] = (std::uint64_t{1} << (threads_ % 64)) - 1;
}

unsigned Schedule::first_from(unsigned rank) const {
  unsigned word = rank / 64;
  std::uint64_t bits = ready_[word] & (~std::uint64_t{0} << (rank % 64));
  while (bits == 0 && ++word < ready_.size()) bits = ready_[word];
  return bits == 0 ? kNobody : word * 64 + static_cast<unsigned>(std::countr_zero(bits));
}

unsigned Schedule::take() {
  const unsigned start = kind_ == Kind::kEverySwitch ? draw_below(threads_) : 0;
  unsigned rank = first_from(start);
  if (rank == kNobody && start > 0) rank = first_from(0);
  if (rank == kNobody) return kNobody;
  ready_[rank / 64] &= ~(std::uint64_t{1} << (rank % 64));
  return thread_at_[rank];
}

}  // namespace sfumato::emulation
