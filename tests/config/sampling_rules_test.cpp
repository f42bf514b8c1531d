// What is refused before anything is computed, with the remedy.
#include "sfumato/config/sampling_rules.h"

#include <gmock/gmock.h>

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "config/load_helpers.h"
#include "sfumato/core/file.h"
#include "support/error_message.h"
#include "support/every_name.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

using test::error_message;
using ::testing::AllOf;
using ::testing::HasSubstr;

using Overrides = std::vector<std::string>;

std::string refusal(const Overrides& overrides) {
  return error_message<UsageError>([&] { load_config(std::nullopt, overrides); });
}

/// Of a configuration that says whose the network is.
std::string edm_refusal(Overrides overrides) {
  overrides.emplace_back("diffusion.parameterization=edm");
  return refusal(overrides);
}
std::string vp_refusal(Overrides overrides) {
  overrides.emplace_back("diffusion.parameterization=vp");
  return refusal(overrides);
}

TEST(SamplingRules, ChoicesHaveTheirOwnNames) {
  test::expect_every_enumerator_named<Sampler>();
  test::expect_every_enumerator_named<Parameterization>();
  test::expect_every_enumerator_named<SigmaSchedule>();
  test::expect_every_enumerator_named<FinalSigma>();
  test::expect_every_enumerator_named<SolverType>();
}

TEST(SamplingRules, ASolverOfTheOtherParameterizationIsRefused) {
  EXPECT_THAT(vp_refusal({"sample.sampler=heun"}),
              AllOf(HasSubstr("heun, which is not for networks of diffusion.parameterization=vp"),
                    HasSubstr("choose sample.sampler=dpmpp_2m")));
  EXPECT_THAT(vp_refusal({"sample.sampler=euler"}), HasSubstr("sample.sampler=ddim"));
  EXPECT_THAT(edm_refusal({"sample.sampler=ddpm"}), HasSubstr("sde_dpmpp_2m"));
}

TEST(SamplingRules, UntilAFileSaysWhoseTheNetworkIsEitherMayBeAsked) {
  for (const char* sampler : {"heun", "euler", "ddpm", "ddim", "dpmpp_3m", "unipc"})
    EXPECT_NO_THROW(load_config(std::nullopt, Overrides{std::string("sample.sampler=") + sampler}));
  // Training from scratch has no such file.
  const auto scratch =
      load_config(std::nullopt, Overrides{"sample.sampler=heun", "mechanism.noise_multiplier=1"});
  EXPECT_THAT(error_message<UsageError>([&] { validate_for_training(*scratch); }),
              HasSubstr("not for networks of diffusion.parameterization=vp"));
  const auto pretrained = load_config(
      std::nullopt,
      Overrides{"sample.sampler=heun", "mechanism.noise_multiplier=1", "model.init=some/folder"});
  EXPECT_NO_THROW(validate_for_training(*pretrained));
}

TEST(SamplingRules, ASettingThatTheSolverDoesNotReadIsRefused) {
  EXPECT_THAT(refusal({"sample.sampler=dpmpp_2m", "sample.s_churn=10"}),
              AllOf(HasSubstr("sample.s_churn (command line) is not read by sample.sampler "
                              "(command line), which is "
                              "dpmpp_2m"),
                    HasSubstr("but by euler, heun alone"), HasSubstr("its default, 0")));
  EXPECT_THAT(vp_refusal({"sample.s_churn=10"}), HasSubstr("euler, heun alone"));
  EXPECT_THAT(refusal({"sample.sampler=dpmpp_2m", "sample.eta=0.5"}), HasSubstr("ddim alone"));
  EXPECT_THAT(refusal({"sample.sampler=ddpm", "sample.solver_order=3"}), HasSubstr("unipc alone"));
  EXPECT_THAT(refusal({"sample.sampler=dpmpp_1", "sample.solver_type=heun"}),
              HasSubstr("dpmpp_2m, dpmpp_3m"));
  EXPECT_THAT(edm_refusal({"sample.eta=0.5"}), HasSubstr("which of an edm network is euler"));
  // Of an edm network ddim is euler, and reads what that does.
  EXPECT_NO_THROW(
      load_config(std::nullopt, Overrides{"diffusion.parameterization=edm", "sample.s_churn=10"}));
  // ddpm and ddim have always taken each other's.
  EXPECT_NO_THROW(load_config(std::nullopt, Overrides{"sample.sampler=ddpm", "sample.eta=0.5"}));
}

TEST(SamplingRules, SettingsOfTheOtherParameterizationAreRefused) {
  EXPECT_THAT(vp_refusal({"sample.sampler=dpmpp_2m", "sample.sigma_max=40"}),
              HasSubstr("sample.sigma_max (command line) is for networks of "
                        "diffusion.parameterization=edm, and this one is vp"));
  EXPECT_THAT(vp_refusal({"sample.sampler=dpmpp_2m", "sample.rho=5"}), HasSubstr("sample.rho"));
  EXPECT_THAT(edm_refusal({"sample.spacing=linspace"}), HasSubstr("sample.spacing"));
  EXPECT_THAT(edm_refusal({"diffusion.beta_end=0.01"}), HasSubstr("diffusion.beta_end"));
  EXPECT_THAT(edm_refusal({"diffusion.timestep_power=2"}), HasSubstr("diffusion.timestep_power"));
  EXPECT_THAT(vp_refusal({"diffusion.sigma_data=0.6"}), HasSubstr("diffusion.sigma_data"));
  EXPECT_THAT(vp_refusal({"diffusion.p_std=1"}), HasSubstr("diffusion.p_std"));
  EXPECT_THAT(edm_refusal({"diffusion.prediction=sample"}), HasSubstr("choose epsilon"));
}

