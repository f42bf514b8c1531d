// Which schedulers of diffusers there are, and of what kind.
#include "generate/diffusion/scheduler_classes.h"

#include <algorithm>

namespace sfumato {
namespace {

constexpr SchedulerClass kKnownClasses[] = {
    {"DDPMScheduler"},
    {"DDIMScheduler"},
    {"DDPMParallelScheduler"},
    {"DDIMParallelScheduler"},
    {"DDIMInverseScheduler"},
    {"PNDMScheduler"},
    {"LMSDiscreteScheduler"},
    {"EulerDiscreteScheduler"},
    {"EulerAncestralDiscreteScheduler"},
    {"DPMSolverMultistepScheduler"},
    {"DPMSolverMultistepInverseScheduler"},
    {"DPMSolverSinglestepScheduler"},
    {"DEISMultistepScheduler"},
    {"UniPCMultistepScheduler"},
    {"SASolverScheduler"},
    {"RePaintScheduler"},
    {"HeunDiscreteScheduler", 0.00085, 0.012},
    {"KDPM2DiscreteScheduler", 0.00085, 0.012},
    {"KDPM2AncestralDiscreteScheduler", 0.00085, 0.012},
    {"DPMSolverSDEScheduler", 0.00085, 0.012},
    {.name = "EDMEulerScheduler", .edm = true},
    {.name = "EDMDPMSolverMultistepScheduler", .edm = true},
};

/// Other schedulers of diffusers 0.42, whose names say nothing of their kind.
constexpr std::string_view kOtherClasses[] = {
    "AmusedScheduler",       "BlockRefinementScheduler",     "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler", "DDPMWuerstchenScheduler",      "DiscreteDDIMScheduler",
    "EntropyBoundScheduler", "HeliosDMDScheduler",           "HeliosScheduler",
    "IPNDMScheduler",        "LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler",
    "PiflowScheduler",       "RFD4ProteinaScheduler",        "UnCLIPScheduler",
    "VQDiffusionScheduler"};

const std::vector<std::string> kKnownKeys = {"algorithm_type",
                                             "beta_end",
                                             "beta_schedule",
                                             "beta_start",
                                             "clip_sample",
                                             "clip_sample_range",
                                             "corrector_order",
                                             "disable_corrector",
                                             "dynamic_thresholding_ratio",
                                             "eta",
                                             "euler_at_final",
                                             "final_sigmas_type",
                                             "flow_shift",
                                             "interpolation_type",
                                             "lambda_min_clipped",
                                             "lower_order_final",
                                             "noise_sampler_seed",
                                             "num_train_timesteps",
                                             "offset",
                                             "predict_epsilon",
                                             "predict_x0",
                                             "prediction_type",
                                             "predictor_order",
                                             "rescale_betas_zero_snr",
                                             "rho",
                                             "sample_max_value",
                                             "set_alpha_to_one",
                                             "shift_terminal",
                                             "sigma_data",
                                             "sigma_max",
                                             "sigma_min",
                                             "sigma_schedule",
                                             "skip_prk_steps",
                                             "solver_order",
                                             "solver_p",
                                             "solver_type",
                                             "steps_offset",
                                             "tau_func",
                                             "tensor_format",
                                             "thresholding",
                                             "time_shift_type",
                                             "timestep_spacing",
                                             "timestep_type",
                                             "timestep_values",
                                             "trained_betas",
                                             "use_beta_sigmas",
                                             "use_dynamic_shifting",
                                             "use_exponential_sigmas",
                                             "use_flow_sigmas",
                                             "use_karras_sigmas",
                                             "use_lu_lambdas",
                                             "variance_type"};

}  // namespace

const SchedulerClass* known_scheduler_class(std::string_view name) {
  const auto found = std::ranges::find(kKnownClasses, name, &SchedulerClass::name);
  return found == std::end(kKnownClasses) ? nullptr : found;
}

std::vector<std::string> known_scheduler_classes() {
  std::vector<std::string> names;
  for (const SchedulerClass& known : kKnownClasses) names.emplace_back(known.name);
  return names;
}

const std::vector<std::string>& known_scheduler_keys() { return kKnownKeys; }

std::string other_scheduler_family(std::string_view name) {
  const auto has = [&](std::string_view text) { return name.find(text) != std::string_view::npos; };
  if (has("Flow") || has("flow")) return kFlow;
  if (has("ScoreSde") || has("KarrasVe")) return "a score-SDE, whose networks take sigma";
  if (has("EDM") || has("CosineDPMSolver"))
    return "another form of EDM preconditioning than those of EDMEulerScheduler and "
           "EDMDPMSolverMultistepScheduler";
  if (has("LCM") || has("TCD") || has("SCM") || has("Consistency") || has("CMStochastic"))
    return "a consistency model or another one distilled to few steps";
  return std::ranges::find(kOtherClasses, name) == std::end(kOtherClasses) ? "" : kNoPlainSchedule;
}

}  // namespace sfumato
