#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "sfumato/core/choices.h"
#include "sfumato/generate/diffusion/draws.h"
#include "sfumato/generate/diffusion/noise_schedule.h"

namespace sfumato {

struct DiffusionSettings;
struct SampleSettings;

/// What all solvers are told. What one alone reads, its file takes from the settings sample.*.
struct SolverOptions {
  Prediction prediction = Prediction::kEpsilon;
  int64_t steps = 50;
  TimestepSpacing spacing = TimestepSpacing::kLeading;
  int64_t steps_offset = 0;  ///< leading only, as in diffusers
  bool clip_sample = true;
  double clip_sample_range = 1.0;
  std::optional<EdmOptions> edm = {};  ///< of an EDM network: p_mean and p_std are unread
};

/// The network as a solver sees it: x float32 [N, C, H, W] -> its output, of the same shape. All
/// images are at one `level`, in the network's own measure: a Scalar that holds an integer is a
/// timestep and reaches it as int64, one that holds a real number reaches it as float32, whatever
/// its value.
using ModelFn = std::function<at::Tensor(const at::Tensor& x, const at::Scalar& level)>;

/// Standard normal noise, float32 [N, C, H, W], on the network's device; of each moment another,
/// and always the same. Moment 0 is the start.
using NoiseSource = std::function<at::Tensor(int64_t moment)>;

/// Goes from noise to images. Owns its loop: which levels it visits, how often it asks the network
/// between two of them, what it remembers of earlier answers and where it adds noise.
class Solver {
 public:
  virtual ~Solver() = default;
  Solver(const Solver&) = delete;
  Solver& operator=(const Solver&) = delete;

  const SolverOptions& options() const { return options_; }

  /// Draws as many images as `noise` has, float32 [N, C, H, W] in [-1, 1] or near it. No state is
  /// kept from one call to the next.
  virtual at::Tensor solve(const ModelFn& model, const NoiseSource& noise) const = 0;

  /// scheduler_config.json of a diffusers pipeline: this solver's class there, every field.
  virtual nlohmann::ordered_json scheduler_config() const = 0;
  /// All that decides what is drawn, but for network, guidance and noise, as a corpus states it: a
  /// corpus goes on only with the same. "scheduler" (as above) and "steps"; a solver adds its own.
  virtual nlohmann::ordered_json settings() const;
  /// What diffusers 0.42 does otherwise with scheduler_config() and as many steps, and its remedy,
  /// in a sentence; empty where it draws the same images.
  virtual std::string diffusers_difference() const = 0;
  /// What sample.py of a release needs to draw by a solver that diffusers lacks; null for others.
  virtual nlohmann::ordered_json script_settings() const;
  /// Where the first level is one at which there is still much of an image, so that noise alone is
  /// a poor start: a sentence with the remedy; else empty.
  virtual std::string start_defect() const = 0;

 protected:
  explicit Solver(const SolverOptions& options) : options_(options) {}

 private:
  SolverOptions options_;
};

/// The solver that the settings ask for, of a network with timesteps or, with `edm`, of one
/// without, for which `schedule` is of no account. UsageError for what sampling_mistakes() or the
/// solver itself refuses.
std::unique_ptr<Solver> make_solver(const NoiseSchedule& schedule, const SampleSettings& settings,
                                    Prediction prediction,
                                    const std::optional<EdmOptions>& edm = {});
/// The same of all settings.
std::unique_ptr<Solver> make_solver(const DiffusionSettings& diffusion,
                                    const SampleSettings& settings);

/// scheduler_config.json for a release that has no preferred solver: DDPMScheduler with the
/// schedule and prediction type it was trained with, and a spacing with which diffusers' own
/// schedulers end without noise; defaults elsewhere.
nlohmann::ordered_json ddpm_scheduler_config(const NoiseScheduleOptions& schedule,
                                             Prediction prediction);

}  // namespace sfumato
