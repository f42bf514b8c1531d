#include "device/bridge_checks.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include "sfumato/core/error.h"
#include "sfumato/device/gpu.h"

namespace sfumato {
namespace {

const KernelSet* emulated = nullptr;

}  // namespace

const KernelSet* kernels_for(const at::Tensor& tensor) {
  if (tensor.is_cuda()) return &find_gpu_backend()->kernels();
  return tensor.is_cpu() ? emulated : nullptr;
}

EmulatedKernels::EmulatedKernels(const KernelSet& set) { emulated = &set; }
EmulatedKernels::~EmulatedKernels() { emulated = nullptr; }

namespace bridge {

void* stream_of(const at::Tensor& tensor) {
  return tensor.is_cuda() ? find_gpu_backend()->current_stream() : nullptr;
}

void check_launch(int status, const char* kernel) {
  if (status != 0)
    throw DeviceError(
        fmt::format("the kernel {} could not be started (CUDA error {}); `sfumato "
                    "doctor` shows whether this build fits this GPU",
                    kernel, status));
}

void refuse(const char* kernel, const at::Tensor& tensor, const std::string& wanted) {
  throw DeviceError(fmt::format("{} needs {}, not {} {} on {}", kernel, wanted,
                                at::toString(tensor.scalar_type()), c10::str(tensor.sizes()),
                                tensor.device().str()));
}

Element element_of(const char* kernel, const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) return Element::kFloat32;
  if (tensor.scalar_type() == at::kBFloat16) return Element::kBfloat16;
  refuse(kernel, tensor, "float32 or bfloat16");
}

void check_type(const char* kernel, const at::Tensor& tensor, at::ScalarType type,
                int64_t elements) {
  if (tensor.scalar_type() != type || tensor.numel() != elements || !tensor.is_contiguous())
    refuse(kernel, tensor,
           fmt::format("{} contiguous elements of {}", elements, at::toString(type)));
}

Element check_pair(const char* kernel, const at::Tensor& x, const at::Tensor& dy) {
  if (x.scalar_type() != dy.scalar_type() || x.device() != dy.device())
    refuse(kernel, dy, fmt::format("{} on {}", at::toString(x.scalar_type()), x.device().str()));
  return element_of(kernel, x);
}

void check_channels_last(const char* kernel, const at::Tensor& t, std::array<int64_t, 4> sizes) {
  if (t.dim() != 4 || t.sizes() != at::IntArrayRef(sizes) ||
      !t.is_contiguous(at::MemoryFormat::ChannelsLast))
    refuse(kernel, t, fmt::format("channels-last {}", c10::str(at::IntArrayRef(sizes))));
}

void check_tokens(const char* kernel, const at::Tensor& x, const at::Tensor& dy) {
  for (const at::Tensor& t : {x, dy})
    if (t.dim() != 3 || !t.is_contiguous()) refuse(kernel, t, "contiguous [examples, T, width]");
  if (x.size(0) != dy.size(0) || x.size(1) != dy.size(1))
    refuse(kernel, dy, fmt::format("the tokens of {}", c10::str(x.sizes())));
}

bool same_memory_order(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return false;
  for (int64_t d = 0; d < a.dim(); ++d)
    if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return false;
  return true;
}

void check_device(const char* kernel, const at::Tensor& tensor, const at::Tensor& like) {
  if (tensor.device() != like.device())
    refuse(kernel, tensor, "a tensor on " + like.device().str());
}

at::Tensor aligned(const at::Tensor& tensor) {
  const auto address = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  return address % 16 == 0 ? tensor : tensor.clone();
}

const KernelSet& require_kernels(const char* kernel, const at::Tensor& tensor) {
  const KernelSet* set = kernels_for(tensor);
  if (set == nullptr) refuse(kernel, tensor, "a tensor on a GPU");
  return *set;
}

at::Tensor workspace(const at::Tensor& like, int64_t bytes) {
  return at::empty({bytes},
                   like.options().dtype(at::kByte).memory_format(at::MemoryFormat::Contiguous));
}

at::TensorOptions options_of(const at::Tensor& like, at::ScalarType type) {
  return at::TensorOptions().device(like.device()).dtype(type);
}

void* raw_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
}

}  // namespace bridge
}  // namespace sfumato
