#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <string>

#include "kernels/kernel_set.h"
#include "sfumato/device/kernel_bridge.h"

namespace sfumato::bridge {

// What every passage from tensors to a kernel checks. `kernel` names it in errors, which are all
// DeviceErrors: they mean a mistake in this program, not in its input.

/// cudaStream_t of the tensor's device; null for the emulator.
void* stream_of(const at::Tensor& tensor);
void check_launch(int status, const char* kernel);
[[noreturn]] void refuse(const char* kernel, const at::Tensor& tensor, const std::string& wanted);
/// float32 or bfloat16.
Element element_of(const char* kernel, const at::Tensor& tensor);
void check_type(const char* kernel, const at::Tensor& tensor, at::ScalarType type,
                int64_t elements);
/// Two tensors of a layer: same type and device.
Element check_pair(const char* kernel, const at::Tensor& x, const at::Tensor& dy);
void check_channels_last(const char* kernel, const at::Tensor& tensor,
                         std::array<int64_t, 4> sizes);
/// Contiguous [examples, T, width], the same tokens in both.
void check_tokens(const char* kernel, const at::Tensor& x, const at::Tensor& dy);
/// The same sizes, and element i of one lies where element i of the other does: strides of
/// dimensions with one element say nothing.
bool same_memory_order(const at::Tensor& a, const at::Tensor& b);
/// `tensor`, or a copy where it does not begin at a multiple of 16 bytes: a slice of one row is
/// contiguous, too.
at::Tensor aligned(const at::Tensor& tensor);
void check_device(const char* kernel, const at::Tensor& tensor, const at::Tensor& like);
const KernelSet& require_kernels(const char* kernel, const at::Tensor& tensor);

at::TensorOptions options_of(const at::Tensor& like, at::ScalarType type);
/// `bytes` of scratch memory on the device of `like`.
at::Tensor workspace(const at::Tensor& like, int64_t bytes);
template <class T>
T* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<T>() : nullptr;
}
void* raw_or_null(const at::Tensor& tensor);

}  // namespace sfumato::bridge
