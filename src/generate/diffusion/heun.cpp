// Heun's method with churn on EDM's levels (Karras et al. 2022, arXiv 2206.00364, algorithm 2), and
// Euler's, which is the same without the correction of second order. Float64, as in EDM. diffusers
// has the deterministic Euler alone: what its EDMEulerScheduler calls churn evaluates the network
// at the level from before the noise that it adds.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>

#include "generate/diffusion/levels.h"
#include "generate/diffusion/solvers.h"
#include "sfumato/config/sections.h"

namespace sfumato {
namespace {

class Heun : public LevelSolver {
 public:
  Heun(const NoiseSchedule& schedule, const SolverOptions& options, const SampleSettings& settings)
      : LevelSolver(schedule, options, settings),
        second_order_(settings.sampler() == Sampler::kHeun),
        churn_(settings.s_churn()),
        least_(settings.s_min()),
        most_(settings.s_max()),
        stretch_(settings.s_noise()) {}

  at::Tensor solve(const ModelFn& model, const NoiseSource& noise) const override {
    at::Tensor x = start(noise).to(at::kDouble);
    for (int64_t i = 0; i < options().steps; ++i) {
      const double sigma = sigma_at(i), next = sigma_at(i + 1), raised = raised_sigma(sigma);
      if (raised > sigma) {
        const double added = stretch_ * std::sqrt(raised * raised - sigma * sigma);
        x = x + added * noise(i + 1).to(at::kDouble);
      }
      const at::Tensor slope = slope_at(model, x, raised);
      at::Tensor to = x + (next - raised) * slope;
      if (second_order_ && i + 1 < options().steps)
        to = x + (next - raised) * 0.5 * (slope + slope_at(model, to, next));
      x = to;
    }
    return x.to(at::kFloat);
  }

  nlohmann::ordered_json script_settings() const override {
    if (own_difference().empty()) return nullptr;
    nlohmann::ordered_json says = settings();
    says["sigmas"] = nlohmann::ordered_json::array();
    for (const Level& level : levels()) says["sigmas"].push_back(level.noise);
    return says;
  }

 private:
  double sigma_at(int64_t i) const { return levels()[static_cast<std::size_t>(i)].noise; }

  double raised_sigma(double sigma) const {
    if (sigma < least_ || sigma > most_.value_or(std::numeric_limits<double>::infinity()))
      return sigma;
    const double share = churn_ / static_cast<double>(options().steps);
    return sigma * (1 + std::min(share, std::numbers::sqrt2 - 1));
  }

  at::Tensor slope_at(const ModelFn& model, const at::Tensor& x, double sigma) const {
    return (x - denoised(options(), model, x, edm_level(sigma))) / sigma;
  }

  /// Euler's method as diffusers has it; where the image is clipped DPM-Solver++ of first order,
  /// which is the same step and clips. Of others one that such networks can be drawn from.
  std::string diffusers_class() const override {
    return !second_order_ && !options().clip_sample ? "EDMEulerScheduler"
                                                    : "EDMDPMSolverMultistepScheduler";
  }
  void add_own_fields(nlohmann::ordered_json& config) const override {
    if (diffusers_class() == "EDMEulerScheduler") return;
    config["dynamic_thresholding_ratio"] = 0.995;
    config["sample_max_value"] = 1.0;
    config["solver_order"] = second_order_ ? 2 : 1;
    config["thresholding"] = options().clip_sample;
  }
  void add_own_settings(nlohmann::ordered_json& settings) const override {
    settings["solver"] = second_order_ ? "heun" : "euler";
    settings["s_churn"] = churn_;
    settings["s_min"] = least_;
    settings["s_max"] = most_ ? nlohmann::ordered_json(*most_) : nlohmann::ordered_json(nullptr);
    settings["s_noise"] = stretch_;
  }
  std::string own_difference() const override {
    if (!second_order_ && churn_ == 0) return "";
    return "diffusers has no Heun's method with churn for edm networks: sample.py of the release "
           "draws by it; with diffusers choose dpmpp_2m, or sde_dpmpp_2m for fresh noise";
  }

  bool second_order_;
  double churn_, least_;
  std::optional<double> most_;
  double stretch_;
};

}  // namespace

std::unique_ptr<Solver> make_heun(const NoiseSchedule& schedule, const SolverOptions& options,
                                  const SampleSettings& settings) {
  return std::make_unique<Heun>(schedule, options, settings);
}

}  // namespace sfumato
