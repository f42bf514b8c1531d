#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sfumato/generate/diffusion/solver.h"

namespace sfumato {

/// Asks the network once at each timestep and goes on from its answer alone. Starts from
/// x ~ N(0, I). Every step goes to the next timestep of the list, whatever its spacing, and the
/// last one to `end_alpha`. float32 as in diffusers, so that the same operations give the same
/// numbers.
class OneStepSolver : public Solver {
 public:
  at::Tensor solve(const ModelFn& model, const NoiseSource& noise) const final;
  nlohmann::ordered_json scheduler_config() const final;
  std::string diffusers_difference() const final;
  std::string start_defect() const final;

  /// From noisy to clean.
  const std::vector<int64_t>& timesteps() const { return timesteps_; }
  /// Whether step `index` adds fresh noise. The last one never does: it leads to the image, whose
  /// noise nothing would take out again.
  bool needs_noise(int64_t index) const;
  /// x at timesteps()[index] -> x at the next one (after the last: the image). All float32
  /// [N, C, H, W]; `noise` is standard normal, read only if needs_noise(index).
  at::Tensor step(const at::Tensor& model_output, int64_t index, const at::Tensor& x,
                  const at::Tensor& noise) const;

 protected:
  struct Step {
    float alpha = 0;        ///< abar_t
    float alpha_prev = 0;   ///< abar of the timestep stepped to
    float signal = 0;       ///< sqrt(abar_t)
    float noise_level = 0;  ///< sqrt(1 - abar_t)
    float deviation = 0;    ///< standard deviation of the fresh noise; 0 in the last step
  };

  /// `end_alpha`: abar where the last step ends. `deviation`: of every step but the last.
  /// UsageError as visited_timesteps.
  OneStepSolver(const NoiseSchedule& schedule, const SolverOptions& options, float end_alpha,
                const std::function<float(const Step&)>& deviation);

  const NoiseSchedule& schedule() const { return schedule_; }
  const Step& last_step() const { return steps_.back(); }

  /// Where the step leads but for its fresh noise. `sample`: x_0 as the network's output tells it,
  /// clipped.
  virtual at::Tensor mean(const Step& at, const at::Tensor& sample, const at::Tensor& model_output,
                          const at::Tensor& x) const = 0;
  /// The scheduler of diffusers that draws likewise.
  virtual std::string diffusers_class() const = 0;
  /// Adds the fields of scheduler_config.json that are this solver's own.
  virtual void add_own_fields(nlohmann::ordered_json& config) const = 0;
  /// diffusers_difference() where the timesteps are the same. `what`: "10 steps of ...".
  virtual std::string own_difference(const std::string& what, const std::string& remedy) const = 0;

 private:
  NoiseSchedule schedule_;
  std::vector<int64_t> timesteps_;
  std::vector<Step> steps_;
};

}  // namespace sfumato
