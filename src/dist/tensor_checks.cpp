#include "dist/tensor_checks.h"

#include <fmt/format.h>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

void require(bool fits, const at::Tensor& tensor, const char* call, const char* wanted) {
  if (fits) return;
  throw DeviceError(fmt::format("{} of ranks needs {}, not {} {} with strides {}", call, wanted,
                                at::toString(tensor.scalar_type()), c10::str(tensor.sizes()),
                                c10::str(tensor.strides())));
}

}  // namespace

void check_summable(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    const at::ScalarType type = tensor.scalar_type();
    const bool adds =
        type == at::kFloat || type == at::kDouble || type == at::kInt || type == at::kLong;
    require(adds && tensor.is_contiguous(), tensor, "all_reduce_sum",
            "contiguous tensors of float32, float64, int32 or int64");
  }
}

void check_sendable(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors)
    require(tensor.is_contiguous(), tensor, "broadcast", "contiguous tensors");
}

void check_sliceable(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    const int64_t bytes = tensor.element_size();
    require(tensor.dim() == 1 && tensor.is_contiguous() && (bytes == 4 || bytes == 8), tensor,
            "share_slices", "flat contiguous tensors with elements of 4 or 8 bytes");
  }
}

}  // namespace sfumato
