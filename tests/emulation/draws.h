#pragma once
// Arbitrary shapes and elements for properties of kernels.
#include <rapidcheck.h>

#include <cstdint>
#include <vector>

#include "emulation/kernel_test.h"

namespace sfumato::emulation {

/// Inside rc::check: a number of [low, high].
inline std::int64_t any_of(std::int64_t low, std::int64_t high) {
  return *rc::gen::inRange<std::int64_t>(low, high + 1);
}
inline Element any_element() { return *rc::gen::element(Element::kFloat32, Element::kBfloat16); }
inline bool any_bool() { return *rc::gen::arbitrary<bool>(); }
/// A seed for random_floats: values are not what rapidcheck is to shrink.
inline std::uint64_t any_seed() { return static_cast<std::uint64_t>(any_of(1, 1000000)); }

/// The values that `element` holds when these are stored.
inline std::vector<float> as_stored(const std::vector<float>& values, Element element) {
  return host_floats(device_elements(values, element), element);
}

inline constexpr Element kElements[] = {Element::kFloat32, Element::kBfloat16};

/// The elements at `first` elements behind the start of a 16-byte aligned buffer: from 1 on, no
/// packet of theirs is aligned.
class ShiftedElements {
 public:
  ShiftedElements(const std::vector<float>& values, Element element, std::int64_t first)
      : element_(element), first_(first), buffer_(shifted(values, element, first)) {}

  void* data() { return buffer_.data() + first_ * element_size(element_); }
  /// As stored.
  std::vector<float> values() const {
    const std::vector<float> all = host_floats(buffer_, element_);
    return {all.begin() + first_, all.end()};
  }
  bool margins_intact() { return buffer_.margins_intact(); }

 private:
  static DeviceBuffer<unsigned char> shifted(const std::vector<float>& values, Element element,
                                             std::int64_t first) {
    std::vector<float> all(static_cast<std::size_t>(first), NAN);
    all.insert(all.end(), values.begin(), values.end());
    return device_elements(all, element);
  }

  Element element_;
  std::int64_t first_;
  DeviceBuffer<unsigned char> buffer_;
};

}  // namespace sfumato::emulation
