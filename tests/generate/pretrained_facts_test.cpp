#include "sfumato/generate/diffusion/network_facts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/models/unet2d_config.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// As diffusers 0.42.1 saves these schedulers (abridged where keys repeat).
constexpr const char* kDpmSolver = R"({
  "_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.42.1",
  "algorithm_type": "dpmsolver++", "beta_end": 0.012, "beta_schedule": "scaled_linear",
  "beta_start": 0.00085, "dynamic_thresholding_ratio": 0.995, "lambda_min_clipped": -Infinity,
  "num_train_timesteps": 500, "prediction_type": "v_prediction", "rescale_betas_zero_snr": true,
  "sample_max_value": 1.0, "thresholding": false, "timestep_spacing": "linspace",
  "trained_betas": null, "use_flow_sigmas": false, "use_karras_sigmas": true,
  "variance_type": null})";
constexpr const char* kEuler = R"({
  "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.42.1", "beta_end": 0.02,
  "beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "final_sigmas_type": "zero",
  "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "sample",
  "rescale_betas_zero_snr": false, "sigma_max": null, "sigma_min": null,
  "timestep_type": "discrete", "trained_betas": null})";
constexpr const char* kOldDdpm = R"({
  "_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02,
  "beta_schedule": "linear", "beta_start": 0.0001, "clip_sample": true,
  "num_train_timesteps": 1000, "timestep_values": null, "trained_betas": null,
  "variance_type": "fixed_large"})";

class Facts : public testing::Test {
 protected:
  Facts() { set_quiet(true); }
  ~Facts() override { set_quiet(false); }

  PretrainedFacts facts(const std::string& text) const {
    write_file_atomic(folder_ / "scheduler_config.json", text);
    PretrainedFacts found;
    add_scheduler_facts(folder_ / "scheduler_config.json", found);
    return found;
  }
  /// A plain DDPMScheduler with one key changed.
  PretrainedFacts changed(const char* key, const json& value) const {
    json file = json::parse(kOldDdpm);
    file[key] = value;
    return facts(file.dump());
  }
  static std::unique_ptr<Config> config(std::vector<std::string> overrides = {}) {
    overrides.push_back("model.init=some/folder");
    return load_config(std::nullopt, overrides);
  }
  std::unique_ptr<Config> trained(const PretrainedFacts& from,
                                  const std::vector<std::string>& overrides = {}) const {
    auto settings = config(overrides);
    adopt_for_training(from, *settings);
    return settings;
  }
  std::unique_ptr<Config> sampled(const PretrainedFacts& from,
                                  const std::vector<std::string>& overrides = {}) const {
    auto settings = config(overrides);
    adopt_for_sampling(from, *settings);
    return settings;
  }
  std::string training_error(const PretrainedFacts& from,
                             const std::vector<std::string>& overrides = {}) const {
    return test::error_message<UsageError>([&] { trained(from, overrides); });
  }
  template <typename Action>
  static std::string data_error(const Action& action) {
    return test::error_message<DataError>(action);
  }

  test::TempFolder folder_;
};

TEST_F(Facts, SolversOfTheSameNoiseAreASourceOfScheduleAndPrediction) {
  const PretrainedFacts dpm = facts(kDpmSolver);
  for (const auto& settings : {trained(dpm), sampled(dpm)}) {
    EXPECT_EQ(settings->diffusion.schedule(), BetaSchedule::kScaledLinear);
    EXPECT_EQ(settings->diffusion.prediction(), Prediction::kVPrediction);
    EXPECT_EQ(settings->diffusion.num_train_timesteps(), 500);
    EXPECT_EQ(settings->diffusion.beta_start(), 0.00085);
    EXPECT_EQ(settings->diffusion.beta_end(), 0.012);
    EXPECT_TRUE(settings->diffusion.rescale_betas_zero_snr());
    EXPECT_TRUE(settings->sample.clip_sample());
  }
  const auto euler = trained(facts(kEuler));
  EXPECT_EQ(euler->diffusion.schedule(), BetaSchedule::kSquaredCosCapV2);
  EXPECT_EQ(euler->diffusion.prediction(), Prediction::kSample);
  EXPECT_EQ(euler->diffusion.num_train_timesteps(), 1000);
  for (const char* name : {"PNDMScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler",
                           "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler",
                           "LMSDiscreteScheduler", "FlaxDDPMScheduler", "RePaintScheduler"})
    EXPECT_EQ(trained(changed("_class_name", name))->diffusion.schedule(), BetaSchedule::kLinear)
        << name;
}

