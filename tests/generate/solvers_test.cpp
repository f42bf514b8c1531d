#include "generate/diffusion/solvers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sin.h>
#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "generate/one_step.h"
#include "sfumato/config/config.h"
#include "sfumato/config/sampling_rules.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/sample_images.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using test::DrawingOptions;
using ::testing::ElementsAreArray;
using ::testing::EndsWith;
using ::testing::HasSubstr;

TEST(Solvers, TheSettingOffersTheTable) {
  const auto config = load_config(std::nullopt, {});
  std::vector<std::string> names;
  for (const SolverRow& row : solvers()) names.push_back(to_string(row.sampler));
  EXPECT_THAT(config->sample.sampler.range().choices, ElementsAreArray(names));
}

TEST(Solvers, EveryRowMakesItsSolver) {
  for (const SolverRow& row : solvers()) {
    const auto config = load_config(
        std::nullopt, std::vector<std::string>{"sample.sampler=" + to_string(row.sampler)});
    // Those that are for one kind of network are not for the other.
    const bool edm = row.sampler == Sampler::kEuler || row.sampler == Sampler::kHeun;
    if (edm) config->diffusion.parameterization.set(Parameterization::kEdm);
    const auto solver = make_solver(config->diffusion, config->sample);
    EXPECT_EQ(solver->options().steps, config->sample.steps());
    EXPECT_EQ(solver->settings()["scheduler"], solver->scheduler_config());
    EXPECT_TRUE(sampler_reads(row.sampler, "sample.steps"));
  }
  EXPECT_FALSE(sampler_reads(Sampler::kDdim, "sample.variance"));
  EXPECT_FALSE(sampler_reads(Sampler::kDdpm, "sample.eta"));
  EXPECT_TRUE(sampler_reads(Sampler::kHeun, "sample.s_churn"));
}

// Each solver's corpus says what no other's does.
TEST(Solvers, NoTwoSolversSayTheSame) {
  for (const bool edm : {false, true}) {
    std::set<std::string> said;
    std::size_t count = 0;
    for (const SolverRow& row : solvers()) {
      const bool other = edm ? row.sampler == Sampler::kDdpm || row.sampler == Sampler::kDdim
                             : row.sampler == Sampler::kEuler || row.sampler == Sampler::kHeun;
      if (other) continue;
      const auto config = load_config(std::nullopt, {});
      if (edm) config->diffusion.parameterization.set(Parameterization::kEdm);
      config->sample.sampler.set(row.sampler);
      said.insert(make_solver(config->diffusion, config->sample)->settings().dump());
      ++count;
    }
    EXPECT_EQ(said.size(), count) << edm;
  }
}

// What a corpus says of how it was drawn must not change: one that was begun goes on only with the
// same.
TEST(Solvers, ACorpusSaysTheSameAsEver) {
  for (const std::string name : {"ddpm", "ddim"}) {
    DrawingOptions options;
    options.solver = name;
    options.eta = 0.5;
    options.variance = DdpmVariance::kFixedLarge;
    const std::string says = make_solver(NoiseSchedule({}), options)->settings().dump();
    const std::string own =
        name == "ddpm" ? R"("variance_type":"fixed_large")" : R"("set_alpha_to_one":true)";
    EXPECT_THAT(says, HasSubstr(name == "ddpm" ? "DDPMScheduler" : "DDIMScheduler"));
    EXPECT_THAT(says,
                EndsWith(own + R"(},"steps":50,"eta":0.5,"use_clipped_model_output":false})"));
  }
}

TEST(Solvers, UnknownNamesAreRefused) {
  const std::vector<std::string> wrong = {"sample.sampler=dddim"};
  EXPECT_THAT(test::error_message<UsageError>([&] { load_config(std::nullopt, wrong); }),
              HasSubstr("must be one of ddpm, ddim, euler, heun, dpmpp_1, dpmpp_2m, dpmpp_3m, "
                        "sde_dpmpp_2m, unipc, got 'dddim'; did you mean 'ddim'?"));
}

