#include "emulation/async_copies.h"

#include <cstdint>
#include <cstring>

namespace sfumato::emulation {

std::string AsyncCopies::problem(const Copy& copy, const GuardedMemory& shared) {
  const int bytes = copy.bytes + copy.zero_fill_bytes;
  if (copy.bytes < 0 || copy.zero_fill_bytes < 0 || (bytes != 4 && bytes != 8 && bytes != 16))
    return "an asynchronous copy of " + std::to_string(copy.bytes) + " bytes and " +
           std::to_string(copy.zero_fill_bytes) + " zeros: together must be 4, 8 or 16";
  const auto misaligned = [&](const void* at) {
    return reinterpret_cast<std::uintptr_t>(at) % static_cast<unsigned>(bytes) != 0;
  };
  if (misaligned(copy.to) || misaligned(copy.from))
    return "a misaligned asynchronous copy of " + std::to_string(bytes) + " bytes";
  const auto* const place = static_cast<const unsigned char*>(copy.to);
  const auto* const begin = static_cast<const unsigned char*>(shared.data());
  if (place < begin || place + bytes > begin + shared.bytes())
    return "an asynchronous copy beside the shared memory";
  return "";
}

void AsyncCopies::start(const Copy& copy) {
  std::memset(copy.to, 0xff, static_cast<std::size_t>(copy.bytes + copy.zero_fill_bytes));
  copies_.push_back(copy);
}

void AsyncCopies::wait(int pending_groups) {
  const auto groups = static_cast<std::ptrdiff_t>(group_ends_.size()) - pending_groups;
  if (groups <= 0) return;
  const std::ptrdiff_t landed = group_ends_[static_cast<std::size_t>(groups - 1)];
  for (std::ptrdiff_t i = 0; i < landed; ++i) {
    const Copy& copy = copies_[static_cast<std::size_t>(i)];
    const auto bytes = static_cast<std::size_t>(copy.bytes);
    if (bytes > 0) std::memcpy(copy.to, copy.from, bytes);
    std::memset(static_cast<char*>(copy.to) + bytes, 0,
                static_cast<std::size_t>(copy.zero_fill_bytes));
  }
  copies_.erase(copies_.begin(), copies_.begin() + landed);
  group_ends_.erase(group_ends_.begin(), group_ends_.begin() + groups);
  for (std::ptrdiff_t& end : group_ends_) end -= landed;
}

void AsyncCopies::clear() {
  copies_.clear();
  group_ends_.clear();
}

}  // namespace sfumato::emulation
