#pragma once
#include <ATen/core/Scalar.h>
#include <ATen/core/Tensor.h>

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sfumato/generate/diffusion/solver.h"

namespace sfumato {

/// A level of noise: x = signal x_0 + noise eps.
struct Level {
  double signal = 1;
  double noise = 0;
  at::Scalar told = 0;  ///< what the network is told of it

  double sigma() const { return noise / signal; }
  double lambda() const;  ///< ln(signal / noise); infinite without noise
};

/// Of an EDM network: signal 1.
Level edm_level(double sigma);

/// How a solver's scheduler in diffusers rounds timesteps of levels between two of them, which it
/// hands to the network as integers. Exponential levels both cut off.
struct TimestepRounding {
  bool cosine_is_cut_off =
      false;  ///< karras levels of the cosine schedule, elsewhere to the nearest
};

/// The levels of all steps, from noisy to clean, then that where the last one ends. Those of the
/// timesteps of `options` (multistep_timesteps), or as sample.sigma_schedule says: of an EDM
/// network between sample.sigma_max and sigma_min, of others between the levels of the schedule's
/// last and first timestep. The last timestep of a schedule of zero SNR counts as abar = 2^-24, as
/// in diffusers. UsageError as multistep_timesteps, and for noise prediction where there is no
/// image.
std::vector<Level> visited_levels(const NoiseSchedule& schedule, const SolverOptions& options,
                                  const SampleSettings& settings, TimestepRounding rounding = {});

/// x_0 as the network tells it at a level, clipped if `options` say so. In the type of `x`; the
/// network sees float32.
at::Tensor denoised(const SolverOptions& options, const ModelFn& model, const at::Tensor& x,
                    const Level& level);

/// What solvers on such levels share: where they start, how they are written down.
class LevelSolver : public Solver {
 public:
  nlohmann::ordered_json scheduler_config() const final;
  nlohmann::ordered_json settings() const final;
  std::string diffusers_difference() const final;
  std::string start_defect() const final;

  const std::vector<Level>& levels() const { return levels_; }

 protected:
  LevelSolver(const NoiseSchedule& schedule, const SolverOptions& options,
              const SampleSettings& settings, TimestepRounding rounding = {});

  bool is_edm() const { return options().edm.has_value(); }
  /// x at the first level.
  at::Tensor start(const NoiseSource& noise) const;

  /// The scheduler of diffusers that draws likewise, or for such networks at all.
  virtual std::string diffusers_class() const = 0;
  /// Adds the fields of scheduler_config.json that are this solver's own.
  virtual void add_own_fields(nlohmann::ordered_json& config) const = 0;
  /// Adds what decides pixels and is not in scheduler_config().
  virtual void add_own_settings(nlohmann::ordered_json& settings) const = 0;
  /// diffusers_difference() of the solver itself.
  virtual std::string own_difference() const = 0;

 private:
  std::string timestep_difference() const;

  NoiseSchedule schedule_;
  SigmaSchedule sigmas_;
  FinalSigma final_;
  double sigma_min_, sigma_max_, rho_;
  std::vector<Level> levels_;
};

}  // namespace sfumato
