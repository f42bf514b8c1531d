// DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095): of first order (equation 4.1, which is DDIM),
// and multistep of second (algorithm 2) and third order (DPM-Solver, arXiv 2206.00927, appendix B,
// for the clean image); and SDE-DPM-Solver++(2M) (algorithm 4). The numbers of diffusers'
// DPMSolverMultistepScheduler and EDMDPMSolverMultistepScheduler.
#include <ATen/TensorOperators.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "generate/diffusion/levels.h"
#include "generate/diffusion/solvers.h"
#include "sfumato/config/sections.h"

namespace sfumato {
namespace {

/// With fewer steps than this the last two lose an order each.
constexpr int64_t kManySteps = 15;

class Dpmpp : public LevelSolver {
 public:
  Dpmpp(const NoiseSchedule& schedule, const SolverOptions& options, const SampleSettings& settings,
        int64_t order, bool stochastic)
      : LevelSolver(schedule, options, settings, {.cosine_is_cut_off = true}),
        order_(order),
        stochastic_(stochastic),
        heun_(settings.solver_type() == SolverType::kHeun),
        euler_at_final_(settings.euler_at_final()),
        to_zero_(settings.final_sigmas_type() == FinalSigma::kZero) {}

  at::Tensor solve(const ModelFn& model, const NoiseSource& noise) const override {
    at::Tensor x = start(noise);
    std::array<at::Tensor, 3> images;  // what the network told, the newest first
    for (int64_t i = 0; i < options().steps; ++i) {
      images = {denoised(options(), model, x, level(i)), images[0], images[1]};
      x = step(i, x, images, noise);
    }
    return x;
  }

 private:
  const Level& level(int64_t i) const { return levels()[static_cast<std::size_t>(i)]; }

  int64_t order_at(int64_t i) const {
    const int64_t steps = options().steps;
    const bool few = steps < kManySteps;
    if (i + 1 == steps && (euler_at_final_ || few || to_zero_)) return 1;
    return std::min({order_, i + 1, i + 2 == steps && few ? int64_t{2} : int64_t{3}});
  }

  at::Tensor step(int64_t i, const at::Tensor& x, const std::array<at::Tensor, 3>& images,
                  const NoiseSource& noise) const {
    const Level &from = level(i), &to = level(i + 1);
    if (to.sigma() == from.sigma()) return x;
    const double h = to.lambda() - from.lambda();
    // The SDE forgets twice as fast.
    const double g = stochastic_ ? 2 * h : h;
    const double gone = -to.signal * std::expm1(-g);
    at::Tensor next = to.noise / from.noise * std::exp(h - g) * x + gone * images[0];
    if (to.noise == 0) return images[0];
    const int64_t order = order_at(i);
    if (order > 1) add_differences(i, order, h, g, images, next);
    return stochastic_ ? next + to.noise * std::sqrt(-std::expm1(-2 * h)) * noise(i + 1) : next;
  }

  /// What the differences to earlier answers say: D1 and D2 of the paper.
  void add_differences(int64_t i, int64_t order, double h, double g,
                       const std::array<at::Tensor, 3>& images, at::Tensor& next) const {
    const double signal = level(i + 1).signal, left = std::expm1(-g);
    const double r0 = (level(i).lambda() - level(i - 1).lambda()) / h;
    const at::Tensor newest = (images[0] - images[1]) / r0;
    const double tilted = signal * (left / g + 1);
    if (order == 2) {
      next += (heun_ ? tilted : -0.5 * signal * left) * newest;
      return;
    }
    const double r1 = (level(i - 1).lambda() - level(i - 2).lambda()) / h;
    const at::Tensor bend = (newest - (images[1] - images[2]) / r1) / (r0 + r1);
    next += tilted * (newest + r0 * bend) - signal * ((left + g) / (g * g) - 0.5) * bend;
  }

  std::string diffusers_class() const override {
    return is_edm() ? "EDMDPMSolverMultistepScheduler" : "DPMSolverMultistepScheduler";
  }
  void add_own_fields(nlohmann::ordered_json& config) const override {
    config["algorithm_type"] = stochastic_ ? "sde-dpmsolver++" : "dpmsolver++";
    config["dynamic_thresholding_ratio"] = 0.995;
    config["euler_at_final"] = euler_at_final_;
    config["lower_order_final"] = true;
    // With a greatest value of 1 dynamic thresholding is clipping to 1.
    config["sample_max_value"] = 1.0;
    config["solver_order"] = order_;
    config["solver_type"] = to_string(heun_ ? SolverType::kHeun : SolverType::kMidpoint);
    config["thresholding"] = options().clip_sample;
  }
  void add_own_settings(nlohmann::ordered_json&) const override {}
  std::string own_difference() const override { return ""; }

  int64_t order_;
  bool stochastic_, heun_, euler_at_final_, to_zero_;
};

}  // namespace

std::unique_ptr<Solver> make_dpmpp(const NoiseSchedule& schedule, const SolverOptions& options,
                                   const SampleSettings& settings) {
  const Sampler sampler = settings.sampler();
  const int64_t order = sampler == Sampler::kDpmpp1 ? 1 : sampler == Sampler::kDpmpp3M ? 3 : 2;
  return std::make_unique<Dpmpp>(schedule, options, settings, order,
                                 sampler == Sampler::kSdeDpmpp2M);
}

}  // namespace sfumato
