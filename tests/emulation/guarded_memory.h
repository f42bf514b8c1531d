#pragma once
#include <cstddef>
#include <vector>

namespace sfumato::emulation {

/// Memory of exactly `bytes` bytes between two margins. Before the first write it reads as 0xff
/// bytes: NaN as float, double and bfloat16. The margins read as NaN too; what is written to them
/// is found by margins_intact(), and under AddressSanitizer any access to them ends the program.
/// The memory is 16-byte aligned, and on purpose no better: a kernel must not count on more.
class GuardedMemory {
 public:
  explicit GuardedMemory(std::size_t bytes);
  ~GuardedMemory();
  GuardedMemory(GuardedMemory&& other) noexcept;
  GuardedMemory& operator=(GuardedMemory&&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  /// Back to 0xff bytes.
  void forget();
  bool margins_intact() const;

 private:
  static constexpr std::size_t kMargin = 256;
  struct alignas(64) Line {
    unsigned char bytes[64];
  };
  std::vector<Line> storage_;
  std::size_t bytes_ = 0;
  unsigned char* data_ = nullptr;
};

}  // namespace sfumato::emulation
