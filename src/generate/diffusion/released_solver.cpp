#include "generate/diffusion/released_solver.h"

#include <memory>
#include <string_view>

#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/solver.h"

namespace sfumato {
namespace {

constexpr std::string_view kDiffusionScript =
#include "diffusion_sample_script.inc"  // src/generate/diffusion/sample.py as a literal, by CMake
    ;

constexpr std::string_view kNetworkScript =
#include "diffusion_network_script.inc"  // src/generate/diffusion/network.py, likewise
    ;

/// One of its own, for settings that are refused.
std::unique_ptr<Solver> plain_solver(const Config& config) {
  SettingsTree tree;
  SampleSettings plain(&tree);
  plain.clip_sample.set(config.sample.clip_sample());
  return make_solver(config.diffusion, plain);
}

nlohmann::ordered_json vp_scheduler(const Config& config) {
  nlohmann::ordered_json scheduler = ddpm_scheduler_config(noise_schedule_options(config.diffusion),
                                                           config.diffusion.prediction());
  scheduler["clip_sample"] = config.sample.clip_sample();
  scheduler["clip_sample_range"] = config.sample.clip_sample_range();
  return scheduler;
}

std::string filled_script(const Config& config, nlohmann::ordered_json settings) {
  const std::string_view place = "__SETTINGS__";
  settings["guidance"] = config.sample.guidance();
  settings["guidance_sigma_min"] = config.sample.guidance_sigma_min();
  settings["guidance_sigma_max"] = nullptr;
  if (const auto most = config.sample.guidance_sigma_max()) settings["guidance_sigma_max"] = *most;
  settings["num_classes"] = config.data.num_classes();
  std::string script(kDiffusionScript);
  return script.replace(script.find(place), place.size(), settings.dump(1));
}

}  // namespace

std::string_view released_network_script() { return kNetworkScript; }

ReleasedSolver released_solver(const Config& config) {
  const bool edm = config.diffusion.parameterization() == Parameterization::kEdm;
  std::unique_ptr<Solver> solver;
  ReleasedSolver released;
  try {
    solver = make_solver(config.diffusion, config.sample);
    released.difference = solver->diffusers_difference();
  } catch (const UsageError&) {
    if (edm) solver = plain_solver(config);
  }
  const Sampler sampler = config.sample.sampler();
  const bool unspecific = sampler == Sampler::kDdpm || sampler == Sampler::kDdim;
  released.scheduler_config =
      solver && (edm || !unspecific) ? solver->scheduler_config() : vp_scheduler(config);
  if (solver)
    if (const nlohmann::ordered_json settings = solver->script_settings(); !settings.is_null())
      released.script = filled_script(config, settings);
  return released;
}

}  // namespace sfumato
