#pragma once
#include <cstdint>
#include <memory>

namespace sfumato {

/// Counts the bytes of CPU tensors that are allocated while it lives. One at a time.
class MemoryMeter {
 public:
  MemoryMeter();
  ~MemoryMeter();
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;
  /// Largest sum of live bytes so far.
  int64_t peak_bytes() const;

 private:
  class CountingAllocator;
  CountingAllocator* counter_;
};

/// Bytes of memory that the system can still give (MemAvailable); 0 if unknown.
int64_t available_memory_bytes();

}  // namespace sfumato