TEST_F(Facts, WhatAFileLeavesOutIsTheDefaultOfItsClass) {
  const auto heun = trained(facts(R"({"_class_name": "HeunDiscreteScheduler"})"));
  EXPECT_EQ(heun->diffusion.beta_start(), 0.00085);
  EXPECT_EQ(heun->diffusion.beta_end(), 0.012);
  EXPECT_EQ(heun->diffusion.prediction.provenance(), "scheduler_config.json of model.init");
  EXPECT_THAT(training_error(facts(kOldDdpm), {"diffusion.prediction=v_prediction"}),
              HasSubstr("prediction_type is not given, which means epsilon to a DDPMScheduler"));
  // Without a class nothing is known of what is left out.
  EXPECT_TRUE(trained(facts("{}"))->diffusion.prediction.is_default());
}

TEST_F(Facts, TheResolvedConfigurationSaysWhereValuesComeFrom) {
  EXPECT_THAT(trained(facts(kDpmSolver))->resolved_yaml(),
              HasSubstr("prediction: v_prediction  # from scheduler_config.json of model.init\n"));
}

TEST_F(Facts, AContradictionInTrainingNamesBothPlacesAndTheRemedy) {
  const PretrainedFacts dpm = facts(kDpmSolver);
  const std::string message =
      training_error(dpm, {"diffusion.prediction=epsilon", "diffusion.schedule=linear",
                           "diffusion.num_train_timesteps=500"});
  EXPECT_THAT(message,
              AllOf(HasSubstr("diffusion.prediction is epsilon (command line)"),
                    HasSubstr("scheduler_config.json' prediction_type is v_prediction"),
                    HasSubstr("beta_schedule is scaled_linear"),
                    HasSubstr("model.overrule_init=[diffusion.prediction, diffusion.schedule]")));
  EXPECT_THAT(message, Not(HasSubstr("num_train_timesteps")));
  for (const char* other : {"diffusion.num_train_timesteps=1000", "diffusion.beta_start=0.0001",
                            "diffusion.beta_end=0.02", "diffusion.rescale_betas_zero_snr=false"})
    EXPECT_THAT(training_error(dpm, {other}), HasSubstr(std::string(other).substr(0, 18)));
  // A second look at what was adopted finds no contradiction.
  const auto settings = trained(dpm, {"diffusion.beta_end=0.0120000001"});
  EXPECT_NO_THROW(adopt_for_training(dpm, *settings));
  // The cosine has no use for β.
  EXPECT_NO_THROW(trained(facts(kEuler), {"diffusion.beta_end=0.01"}));
}

TEST_F(Facts, WhatIsOverruledStaysAsItIs) {
  const PretrainedFacts dpm = facts(kDpmSolver);
  auto settings = trained(dpm, {"diffusion.prediction=epsilon", "diffusion.schedule=linear",
                                "diffusion.rescale_betas_zero_snr=false",
                                "model.overrule_init=[diffusion.prediction, diffusion.schedule, "
                                "diffusion.rescale_betas_zero_snr]"});
  EXPECT_EQ(settings->diffusion.prediction(), Prediction::kEpsilon);
  EXPECT_EQ(settings->diffusion.schedule(), BetaSchedule::kLinear);
  EXPECT_EQ(settings->diffusion.num_train_timesteps(), 500);
  settings = trained(dpm, {"model.overrule_init=[diffusion.prediction]"});
  EXPECT_EQ(settings->diffusion.prediction(), Prediction::kEpsilon);
  EXPECT_TRUE(settings->diffusion.prediction.is_default());
  EXPECT_THAT(test::error_message<UsageError>(
                  [] { config({"model.overrule_init=[diffusion.predictions]"}); }),
              HasSubstr("did you mean 'diffusion.prediction'"));
}

