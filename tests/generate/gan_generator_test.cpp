#include "sfumato/generate/gan/generator.h"
#include "sfumato/generate/membership_scores.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "generate/tiny_gan.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/io/tensor_group.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

GanTraining training(int64_t discriminator_steps = 1, bool adaptive = false) {
  GanTraining all;
  all.objective = {.fakes = 2, .augmentation = {.horizontal_flip = true}};
  all.schedule = {.discriminator_steps = discriminator_steps, .adaptive = adaptive};
  all.generator_batch = 16;
  all.learning_rate = 0.01;
  all.optimizer.beta1 = 0.5;
  all.ema_decay = 0.9;
  all.seed = 4;
  return all;
}

std::unique_ptr<GanGenerator> gan(const GanTraining& how) {
  return std::make_unique<GanGenerator>(tiny_generator(), tiny_discriminator(), Placement{}, how);
}

TinyGenerator& painter(GanGenerator& gan) { return dynamic_cast<TinyGenerator&>(gan.generator()); }

NamedGroups copy_of(const NamedGroups& groups) {
  NamedGroups copy;
  for (const auto& [name, tensors] : groups) {
    NamedTensors values;
    for (const auto& [key, value] : tensors) values.emplace_back(key, value.clone());
    copy.emplace_back(name, values);
  }
  return copy;
}

/// Names of the groups that differ.
std::vector<std::string> changed(const NamedGroups& before, const NamedGroups& after) {
  std::vector<std::string> names;
  for (const auto& [name, tensors] : before) {
    const NamedTensors& others = group_of(after, name);
    for (std::size_t i = 0; i < tensors.size(); ++i)
      if (!at::equal(tensors[i].second, others.at(i).second)) {
        names.push_back(name);
        break;
      }
  }
  return names;
}

TEST(GanGenerator, StepsInItsTurnsAndLeavesTheDiscriminatorAlone) {
  const auto network = gan(training(3));
  const NamedGroups before = copy_of(network->state());
  network->after_release(0);
  network->after_release(1);
  EXPECT_THAT(changed(before, network->state()), ::testing::ElementsAre("schedule"));
  network->after_release(2);
  EXPECT_THAT(changed(before, network->state()),
              ::testing::UnorderedElementsAre(kReleasedGroup, kAverageGroup, "generator_optimizer",
                                              "schedule"));
  EXPECT_EQ(network->public_steps(), 1);
  // Its own steps left no gradients where the private ones look for theirs.
  for (const Parameter* parameter : network->discriminator().parameters()) {
    EXPECT_TRUE(parameter->value.requires_grad()) << parameter->name;
    EXPECT_FALSE(parameter->value.grad().defined()) << parameter->name;
  }
}

TEST(GanGenerator, LearnsWhatTheDiscriminatorTakesForReal) {
  GanTraining how = training();
  how.generator_steps = 100;
  const auto network = gan(how);
  const auto score = [&] {
    const at::NoGradGuard no_grad;
    const at::Tensor latents = at::zeros({4, kTinyLatent}), labels = at::zeros({4}, at::kLong);
    return network->discriminator()
        .forward(network->generator().forward(latents, labels, false), labels, nullptr)
        .mean()
        .item<float>();
  };
  const float before = score();
  network->after_release(0);
  EXPECT_GT(score(), before + 0.1F);
  EXPECT_EQ(network->public_steps(), 100);
}

TEST(GanGenerator, ModeSeekingDrivesFakesOfAClassApart) {
  const auto spread = [](double mode_seeking) {
    GanTraining how = training();
    how.generator_steps = 30;
    how.mode_seeking = mode_seeking;
    const auto network = gan(how);
    // The discriminator has no opinion.
    for (Parameter* parameter : network->discriminator().parameters())
      parameter->value.detach().zero_();
    network->after_release(0);
    const at::NoGradGuard no_grad;
    const at::Tensor images = network->generator().forward(
        at::randn({16, kTinyLatent}), at::zeros({16}, at::kLong), /*training=*/false);
    return (images - images.mean(0, true)).square().mean().sqrt().item<double>();
  };
  EXPECT_GT(spread(0.1), 1.5 * spread(0));
}

