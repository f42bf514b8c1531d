#include "sfumato/generate/diffusion/denoiser.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <c10/core/InferenceMode.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "sfumato/models/unet2d.h"

namespace sfumato {

DenoiserFn unet_denoiser(UNet2D& network, Tape* tape) {
  return [&network, tape](const at::Tensor& x, const at::Tensor& t, const at::Tensor& labels) {
    return network.forward(x, t, labels, tape);
  };
}

DenoiserFn in_parts(DenoiserFn model, int64_t rows) {
  return [model = std::move(model), rows](const at::Tensor& x, const at::Tensor& t,
                                          const at::Tensor& labels) {
    const int64_t n = x.size(0), threads = at::get_num_threads();
    // As many parts for each thread; of too few images layers had better share out their own work.
    const int64_t turns = (n + rows * threads - 1) / (rows * threads), parts = turns * threads;
    if (!x.is_cpu() || at::GradMode::is_enabled() || parts < 2 || 2 * n < rows * parts)
      return model(x, t, labels);
    std::vector<at::Tensor> out(static_cast<std::size_t>(parts));
    at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      const c10::InferenceMode no_autograd;  // is a thread's own
      for (int64_t part = begin; part < end; ++part) {
        const int64_t first = n * part / parts, count = n * (part + 1) / parts - first;
        const auto rows_of = [&](const at::Tensor& all) {
          return all.defined() ? all.narrow(0, first, count) : all;
        };
        out[static_cast<std::size_t>(part)] = model(rows_of(x), rows_of(t), rows_of(labels));
      }
    });
    return at::cat(out);
  };
}

DenoiserFn guided(DenoiserFn model, double guidance, int64_t null_label) {
  if (guidance == 0) return model;
  return [model = std::move(model), guidance, null_label](const at::Tensor& x, const at::Tensor& t,
                                                          const at::Tensor& labels) {
    if (!labels.defined()) throw std::logic_error("guidance needs labels");
    const at::Tensor both = model(at::cat({x, x}), at::cat({t, t}),
                                  at::cat({labels, at::full_like(labels, null_label)}));
    const auto halves = both.chunk(2);
    return (1 + guidance) * halves[0] - guidance * halves[1];
  };
}

bool GuidanceInterval::holds(double sigma) const {
  constexpr double kRounding = 1e-6;
  return sigma >= low * (1 - kRounding) && (!high || sigma <= *high * (1 + kRounding));
}

}  // namespace sfumato