TEST_F(Facts, InSamplingWhatSomebodySetWins) {
  const auto settings = sampled(facts(kDpmSolver), {"diffusion.prediction=epsilon",
                                                    "diffusion.rescale_betas_zero_snr=false"});
  EXPECT_EQ(settings->diffusion.prediction(), Prediction::kEpsilon);
  EXPECT_EQ(settings->diffusion.schedule(), BetaSchedule::kScaledLinear);
}

TEST_F(Facts, VariancesAreTakenForDrawingAlone) {
  for (const char* name : {"fixed_small", "fixed_small_log", "fixed_large"}) {
    EXPECT_EQ(sampled(changed("variance_type", name))->sample.variance.value_yaml(), name);
    EXPECT_TRUE(trained(changed("variance_type", name))->sample.variance.is_default());
  }
  for (const char* name : {"fixed_large_log", "learned", "learned_range"}) {
    const PretrainedFacts found = changed("variance_type", name);
    // ddim uses no variance.
    EXPECT_EQ(sampled(found)->diffusion.schedule(), BetaSchedule::kLinear) << name;
    EXPECT_NO_THROW(trained(found)) << name;
    EXPECT_THAT(data_error([&] { sampled(found, {"sample.sampler=ddpm"}); }),
                AllOf(HasSubstr(name), HasSubstr("set sample.variance")));
    EXPECT_NO_THROW(sampled(found, {"sample.sampler=ddpm", "sample.variance=fixed_large"}));
  }
}

TEST_F(Facts, ThresholdingWithAGreatestValueOfOneIsClipping) {
  json file = json::parse(kOldDdpm);
  file["thresholding"] = true;
  file["clip_sample"] = false;  // diffusers looks at thresholding first
  file["clip_sample_range"] = 5.0;
  for (const auto& settings : {trained(facts(file.dump())), sampled(facts(file.dump()))}) {
    EXPECT_TRUE(settings->sample.clip_sample());
    EXPECT_EQ(settings->sample.clip_sample_range(), 1.0);
  }
  for (const double most : {1.5, 0.5}) {
    file["sample_max_value"] = most;
    const PretrainedFacts found = facts(file.dump());
    EXPECT_THAT(data_error([&] { sampled(found); }), HasSubstr("dynamic thresholding"));
    EXPECT_NO_THROW(sampled(found, {"sample.clip_sample=true"}));
    EXPECT_NO_THROW(trained(found));
  }
}

TEST_F(Facts, ClippingSaysInWhatRangeValuesAre) {
  EXPECT_EQ(sampled(changed("clip_sample_range", 0.5))->sample.clip_sample_range(), 0.5);
  EXPECT_EQ(trained(changed("clip_sample_range", 5.0))->sample.clip_sample_range(), 5.0);
  EXPECT_THAT(training_error(changed("clip_sample_range", 0.5)),
              AllOf(HasSubstr("values in [-1, 1]"), HasSubstr("clip_sample_range is 0.5"),
                    HasSubstr("overrule_init=[sample.clip_sample_range]")));
  EXPECT_THAT(training_error(changed("clip_sample_range", 5.0), {"sample.clip_sample_range=1"}),
              HasSubstr("clip_sample_range is 5"));
  const auto settings = trained(changed("clip_sample", false));
  EXPECT_FALSE(settings->sample.clip_sample());
  EXPECT_NO_THROW(trained(changed("clip_sample", false), {"sample.clip_sample=true"}));
}