TEST(GanGenerator, GoesOnFromItsStateWithTheSameBits) {
  for (const bool adaptive : {false, true}) {
    GanTraining how = training(2, adaptive);
    how.schedule.patience = 2;
    how.schedule.threshold = 1;  // raised as often as may be
    const auto whole = gan(how);
    for (int64_t step = 0; step < 5; ++step) whole->after_release(step);
    const NamedGroups saved = copy_of(whole->state());
    GanTraining same = how;
    const auto again = std::make_unique<GanGenerator>(tiny_generator(11), tiny_discriminator(12),
                                                      Placement{}, same);
    again->load_state(saved);
    for (int64_t step = 5; step < 20; ++step) {
      whole->after_release(step);
      again->after_release(step);
    }
    EXPECT_THAT(changed(whole->state(), again->state()), IsEmpty());
    for (const auto& [group, tensors] : again->state())
      for (const auto& [name, value] : tensors)
        if (name == "discriminator_steps") {
          EXPECT_EQ(value.item<int64_t>() > 2, adaptive);
        }
  }
}

TEST(GanGenerator, IsAsBeforeWhereItBreaks) {
  GanTraining how = training(2);
  how.generator_steps = 2;
  const auto network = gan(how);
  for (int64_t step = 0; step < 3; ++step) network->after_release(step);
  const NamedGroups before = copy_of(network->state());
  painter(*network).broken = true;
  EXPECT_THAT(
      error_message<DataError>([&] { network->after_release(3); }),
      AllOf(HasSubstr("the generator broke in its step 3"), HasSubstr("after private step 4"),
            HasSubstr("--resume"), HasSubstr("gan.generator_learning_rate")));
  EXPECT_THAT(changed(before, network->state()), ::testing::ElementsAre("schedule"));
  EXPECT_TRUE(all_finite(network->state()));
  // The turn is still due: mended, it is taken before the next step.
  painter(*network).broken = false;
  network->catch_up(3, /*last=*/false);
  EXPECT_EQ(network->public_steps(), 4);
}

TEST(GanGenerator, ItsLastTurnTakesStepsThatWaitForOthers) {
  const auto network = gan(training(3));
  network->catch_up(-1, /*last=*/true);
  EXPECT_EQ(network->public_steps(), 0);
  network->after_release(0);
  network->catch_up(0, /*last=*/false);
  EXPECT_EQ(network->public_steps(), 0);
  network->catch_up(0, /*last=*/true);
  EXPECT_EQ(network->public_steps(), 1);
  network->catch_up(0, /*last=*/true);
  EXPECT_EQ(network->public_steps(), 1);
}

TEST(GanGenerator, AStepThatGoesTooFarIsTakenBack) {
  GanTraining how = training();
  how.learning_rate = 1e38;
  how.generator_steps = 3;
  const auto network = gan(how);
  const NamedGroups before = copy_of(network->state());
  EXPECT_THAT(error_message<DataError>([&] { network->after_release(0); }),
              HasSubstr("the generator broke"));
  EXPECT_THAT(changed(before, network->state()), ::testing::ElementsAre("schedule"));
}

TEST(GanGenerator, ABrokenDiscriminatorIsNamed) {
  const auto network = gan(training());
  {
    const at::NoGradGuard no_grad;
    network->discriminator().parameters()[0]->value.fill_(std::nanf(""));
  }
  EXPECT_THAT(error_message<DataError>([&] { network->after_release(6); }),
              AllOf(HasSubstr("the discriminator's weights are not finite after private step 7"),
                    HasSubstr("optimizer.learning_rate")));
  EXPECT_FALSE(all_finite(network->state()));
}

/// Without the layers that bound what a TinyDiscriminator says.
struct UnboundedDiscriminator : TinyDiscriminator {
  at::Tensor forward(const at::Tensor& images, const at::Tensor&, Tape* tape) override {
    return score.forward(hidden.forward(images.flatten(1), tape), tape).flatten();
  }
};

TEST(GanGenerator, ADiscriminatorOfHugeWeightsIsNamedAndNotTheGenerator) {
  auto unbounded = std::make_unique<UnboundedDiscriminator>();
  unbounded->initialise(2);
  const auto network = std::make_unique<GanGenerator>(tiny_generator(), std::move(unbounded),
                                                      Placement{}, training());
  EXPECT_EQ(network->defect(), "");
  {
    const at::NoGradGuard no_grad;
    for (Parameter* parameter : network->discriminator().parameters())
      parameter->value.copy_(parameter->value.sign() * 1e30);
  }
  const NamedGroups before = copy_of(network->state());
  EXPECT_TRUE(all_finite(before));
  EXPECT_THAT(network->defect(), HasSubstr("the discriminator's scores"));
  EXPECT_THAT(
      error_message<DataError>([&] { network->after_release(6); }),
      AllOf(HasSubstr("the discriminator's scores of finite images are not finite after "
                      "private step 7"),
            HasSubstr("a smaller optimizer.learning_rate"), Not(HasSubstr("generator broke"))));
  EXPECT_THAT(changed(before, network->state()), ::testing::ElementsAre("schedule"));
  EXPECT_THAT(network->defect(), HasSubstr("the discriminator's scores"));
  EXPECT_THAT(error_message<DataError>([&] { network->after_release(-1); }),
              HasSubstr("a smaller warmup.learning_rate"));
}