// The loop of a solver with one step a timestep: the network at each timestep, then the step, with
// the noise of moment 1 for the first.
TEST(Solvers, OneStepSolversTakeTheirStepsInTurn) {
  for (const auto& [name, eta] : {std::pair{"ddpm", 0.0}, {"ddim", 0.0}, {"ddim", 0.7}}) {
    DrawingOptions options;
    options.solver = name;
    options.eta = eta;
    options.steps = 4;
    const auto solver = test::one_step_solver(NoiseSchedule({}), options);
    std::vector<int64_t> moments, levels;
    const NoiseSource noise = [&](int64_t moment) {
      moments.push_back(moment);
      return at::sin(at::full({2, 1, 2, 2}, 1.0 + 7.0 * static_cast<double>(moment)));
    };
    const ModelFn model = [&](const at::Tensor& x, const at::Scalar& level) {
      EXPECT_TRUE(level.isIntegral(false));
      levels.push_back(level.toLong());
      return at::sin(3 * x);
    };
    const at::Tensor drawn = solver->solve(model, noise);
    EXPECT_EQ(levels, solver->timesteps());
    const bool noisy = name == std::string("ddpm") || eta > 0;
    EXPECT_EQ(moments, noisy ? (std::vector<int64_t>{0, 1, 2, 3}) : std::vector<int64_t>{0});
    at::Tensor x = noise(0);
    for (int64_t i = 0; i < 4; ++i)
      x = solver->step(at::sin(3 * x), i, x, solver->needs_noise(i) ? noise(i + 1) : at::Tensor());
    EXPECT_TRUE(drawn.equal(x)) << name << eta;
  }
}

constexpr double kDataMean = 0.3, kSpread = 0.5;  // of the made-up data, N(0.3, 0.25)

/// A solver as none in the table: Heun's method (Karras et al. 2022, algorithm 1 without churn) on
/// x = x_0 + sigma eps, for a network that answers x_0 and is told sigma. Two evaluations a step
/// but in the last, real-valued levels and a start of its own size.
class HeunOnSigma : public Solver {
 public:
  explicit HeunOnSigma(const SolverOptions& options) : Solver(options) {}

  at::Tensor solve(const ModelFn& model, const NoiseSource& noise) const override {
    at::Tensor x = sigma(0) * noise(0);
    for (int64_t i = 0; i < options().steps; ++i) {
      const double here = sigma(i), next = i + 1 < options().steps ? sigma(i + 1) : 0;
      const at::Tensor slope = (x - model(x, here)) / here;
      at::Tensor to = x + (next - here) * slope;
      if (next > 0) {
        const at::Tensor second = (to - model(to, next)) / next;
        to = x + (next - here) * 0.5 * (slope + second);
      }
      x = to;
    }
    return x;
  }

  nlohmann::ordered_json scheduler_config() const override { return {}; }
  std::string diffusers_difference() const override { return ""; }
  std::string start_defect() const override { return ""; }

  double sigma(int64_t i) const {
    const double rho = 7, most = std::pow(80, 1 / rho), least = std::pow(0.002, 1 / rho);
    const double place = static_cast<double>(i) / static_cast<double>(options().steps - 1);
    return std::pow(most + place * (least - most), rho);
  }
};

TEST(Solvers, OneThatAsksTwiceAStepDrawsThroughSampleImages) {
  SolverOptions options;
  options.steps = 100;
  const HeunOnSigma solver(options);
  int64_t calls = 0;
  at::Tensor start;
  const DenoiserFn exact = [&](const at::Tensor& x, const at::Tensor& sigma,
                               const at::Tensor& labels) {
    EXPECT_EQ(sigma.scalar_type(), at::kFloat);
    EXPECT_EQ(sigma.size(0), 3);
    EXPECT_EQ(labels[1].item<int64_t>(), 2);
    if (calls++ == 0) start = x.clone();
    const at::Tensor s2 = sigma.square().view({-1, 1, 1, 1});
    return (x * (kSpread * kSpread) + s2 * kDataMean) / (s2 + kSpread * kSpread);
  };
  const std::vector<ImageId> ids{{0, 0}, {2, 0}, {2, 5}};
  const at::Tensor images = sample_images(exact, solver, {3, 4, 6}, ids, true, 5);
  EXPECT_EQ(calls, 2 * options.steps - 1);
  // The probability flow of normal data keeps (x - mean) / sqrt(spread^2 + sigma^2).
  const double at_start = std::sqrt(kSpread * kSpread + 80.0 * 80.0);
  const at::Tensor end = kDataMean + kSpread * (start - kDataMean) / at_start;
  const at::Tensor wanted = ((end / 2 + 0.5).clamp(0, 1) * 255).permute({0, 2, 3, 1});
  EXPECT_LT((images.to(at::kFloat) - wanted).abs().max().item<float>(), 1.5);
}

}  // namespace
}  // namespace sfumato
