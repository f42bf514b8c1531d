#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "emulation/emulator.h"
#include "emulation/guarded_memory.h"
#include "emulation/tensor_maps.h"

namespace sfumato::emulation {

/// Where the chunk of 16 bytes at a shared address lies under the swizzle of 128 bytes: bits 4..6
/// are those of the address, exclusive-or bits 7..9.
inline std::uint32_t swizzled_128(std::uint32_t address) {
  return address ^ (address >> 7 & 7u) << 4;
}

/// Shared memory as tensor copies and warpgroup products see it: a view of its own, to which what
/// ordinary instructions write comes with fence.proxy.async only. Holds the copies under way.
class AsyncProxy {
 public:
  /// Of a launch, then of each block.
  void open(std::size_t bytes);
  void forget();
  void close() { view_.reset(); }

  /// Places in shared memory begin 16 bytes behind a multiple of 1024.
  static constexpr std::uint32_t kWindow = 1024 + 16;

  /// Everything that is in `shared` is seen, but in targets of copies under way, which nobody
  /// knows.
  void fence(const GuardedMemory& shared);
  /// Why the hardware would refuse the copy; empty if it would not.
  std::string problem(const TensorCopy& copy, const GuardedMemory& shared) const;
  /// From here on the target may change at any time: it holds 0xff bytes.
  void start(const TensorCopy& copy, GuardedMemory& shared);
  bool under_way() const { return !copies_.empty(); }
  /// The oldest (or youngest) copy lands. Returns the barrier at which its bytes count.
  struct Landed {
    void* barrier;
    std::int64_t bytes;
  };
  Landed land(GuardedMemory& shared, bool youngest);

  /// The 16 bits at a shared address; `inside` becomes false where there is no memory.
  std::uint16_t element(std::uint32_t address, bool& inside) const;

 private:
  struct Copy {
    TensorCopy what;
    TensorMap map;
    std::uint32_t address;
  };
  void write(const Copy& copy, const std::uint16_t* elements, GuardedMemory& shared);

  std::optional<GuardedMemory> view_;
  std::deque<Copy> copies_;
};

}  // namespace sfumato::emulation