TEST(GanGenerator, WarnsWhereFakesOfAClassHardlyDiffer) {
  GanTraining how = training();
  how.learning_rate = 1e-12;
  const auto network = gan(how);
  /// As far apart within classes as `scale` says: the latents alone move the images.
  const auto warning_at = [&](double scale) {
    {
      const at::NoGradGuard no_grad;
      TinyGenerator& made = painter(*network);
      made.classes.weight.value.zero_();
      made.classes.weight.value[1].fill_(2);  // classes differ, which is nothing to the purpose
      made.hidden.weight.value.fill_(scale);
      made.image.weight.value.fill_(0.25);
    }
    network->after_release(0);
    return network->warning();
  };
  // Of the size of a collapsed class, which is nothing to be said of a generator that is new.
  EXPECT_EQ(warning_at(0.02), "");
  EXPECT_EQ(warning_at(1), "");
  EXPECT_EQ(warning_at(0.02), "fakes of a class hardly differ");
  EXPECT_EQ(warning_at(0), "fakes all alike");
  EXPECT_EQ(warning_at(1), "");
  how.generator_steps = 100;  // it has had its time
  const auto late = gan(how);
  {
    const at::NoGradGuard no_grad;
    painter(*late).image.weight.value.mul_(0.1);
  }
  late->after_release(0);
  EXPECT_EQ(late->warning(), "fakes of a class hardly differ");
}

TEST(GanGenerator, SaysWhereTheDiscriminatorsStepsAreRaised) {
  GanTraining how = training(1, /*adaptive=*/true);
  how.schedule.threshold = 1;
  how.schedule.patience = 2;
  const auto network = gan(how);
  ::testing::internal::CaptureStderr();
  network->after_release(0);
  network->after_release(1);
  EXPECT_THAT(
      ::testing::internal::GetCapturedStderr(),
      AllOf(HasSubstr("2 discriminator steps a turn; it finds "), HasSubstr(" % of fakes")));
}

TEST(GanGenerator, WarnsWhereAllFakesAreAlike) {
  GanTraining how = training();
  how.learning_rate = 1e-12;
  const auto network = gan(how);
  network->after_release(0);
  EXPECT_EQ(network->warning(), "");
  {
    const at::NoGradGuard no_grad;
    painter(*network).image.weight.value.zero_();
  }
  network->after_release(1);
  EXPECT_EQ(network->warning(), "fakes all alike");
}

TEST(GanGenerator, ReleasesAveragesWithTheRunningStatistics) {
  const auto network = gan(training());
  for (int64_t step = 0; step < 4; ++step) network->after_release(step);
  const NamedTensors released = network->released_weights();
  const NamedTensors own = named_state(network->generator());
  const NamedTensors& average = group_of(network->state(), kAverageGroup);
  ASSERT_EQ(released.size(), own.size());
  for (const auto& [name, value] : released) {
    const auto found = std::ranges::find(average, name, &NamedTensors::value_type::first);
    if (name == "mean")
      EXPECT_TRUE(at::equal(value, painter(*network).mean));
    else
      EXPECT_TRUE(found != average.end() && at::equal(value, found->second)) << name;
  }
  EXPECT_FALSE(at::equal(released[0].second, own[0].second));
}

TEST(GanGenerator, NetworksOfUnlikeImagesOrClassesAreRefused) {
  const auto mismatch = [](const ImageShape& shape, int64_t classes) {
    return error_message<DataError>([&] {
      GanGenerator(std::make_unique<TinyGenerator>(),
                   std::make_unique<TinyDiscriminator>(shape, classes), Placement{}, training());
    });
  };
  EXPECT_THAT(mismatch({1, 8, 8}, kTinyClasses),
              AllOf(HasSubstr("images of 1 x 4 x 4"), HasSubstr("takes 1 x 8 x 8"),
                    HasSubstr("gan.discriminator_config")));
  EXPECT_THAT(mismatch({3, 4, 4}, kTinyClasses), HasSubstr("takes 3 x 4 x 4"));
  EXPECT_THAT(mismatch(kTinyShape, 5),
              HasSubstr("the generator has 2 classes and the discriminator 5"));
}

