#include "emulation/mbarriers.h"

#include <cstring>

namespace sfumato::emulation {
namespace {

// 20 bits of arrivals, 20 of those pending, 22 of bytes with their sign, parity; the highest bit is
// zero, so that memory nobody has written (0xff) is no barrier.
constexpr std::uint64_t kArrivals = (std::uint64_t{1} << 20) - 1;
constexpr std::uint64_t kBytes = (std::uint64_t{1} << 22) - 1;

}  // namespace

Mbarrier Mbarrier::started(std::int64_t arrivals) {
  Mbarrier barrier;
  barrier.valid_ = true;
  barrier.arrivals_ = barrier.pending_ = arrivals;
  return barrier;
}

Mbarrier Mbarrier::read(const void* place) {
  std::uint64_t word;
  std::memcpy(&word, place, sizeof word);
  Mbarrier barrier;
  barrier.arrivals_ = static_cast<std::int64_t>(word & kArrivals);
  barrier.pending_ = static_cast<std::int64_t>(word >> 20 & kArrivals);
  barrier.bytes_ = static_cast<std::int64_t>(word >> 40 & kBytes);
  if (barrier.bytes_ > kMostBytes) barrier.bytes_ -= static_cast<std::int64_t>(kBytes + 1);
  barrier.parity_ = static_cast<unsigned>(word >> 62 & 1u);
  barrier.valid_ = word >> 63 == 0 && barrier.arrivals_ > 0;
  return barrier;
}

void Mbarrier::write(void* place) const {
  const std::uint64_t word =
      static_cast<std::uint64_t>(arrivals_) | static_cast<std::uint64_t>(pending_) << 20 |
      (static_cast<std::uint64_t>(bytes_) & kBytes) << 40 | std::uint64_t{parity_} << 62;
  std::memcpy(place, &word, sizeof word);
}

std::string Mbarrier::expect(std::int64_t bytes) {
  bytes_ += bytes;
  if (bytes_ >= -kMostBytes && bytes_ <= kMostBytes) return "";
  return "an mbarrier that misses " + std::to_string(bytes_) + " bytes, beyond 2^20 - 1";
}

bool Mbarrier::turn() {
  if (pending_ > 0 || bytes_ != 0) return false;
  pending_ = arrivals_;
  parity_ ^= 1u;
  return true;
}

std::string Mbarrier::text() const {
  return std::to_string(pending_) + " of " + std::to_string(arrivals_) + " arrivals and " +
         std::to_string(bytes_) + " bytes missing in a phase of parity " + std::to_string(parity_);
}

}  // namespace sfumato::emulation