TEST_F(Facts, SchedulesOfTheirOwnAreRefusedUnlessOverruled) {
  for (const auto& [key, value] : std::vector<std::pair<const char*, json>>{
           {"trained_betas", {0.1, 0.2}}, {"beta_schedule", "laplace"}, {"beta_schedule", "exp"}}) {
    const PretrainedFacts found = changed(key, value);
    EXPECT_THAT(data_error([&] { trained(found); }),
                AllOf(HasSubstr(key), HasSubstr("overrule_init=[diffusion.schedule]")));
    EXPECT_THAT(data_error([&] { sampled(found); }), HasSubstr("set diffusion.schedule"));
    EXPECT_NO_THROW(sampled(found, {"diffusion.schedule=linear"}));
    EXPECT_NO_THROW(trained(found, {"model.overrule_init=[diffusion.schedule]"}));
  }
  EXPECT_THROW(trained(changed("trained_betas", json::array())), DataError);
  EXPECT_THAT(data_error([&] { trained(changed("prediction_type", "trigflow")); }),
              HasSubstr("prediction_type"));
}

/// The key of diffusers before 0.5; prediction_type came in its place.
TEST_F(Facts, PredictEpsilonIsTheOldPredictionType) {
  const auto with = [](const json& old, const json& now) {
    json file = json::parse(kOldDdpm);
    file["predict_epsilon"] = old;
    if (!now.is_null()) file["prediction_type"] = now;
    return file.dump();
  };
  EXPECT_EQ(trained(facts(with(false, nullptr)))->diffusion.prediction(), Prediction::kSample);
  EXPECT_EQ(sampled(facts(with(false, nullptr)))->diffusion.prediction(), Prediction::kSample);
  EXPECT_EQ(trained(facts(with(false, "sample")))->diffusion.prediction(), Prediction::kSample);
  EXPECT_EQ(trained(facts(with(true, nullptr)))->diffusion.prediction(), Prediction::kEpsilon);
  EXPECT_EQ(trained(facts(with(true, "epsilon")))->diffusion.prediction(), Prediction::kEpsilon);
  EXPECT_THAT(training_error(facts(with(false, nullptr)), {"diffusion.prediction=epsilon"}),
              HasSubstr("predict_epsilon is false, the old way to say prediction_type sample"));
  for (const auto& [old, now] : std::vector<std::pair<bool, const char*>>{
           {false, "epsilon"}, {false, "v_prediction"}, {true, "sample"}, {true, "v_prediction"}}) {
    const PretrainedFacts found = facts(with(old, now));
    EXPECT_THAT(data_error([&] { trained(found); }),
                AllOf(HasSubstr("predict_epsilon"), HasSubstr(now)));
    EXPECT_THAT(data_error([&] { sampled(found); }), HasSubstr("predict_epsilon"));
    EXPECT_EQ(sampled(found, {"diffusion.prediction=sample"})->diffusion.prediction(),
              Prediction::kSample);
  }
  EXPECT_THAT(data_error([&] { facts(with("no", nullptr)); }), HasSubstr("true or false"));
}

TEST_F(Facts, UnknownKeysGetOneWarning) {
  const auto said = [](const auto& action) {
    set_quiet(false);
    testing::internal::CaptureStderr();
    action();
    set_quiet(true);
    return testing::internal::GetCapturedStderr();
  };
  json file = json::parse(kOldDdpm);
  file["prediciton_type"] = "sample";
  file["temperature"] = 1;
  file["_anything"] = 1;
  const std::string text = said([&] { facts(file.dump()); });
  EXPECT_THAT(text, AllOf(HasSubstr("unknown keys are ignored"), HasSubstr("'temperature'"),
                          HasSubstr("'prediciton_type'; did you mean 'prediction_type'")));
  EXPECT_EQ(std::ranges::count(text, '\n'), 1);
  for (const char* known : {kOldDdpm, kEuler, kDpmSolver})
    EXPECT_EQ(said([&] { facts(known); }), "");
}