TEST(GanGenerator, SaysWhichImagesItCannotBeTrainedOn) {
  const auto network = gan(training());
  const auto config = load_config(std::nullopt, std::vector<std::string>{"data.num_classes=2"});
  EXPECT_EQ(network->misfit(kTinyShape, *config), "");
  EXPECT_THAT(network->misfit({3, 4, 4}, *config), HasSubstr("4x4 with 3 channels"));
  EXPECT_THAT(network->misfit({1, 5, 4}, *config), HasSubstr("4x5"));
  EXPECT_THAT(network->misfit(kTinyShape, Config{}), HasSubstr("2 classes, data.num_classes is 0"));
}

TEST(GanGenerator, TheClassTableOfTheDiscriminatorHasItsOwnRate) {
  const auto network = gan(training());
  const auto config = load_config(
      std::nullopt, std::vector<std::string>{"optimizer.class_embedding_learning_rate_scale=7"});
  set_trainable(*network->discriminator().parameters().front(), false);
  std::vector<double> expected;
  for (const Parameter* parameter : network->discriminator().parameters())
    if (parameter->trainable) expected.push_back(parameter->name == "classes.weight" ? 7.0 : 1.0);
  EXPECT_EQ(std::ranges::count(expected, 7.0), 1);
  EXPECT_EQ(network->rate_scales(*config), expected);
}

TEST(GanGenerator, ACheckpointOfOtherNetworksIsRefused) {
  const auto network = gan(training());
  NamedGroups swapped = copy_of(network->state());
  for (auto& [name, tensors] : swapped)
    if (name == "model") tensors = named_state(network->discriminator());
  EXPECT_THAT(error_message<DataError>([&] { network->load_state(swapped); }),
              HasSubstr("its generator"));
  NamedGroups diffusion = {{kReleasedGroup, named_state(network->generator())}};
  EXPECT_THAT(error_message<DataError>([&] { network->load_state(diffusion); }),
              HasSubstr("another family"));
}

TEST(GanGenerator, DrawsImagesThatDependOnTheirNamesAlone) {
  const auto network = gan(training());
  const auto config = load_config(std::nullopt, std::vector<std::string>{"sample.seed=3"});
  const auto sampler = network->sampler(*config, {kTinyShape, true, std::nullopt});
  const std::vector<ImageId> all = {{0, 0}, {1, 0}, {0, 1}, {1, 7}};
  const at::Tensor together = sampler->draw(all);
  ASSERT_EQ(together.sizes(), (std::vector<int64_t>{4, 4, 4, 1}));
  for (std::size_t i = 0; i < all.size(); ++i) {
    const at::Tensor alone = sampler->draw(std::span(all).subspan(i, 1));
    const at::Tensor distance =
        (alone[0].to(at::kInt) - together[static_cast<int64_t>(i)].to(at::kInt)).abs();
    EXPECT_LE(distance.max().item<int>(), 1);
  }
  EXPECT_FALSE(at::equal(together[0], together[1]));
  EXPECT_FALSE(at::equal(together[0], together[2]));
  EXPECT_EQ(sampler->settings()["family"], "gan");
}

TEST(GanGenerator, SettingsOfDiffusionAreRefusedWhereSomebodyAsksForThem) {
  const auto network = gan(training());
  const auto draw_with = [&](const std::string& setting) {
    const auto config = load_config(std::nullopt, std::vector<std::string>{setting});
    network->sampler(*config, {kTinyShape, true, std::nullopt});
  };
  EXPECT_THAT(error_message<UsageError>([&] { draw_with("sample.guidance=2"); }),
              AllOf(HasSubstr("sample.guidance is 2"), HasSubstr("command line")));
  EXPECT_THAT(error_message<UsageError>([&] { draw_with("sample.sampler=ddpm"); }),
              HasSubstr("sample.sampler"));
  draw_with("sample.steps=50");  // as every run's own configuration says
  draw_with("sample.batch=3");
}

TEST(GanGenerator, TheDiscriminatorTellsMembersApart) {
  const auto network = gan(training());
  const at::Tensor images = at::zeros({3, 1, 4, 4}), labels = at::zeros({3}, at::kLong);
  const auto config = load_config(std::nullopt, {});
  const at::Tensor scores = network->membership_scorer(*config, {})->score(images, labels);
  EXPECT_TRUE(at::equal(scores.squeeze(1).to(at::kFloat),
                        network->discriminator().forward(images, labels, nullptr).neg()));
  GanGenerator released(tiny_generator(), nullptr, Placement{}, "somewhere");
  EXPECT_NE(released.attack_obstacle(), "");
}

}  // namespace
}  // namespace sfumato
