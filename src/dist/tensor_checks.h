#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace sfumato {

// DeviceErrors, as in device/bridge_checks.h: they mean a mistake in this program. c10d copies
// memory whatever the strides say, so that tensors laid out unlike on two ranks would be mixed up
// in silence.

/// Contiguous, on the CPU or a GPU, and of a type that c10d adds exactly as it says.
void check_summable(const std::vector<at::Tensor>& tensors);
/// The same, and flat.
void check_sliceable(const std::vector<at::Tensor>& tensors);
/// Contiguous.
void check_sendable(const std::vector<at::Tensor>& tensors);

}  // namespace sfumato
