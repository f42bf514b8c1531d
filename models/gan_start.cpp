#include "models/gan_start.h"

#include <ATen/core/Generator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>

#include <algorithm>
#include <tuple>

namespace sfumato {
namespace {

constexpr double kNormalStd = 0.02;
constexpr int kIterations = 15;

/// Haar-distributed where it is square: the signs make the decomposition unique.
void fill_orthogonal(at::Tensor& weight, at::Generator& generator) {
  const int64_t rows = weight.size(0), columns = weight.numel() / rows;
  at::Tensor drawn = at::empty({std::max(rows, columns), std::min(rows, columns)});
  drawn.normal_(0, 1, generator);
  const auto [q, r] = at::linalg_qr(drawn);
  const at::Tensor unique = q.mul(r.diagonal().sign());
  weight.copy_((rows < columns ? unique.t() : unique).reshape(weight.sizes()));
}

}  // namespace

const std::vector<std::string>& start_names() {
  static const std::vector<std::string> names = {"default", "orthogonal", "normal"};
  return names;
}

void GanStart::initialise_own(at::Generator& generator) {
  if (name_ == "default") return;
  for (Parameter* parameter : network_.parameters()) {
    if (parameter->value.dim() < 2 || parameter->is_table) continue;
    if (name_ == "orthogonal")
      fill_orthogonal(parameter->value, generator);
    else
      parameter->value.normal_(0, kNormalStd, generator);
    // Power iteration began with the weight before.
    for (int i = 0; parameter->map != nullptr && i < kIterations; ++i) parameter->map->follow();
  }
}

}  // namespace sfumato
