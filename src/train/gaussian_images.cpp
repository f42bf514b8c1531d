#include "sfumato/train/gaussian_images.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sfumato/core/log.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

/// Columns whose outer products sum up to a positive semidefinite matrix, 0 where noise made a
/// little less of it.
at::Tensor root_of(const at::Tensor& matrix) {
  const auto [values, vectors] = at::linalg_eigh(matrix);
  return vectors * values.clamp_min(0).sqrt();
}

/// Images of a class that are drawn together: bounds memory.
constexpr std::int64_t kOfAClassTogether = 1024;

}  // namespace

at::Tensor without_noise(const at::Tensor& eigenvalues, double noise_stddev, double dimension) {
  const double edge = 2 * noise_stddev * std::sqrt(dimension);
  const double told = edge * (1 + std::pow(dimension, -2.0 / 3));
  const at::Tensor values = eigenvalues.to(at::kDouble);
  const at::Tensor before = (values + (values.square() - edge * edge).clamp_min(0).sqrt()) / 2;
  return at::where(values > told, before, at::zeros_like(values));
}

DenoisedGaussians denoise(const ClassGaussians& gaussians) {
  const at::Tensor counts = gaussians.counts.to(at::kDouble);
  const at::Tensor covariances = gaussians.covariances.to(at::kDouble);
  const std::int64_t classes = counts.size(0), size = covariances.size(1);
  const double all = counts.sum().item<double>();
  const double noise = gaussians.noise_stddev;
  DenoisedGaussians found;
  found.means = gaussians.centres();

  const at::Tensor mean = (covariances * counts.view({-1, 1, 1})).sum(0) / all;
  const auto [noisy_shared, vectors] = at::linalg_eigh(mean);
  const at::Tensor denoised =
      without_noise(noisy_shared, noise * std::sqrt(static_cast<double>(classes)) / all,
                    static_cast<double>(size));
  const std::int64_t m = found.shared_directions = denoised.gt(0).sum().item<std::int64_t>();
  // Eigenvalues ascend: what is told from noise is at the end.
  const at::Tensor basis = vectors.narrow(1, size - m, m);
  const at::Tensor shared = denoised.narrow(0, size - m, m);
  // The basis lies where the noise of all classes together points: along it noise adds twice what
  // the eigenvalue grew by, of which each class has its part, and once that of the variance lies
  // elsewhere. Both are known and taken back; the rest of a class's noise is smaller by its part.
  const at::Tensor grown = noisy_shared.narrow(0, size - m, m) - shared;
  const auto part = [&](double count) {
    return 2 * all / (static_cast<double>(classes) * count) - 1;
  };
  const double rest_of_noise = noise * std::sqrt(1 - 1 / static_cast<double>(classes));

  std::vector<at::Tensor> factors;
  for (std::int64_t c = 0; c < classes && m > 0; ++c) {
    const auto count = counts[c].item<double>();
    const at::Tensor within =
        at::matmul(basis.t(), at::matmul(covariances[c], basis)) - at::diag(grown * part(count));
    const auto [noisy, directions] = at::linalg_eigh(within);
    const at::Tensor own = without_noise(noisy, rest_of_noise / count, static_cast<double>(m));
    found.directions.push_back(own.gt(0).sum().item<std::int64_t>());
    const at::Tensor others =
        directions.narrow(1, 0, m - found.directions.back());  // not told from noise
    const at::Tensor rest = at::matmul(others, others.t());
    const at::Tensor usual = at::matmul(rest, at::matmul(at::diag(shared), rest));
    const auto variance = (within * rest).sum().item<double>();
    const auto usual_variance = usual.trace().item<double>();
    const double share = usual_variance > 0 ? std::max(variance, 0.0) / usual_variance : 0.0;
    const at::Tensor covariance = at::matmul(directions * own, directions.t()) + usual * share;
    factors.push_back(at::matmul(basis, root_of(covariance)));
  }
  if (m == 0) found.directions.assign(static_cast<std::size_t>(classes), 0);
  found.factors = m > 0 ? at::stack(factors) : at::zeros({classes, size, 0}, at::kDouble);
  return found;
}

at::Tensor draw_gaussian_images(const DenoisedGaussians& gaussians, std::int64_t count,
                                std::uint64_t seed) {
  const at::IntArrayRef shape = gaussians.means.sizes();
  const std::int64_t classes = shape[0], channels = shape[1];
  const std::int64_t rank = gaussians.factors.size(2);
  const std::int64_t k = std::llround(
      std::sqrt(static_cast<double>(gaussians.factors.size(1)) / static_cast<double>(channels)));
  const at::Tensor rows = cosine_basis(k, shape[2]), columns = cosine_basis(k, shape[3]);
  at::Tensor images = at::empty({count, channels, shape[2], shape[3]});
  for (std::int64_t c = 0; c < classes; ++c) {
    const SeededStreams normals("sfumato Gaussians of classes 1", seed,
                                static_cast<std::uint64_t>(c));
    for (std::int64_t first = c; first < count; first += kOfAClassTogether * classes) {
      const std::int64_t end = std::min(count, first + kOfAClassTogether * classes);
      const std::int64_t drawn = (end - first + classes - 1) / classes;
      const at::Tensor z = at::empty({drawn, rank});
      normals.normals(z.mutable_data_ptr<float>(), z.numel(), 0,
                      static_cast<std::uint64_t>(first / classes / kOfAClassTogether));
      const at::Tensor coefficients =
          at::matmul(z.to(at::kDouble), gaussians.factors[c].t()).view({drawn, channels, k, k});
      images.slice(0, first, end, classes)
          .copy_(at::matmul(at::matmul(rows.t(), coefficients), columns) + gaussians.means[c]);
    }
  }
  return images;
}

at::Tensor images_of_gaussians(const Config& config, const ClassGaussians& gaussians) {
  const DenoisedGaussians denoised = denoise(gaussians);
  const auto [least, most] = std::ranges::minmax_element(denoised.directions);
  log_info(fmt::format(
      "warm-up: noise leaves {} directions of the classes' covariances together, and {} to {} of "
      "each class",
      denoised.shared_directions, *least, *most));
  // At least one of each class.
  return draw_gaussian_images(denoised,
                              std::max(config.gaussians_warmup.images(), denoised.means.size(0)),
                              static_cast<std::uint64_t>(config.run.seed()));
}

}  // namespace sfumato