TEST(SamplingRules, CombinationsThatDrawNothingAreRefused) {
  const std::string unipc = "sample.sampler=unipc", noise = "sample.predict_x0=false";
  EXPECT_THAT(refusal({unipc, "sample.solver_type=bh1"}),
              AllOf(HasSubstr("infinite"), HasSubstr("choose bh2")));
  EXPECT_THAT(refusal({unipc, noise, "sample.clip_sample=false"}),
              HasSubstr("sample.final_sigmas_type=sigma_min"));
  EXPECT_THAT(refusal({unipc, noise, "sample.final_sigmas_type=sigma_min"}),
              HasSubstr("sample.clip_sample=false"));
  EXPECT_THAT(refusal({unipc, "sample.solver_type=midpoint"}), HasSubstr("bh2 or bh1"));
  EXPECT_THAT(refusal({"sample.sampler=dpmpp_2m", "sample.solver_type=bh2"}),
              HasSubstr("midpoint or heun"));
  EXPECT_THAT(refusal({"sample.sigma_min=90"}), HasSubstr("sample.sigma_min (command line)"));
  EXPECT_THAT(refusal({"sample.sampler=heun", "sample.s_min=2", "sample.s_max=1"}),
              HasSubstr("no step has churn"));
  EXPECT_THAT(refusal({"sample.guidance_sigma_min=2", "sample.guidance_sigma_max=1"}),
              HasSubstr("nothing is guided"));
}

TEST(SamplingRules, BoundsOfWhatNobodyAskedForAreRefused) {
  for (const char* bound : {"sample.guidance_sigma_max=5", "sample.guidance_sigma_min=0.1"}) {
    EXPECT_THAT(refusal({bound}), AllOf(HasSubstr("has no effect: sample.guidance is 0"),
                                        HasSubstr("leave sample.guidance_sigma_")));
    EXPECT_NO_THROW(load_config(std::nullopt, Overrides{bound, "sample.guidance=1"}));
    // Turned off by name, for a comparison.
    EXPECT_NO_THROW(load_config(std::nullopt, Overrides{bound, "sample.guidance=0"}));
  }
  for (const char* bound : {"sample.s_min=0.1", "sample.s_max=5", "sample.s_noise=1.003"}) {
    EXPECT_THAT(edm_refusal({bound, "sample.sampler=heun"}),
                HasSubstr("has no effect: sample.s_churn is 0"));
    EXPECT_NO_THROW(
        load_config(std::nullopt, Overrides{bound, "sample.sampler=heun", "sample.s_churn=5"}));
  }
}

TEST(SamplingRules, ABoundThatTheSolverDoesNotReadIsNamedOnce) {
  const auto mistakes = test::mistakes_of("", {"sample.sampler=dpmpp_2m", "sample.s_min=0.1"});
  EXPECT_THAT(mistakes, testing::ElementsAre(HasSubstr("is not read by sample.sampler")));
  // Of a network that is not known ddim may be euler.
  EXPECT_THAT(test::mistakes_of("", {"sample.sampler=ddim", "sample.s_min=0.1"}),
              testing::ElementsAre(HasSubstr("has no effect: sample.s_churn is 0")));
}

/// "| `a`, `b` | yes | no | ..." -> the cell of `column`, from 0, of the row that names `sampler`.
std::string table_cell(const std::string& page, const std::string& sampler, int column) {
  std::istringstream lines(page.substr(page.find("| `sample.sampler` |")));
  for (std::string line; std::getline(lines, line) && line.starts_with("|");) {
    std::istringstream cells(line.substr(1));
    std::string names, cell;
    std::getline(cells, names, '|');
    if (names.find("`" + sampler + "`") == std::string::npos) continue;
    for (int i = 0; i <= column; ++i) std::getline(cells, cell, '|');
    return cell;
  }
  return "not in the table";
}

TEST(SamplingRules, TheTableOfTheReadmeIsWhatIsRefused) {
  const std::string page = read_file(test::source_folder() / "configs/README.md");
  for (const std::string& sampler : names_of<Sampler>())
    for (const bool edm : {false, true}) {
      const Overrides overrides = {
          "sample.sampler=" + sampler,
          std::string("diffusion.parameterization=") + (edm ? "edm" : "vp")};
      bool taken = true;
      try {
        load_config(std::nullopt, overrides);
      } catch (const UsageError&) {
        taken = false;
      }
      EXPECT_THAT(table_cell(page, sampler, edm ? 1 : 0),
                  testing::StartsWith(taken ? " yes" : " no "))
          << sampler << (edm ? " edm" : " vp");
    }
}

}  // namespace
}  // namespace sfumato
