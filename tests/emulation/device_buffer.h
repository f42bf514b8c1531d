#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "emulation/guarded_memory.h"

namespace sfumato::emulation {

/// "Device" memory of a test: exactly `count` elements between margins that read as NaN. What was
/// not written holds 0xff bytes (NaN, or -1). If a kernel wrote beside it and the test did not ask,
/// the test fails when the buffer goes away.
template <class T>
class DeviceBuffer {
 public:
  explicit DeviceBuffer(std::int64_t count)
      : memory_(static_cast<std::size_t>(count) * sizeof(T)) {}
  explicit DeviceBuffer(const std::vector<T>& values)
      : DeviceBuffer(static_cast<std::int64_t>(values.size())) {
    assign(values);
  }
  DeviceBuffer(DeviceBuffer&&) noexcept = default;
  ~DeviceBuffer() {
    if (data() != nullptr && !asked_ && !memory_.margins_intact())
      ADD_FAILURE() << "somebody wrote beside a DeviceBuffer of " << size() << " elements";
  }

  T* data() { return static_cast<T*>(memory_.data()); }
  const T* data() const { return static_cast<const T*>(memory_.data()); }
  std::int64_t size() const { return static_cast<std::int64_t>(memory_.bytes() / sizeof(T)); }
  T& operator[](std::int64_t i) { return data()[i]; }
  const T& operator[](std::int64_t i) const { return data()[i]; }
  std::span<T> span() { return {data(), static_cast<std::size_t>(size())}; }
  std::span<const T> span() const { return {data(), static_cast<std::size_t>(size())}; }

  void fill(const T& value) { std::fill_n(data(), size(), value); }
  /// Back to 0xff bytes.
  void forget() { memory_.forget(); }
  /// `values` has size() elements.
  void assign(const std::vector<T>& values) {
    ASSERT_EQ(static_cast<std::int64_t>(values.size()), size());
    std::copy(values.begin(), values.end(), data());
  }
  std::vector<T> to_vector() const { return {data(), data() + size()}; }

  bool margins_intact() {
    asked_ = true;
    return memory_.margins_intact();
  }

 private:
  GuardedMemory memory_;
  bool asked_ = false;
};

}  // namespace sfumato::emulation
