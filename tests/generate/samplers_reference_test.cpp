// Solvers against what diffusers 0.42.1 draws, and against EDM's own Heun in float64, without any
// network: samplers.json holds the ends of 133 trajectories for data N(mu, s²), whose denoiser
// D(x, sigma) = (x s² + mu sigma²) / (s² + sigma²) is exact, and the first grids.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "generate/diffusion/levels.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/edm.h"
#include "sfumato/io/json_file.h"
#include "support/error_message.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr double kReferenceMean = 0.3, kReferenceSpread = 0.5;

const json& reference() {
  static const json all = read_json(test::source_folder() / "tests/generate/samplers.json");
  return all;
}

/// The settings that mean what a scheduler of diffusers with this configuration does.
std::unique_ptr<Config> settings_of(const std::string& scheduler, const json& config,
                                    int64_t steps) {
  std::map<std::string, std::string> to;
  to["sample.steps"] = std::to_string(steps);
  to["sample.clip_sample"] = "false";
  const bool edm = scheduler.starts_with("EDM");
  if (edm) to["diffusion.parameterization"] = "edm";
  if (scheduler == "EDMEulerScheduler") to["sample.sampler"] = "euler";
  if (scheduler == "UniPCMultistepScheduler") to["sample.sampler"] = "unipc";
  if (scheduler.ends_with("DPMSolverMultistepScheduler")) {
    const int order = config.value("solver_order", 2);
    to["sample.sampler"] = std::vector<std::string>{"dpmpp_1", "dpmpp_2m", "dpmpp_3m"}.at(
        static_cast<std::size_t>(order - 1));
  } else if (config.contains("solver_order")) {
    to["sample.solver_order"] = config["solver_order"].dump();
  }
  if (!edm) to["sample.spacing"] = "linspace";
  const std::map<std::string, std::string> names = {
      {"timestep_spacing", "sample.spacing"},
      {"steps_offset", "sample.steps_offset"},
      {"final_sigmas_type", "sample.final_sigmas_type"},
      {"solver_type", "sample.solver_type"},
      {"euler_at_final", "sample.euler_at_final"},
      {"sigma_schedule", "sample.sigma_schedule"},
      {"predict_x0", "sample.predict_x0"},
      {"disable_corrector", "sample.disable_corrector"},
      {"sigma_data", "diffusion.sigma_data"},
      {"prediction_type", "diffusion.prediction"},
      {"beta_schedule", "diffusion.schedule"},
      {"rescale_betas_zero_snr", "diffusion.rescale_betas_zero_snr"}};
  for (const auto& [key, value] : config.items()) {
    if (key == "solver_order") continue;
    if (key == "use_karras_sigmas")
      to["sample.sigma_schedule"] = "karras";
    else
      to[names.at(key)] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  std::vector<std::string> overrides;
  for (const auto& [key, value] : to) overrides.push_back(key + "=" + value);
  return load_config(std::nullopt, overrides);
}

/// The exact network at a level, whatever it is asked to predict, in double.
at::Tensor exact_output(const at::Tensor& input, double signal, double noise,
                        const Config& config) {
  const double sigma = noise / signal;
  const Prediction prediction = config.diffusion.prediction();
  at::Tensor x = input.to(at::kDouble);
  const double data = config.diffusion.sigma_data(), norm = std::hypot(sigma, data);
  const bool edm = config.diffusion.parameterization() == Parameterization::kEdm;
  x = edm ? x * norm : x / signal;
  const double variance = kReferenceSpread * kReferenceSpread;
  const at::Tensor image =
      (x * variance + kReferenceMean * sigma * sigma) / (variance + sigma * sigma);
  const at::Tensor eps = (x - image) / sigma;
  at::Tensor output = image;
  if (edm)
    output = (image - data * data / (norm * norm) * x) * norm / (sigma * data) *
             (prediction == Prediction::kVPrediction ? -1 : 1);
  else if (prediction == Prediction::kEpsilon)
    output = eps;
  else if (prediction == Prediction::kVPrediction)
    output = signal * eps - noise * image;
  return output.to(at::kFloat);
}

struct Drawn {
  at::Tensor end;
  std::vector<double> told;
};

Drawn draw_exact(const Config& config) {
  const auto solver = make_solver(config.diffusion, config.sample);
  const auto* levels = dynamic_cast<const LevelSolver*>(solver.get());
  if (levels == nullptr) throw std::logic_error("a solver without levels");
  Drawn drawn;
  const ModelFn model = [&](const at::Tensor& x, const at::Scalar& told) {
    EXPECT_EQ(x.scalar_type(), at::kFloat);
    drawn.told.push_back(told.toDouble());
    // EDM's level is what the network is told. A timestep is a rounded one where levels lie
    // between.
    if (solver->options().edm) return exact_output(x, 1, edm_sigma(told.toDouble()), config);
    const Level& at = levels->levels().at(drawn.told.size() - 1);
    return exact_output(x, at.signal, at.noise, config);
  };
  const auto unit = reference()["meta"]["unit_start"].get<std::vector<double>>();
  drawn.end = solver->solve(model, [&](int64_t) { return at::tensor(unit).to(at::kFloat); });
  return drawn;
}

/// The largest difference, as a part of the largest end.
double difference(const at::Tensor& end, const json& wanted) {
  const at::Tensor theirs = at::tensor(wanted.get<std::vector<double>>());
  return ((end.to(at::kDouble) - theirs).abs().max() / theirs.abs().max()).item<double>();
}

void check_grid(const json& entry, const Config& config, const Drawn& drawn) {
  const auto solver = make_solver(config.diffusion, config.sample);
  const auto& levels = dynamic_cast<const LevelSolver&>(*solver).levels();
  ASSERT_EQ(levels.size(), entry["sigmas"].size());
  for (std::size_t i = 0; i < levels.size(); ++i)
    ASSERT_NEAR(levels[i].sigma(), entry["sigmas"][i].get<double>(), 2e-6 * levels[i].sigma());
  for (std::size_t i = 0; i + 1 < levels.size(); ++i)
    ASSERT_NEAR(drawn.told.at(i), entry["timesteps"][i].get<double>(), 1e-6) << i;
}

/// Where diffusers' float32 loses digits: levels beyond sigma 10,000, at the end of the cosine
/// schedule, and noise predictions, which it multiplies by them.
double tolerance_of(const json& config) {
  const bool coarse = config.value("beta_schedule", "linear") == "squaredcos_cap_v2" ||
                      !config.value("predict_x0", true);
  return coarse ? 1e-3 : 1e-5;
}

/// Checks the trajectories of a list; returns how many.
int check_all(const char* list) {
  int checked = 0;
  for (const json& entry : reference()[list]) {
    const std::string scheduler = entry["scheduler"];
    SCOPED_TRACE(scheduler + " " + entry["config"].dump() + " " + entry["steps"].dump());
    ++checked;
    if (entry["final"][0].is_null()) {  // what diffusers draws is no number
      EXPECT_THAT(test::error_message<UsageError>(
                      [&] { settings_of(scheduler, entry["config"], entry["steps"]); }),
                  HasSubstr("bh1, whose B(h) = h is infinite"));
      continue;
    }
    const auto config = settings_of(scheduler, entry["config"], entry["steps"]);
    const Drawn drawn = draw_exact(*config);
    EXPECT_LT(difference(drawn.end, entry["final"]), tolerance_of(entry["config"]));
    if (entry.contains("sigmas")) check_grid(entry, *config, drawn);
  }
  return checked;
}

TEST(SamplersReference, OnEdmLevelsTheEndsAreThoseOfDiffusers) {
  // What is left is the float32 of diffusers' grid: 79.99998 for 80.
  EXPECT_EQ(check_all("edm"), 44);
}

TEST(SamplersReference, OnASchedulesLevelsTheEndsAreThoseOfDiffusers) {
  EXPECT_EQ(check_all("vp"), 84);
}

TEST(SamplersReference, HeunIsEdms) {
  for (const json& entry : reference()["edm_heun_float64"]) {
    const int64_t steps = entry["steps"];
    const auto config = load_config(
        std::nullopt, std::vector<std::string>{"diffusion.parameterization=edm",
                                               "sample.sampler=heun", "sample.clip_sample=false",
                                               "sample.steps=" + std::to_string(steps)});
    const Drawn drawn = draw_exact(*config);
    EXPECT_EQ(std::ssize(drawn.told), 2 * steps - 1);
    EXPECT_LT(difference(drawn.end, entry["final"]), 1e-5) << steps;
  }
  EXPECT_EQ(reference()["edm_heun_float64"].size(), 5u);
}

// Every deterministic solver of either kind comes to the end of the exact flow.
TEST(SamplersReference, ManyStepsComeToTheEndOfTheExactFlow) {
  for (const auto& [sampler, tolerance] : std::map<std::string, double>{{"ddim", 0.02},
                                                                        {"euler", 0.02},
                                                                        {"heun", 3e-4},
                                                                        {"dpmpp_1", 0.02},
                                                                        {"dpmpp_2m", 3e-4},
                                                                        {"dpmpp_3m", 3e-4},
                                                                        {"unipc", 3e-4}}) {
    const auto config = load_config(
        std::nullopt,
        std::vector<std::string>{"diffusion.parameterization=edm", "sample.sampler=" + sampler,
                                 "sample.clip_sample=false", "sample.steps=400"});
    EXPECT_LT(difference(draw_exact(*config).end, reference()["exact_ode_from_sigma_max_80"]),
              tolerance)
        << sampler;
  }
}

}  // namespace
}  // namespace sfumato