TEST_F(Facts, RemediesAreThoseThatThereAre) {
  const std::string range = training_error(changed("clip_sample_range", 0.5));
  EXPECT_THAT(range, AllOf(HasSubstr("no setting is at fault for sample.clip_sample_range"),
                           HasSubstr("model.overrule_init=[sample.clip_sample_range]"),
                           Not(HasSubstr("delete"))));
  PretrainedFacts both = facts(kOldDdpm);  // 1000 timesteps, and a table of 50
  UNet2DConfig network;
  network.time_embedding_type = "learned";
  network.num_train_timesteps = 50;
  add_network_facts(network, "net/config.json", both);
  EXPECT_THAT(training_error(both),
              AllOf(HasSubstr("rows of its time embedding, is 50"),
                    HasSubstr("no setting is at fault for diffusion.num_train_timesteps"),
                    Not(HasSubstr("delete"))));
  EXPECT_THAT(training_error(facts(kOldDdpm), {"diffusion.prediction=sample"}),
              AllOf(HasSubstr("delete the setting diffusion.prediction"),
                    Not(HasSubstr("no setting is at fault"))));
  EXPECT_THAT(training_error(changed("clip_sample_range", 0.5), {"diffusion.prediction=sample"}),
              AllOf(HasSubstr("delete the setting diffusion.prediction"),
                    HasSubstr("no setting is at fault for sample.clip_sample_range")));
}

TEST_F(Facts, SchedulersOfEdmMeanSuchANetwork) {
  const PretrainedFacts euler = facts(R"({
    "_class_name": "EDMEulerScheduler", "_diffusers_version": "0.42.1",
    "final_sigmas_type": "zero", "num_train_timesteps": 1000, "prediction_type": "v_prediction",
    "rho": 6.0, "sigma_data": 0.6, "sigma_max": 40.0, "sigma_min": 0.01,
    "sigma_schedule": "karras"})");
  for (const auto& settings : {trained(euler), sampled(euler)}) {
    EXPECT_EQ(settings->diffusion.parameterization(), Parameterization::kEdm);
    EXPECT_EQ(settings->diffusion.prediction(), Prediction::kVPrediction);
    EXPECT_EQ(settings->diffusion.sigma_data(), 0.6);
    EXPECT_EQ(settings->sample.sigma_max(), 40);
    EXPECT_EQ(settings->sample.sigma_min(), 0.01);
    EXPECT_EQ(settings->sample.rho(), 6);
    EXPECT_TRUE(settings->diffusion.num_train_timesteps.is_default());
    EXPECT_NO_THROW(validate(*settings));
  }
  const auto silent = trained(facts(R"({"_class_name": "EDMDPMSolverMultistepScheduler"})"));
  EXPECT_EQ(silent->diffusion.parameterization(), Parameterization::kEdm);
  EXPECT_EQ(silent->diffusion.sigma_data(), 0.5);
  EXPECT_EQ(trained(facts(kOldDdpm))->diffusion.parameterization(), Parameterization::kVp);
  EXPECT_THAT(training_error(euler, {"diffusion.parameterization=vp"}),
              HasSubstr("EDMEulerScheduler is for networks of edm"));
  EXPECT_THAT(training_error(euler, {"diffusion.sigma_data=0.5"}), HasSubstr("sigma_data is 0.6"));
  EXPECT_THAT(
      data_error([&] {
        trained(facts(R"({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"})"));
      }),
      HasSubstr("known are epsilon, v_prediction"));
}

TEST_F(Facts, OnlyNamesThatAreNotKnownGetASuggestion) {
  for (const char* name :
       {"TCDScheduler", "LCMScheduler", "IPNDMScheduler", "VQDiffusionScheduler", "SCMScheduler",
        "CosineDPMSolverMultistepScheduler", "FlaxKarrasVeScheduler",
        "FlowMatchEulerDiscreteScheduler", "CogVideoXDDIMScheduler", "UnCLIPScheduler",
        "AmusedScheduler", "HeliosScheduler"})
    EXPECT_THAT(data_error([&] { changed("_class_name", name); }),
                AllOf(HasSubstr(name), Not(HasSubstr("did you mean"))));
}

TEST_F(Facts, OtherFamiliesAreNamed) {
  for (const auto& [name, word] :
       std::map<const char*, const char*>{{"FlowMatchEulerDiscreteScheduler", "flow matching"},
                                          {"ScoreSdeVeScheduler", "score-SDE"},
                                          {"ScoreSdeVpScheduler", "score-SDE"},
                                          {"KarrasVeScheduler", "score-SDE"},
                                          {"CosineDPMSolverMultistepScheduler", "EDM"},
                                          {"CMStochasticIterativeScheduler", "consistency"},
                                          {"LCMScheduler", "consistency"},
                                          {"TCDScheduler", "distilled"},
                                          {"VQDiffusionScheduler", "none of the schedulers"},
                                          {"DDPMSheduler", "did you mean 'DDPMScheduler'"}})
    EXPECT_THAT(data_error([&] { changed("_class_name", name); }),
                AllOf(HasSubstr(name), HasSubstr(word), HasSubstr("scheduler_config.json")));
  EXPECT_THAT(data_error([&] { changed("prediction_type", "flow_prediction"); }),
              HasSubstr("flow matching"));
  EXPECT_THAT(data_error([&] { changed("use_flow_sigmas", true); }), HasSubstr("flow matching"));
  EXPECT_THAT(data_error([&] { changed("timestep_type", "continuous"); }), HasSubstr("log sigma"));
  EXPECT_THAT(data_error([&] { facts(R"({"sigma_max": 80})"); }), HasSubstr("sigma"));
}

TEST_F(Facts, ValuesOfTheWrongKindAreNamed) {
  for (const auto& [key, value] : std::map<const char*, json>{{"beta_start", "small"},
                                                              {"beta_end", true},
                                                              {"num_train_timesteps", 10.5},
                                                              {"prediction_type", 3},
                                                              {"clip_sample", 1},
                                                              {"rescale_betas_zero_snr", "no"}})
    EXPECT_THAT(data_error([&] { changed(key, value); }), HasSubstr(key));
  EXPECT_THAT(data_error([&] { facts(R"({"_class_name": "DDPMScheduler", "beta_end": NaN})"); }),
              HasSubstr("beta_end is \"NaN\""));
  EXPECT_THAT(data_error([&] { trained(changed("beta_end", 2.0)); }), HasSubstr("beta_end"));
  EXPECT_EQ(trained(changed("num_train_timesteps", 100.0))->diffusion.num_train_timesteps(), 100);
  EXPECT_THROW(facts("[]"), DataError);
}

TEST_F(Facts, NetworksSaySizeChannelsAndRowsOfTheirTimeTable) {
  UNet2DConfig network;
  network.sample_size = {{16, 16}};
  network.in_channels = network.out_channels = 1;
  const auto of = [&] {
    PretrainedFacts found;
    add_network_facts(network, "net/config.json", found);
    return found;
  };
  const auto settings = trained(of());
  EXPECT_EQ(settings->data.image_size(), 16);
  EXPECT_EQ(settings->data.channels(), 1);
  EXPECT_EQ(settings->data.channels.provenance(), "config.json of model.init");
  EXPECT_TRUE(settings->diffusion.num_train_timesteps.is_default());
  EXPECT_THAT(training_error(of(), {"data.image_size=32", "data.channels=3"}),
              AllOf(HasSubstr("sample_size is 16"), HasSubstr("in_channels is 1")));
  EXPECT_EQ(trained(of(), {"data.image_size=32", "model.overrule_init=[data.image_size]"})
                ->data.image_size(),
            32);
  network.sample_size = {{16, 32}};
  EXPECT_THAT(data_error([&] { trained(of()); }), HasSubstr("equal sides"));
  network.sample_size.reset();
  network.time_embedding_type = "learned";
  network.num_train_timesteps = 50;
  EXPECT_EQ(trained(of())->diffusion.num_train_timesteps(), 50);
  EXPECT_THAT(training_error(of(), {"diffusion.num_train_timesteps=1000"}),
              HasSubstr("rows of its time embedding, is 50"));
}

}  // namespace
}  // namespace sfumato
