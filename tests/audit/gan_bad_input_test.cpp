// What a GAN cannot be trained on or from: refused by name before a record is looked at, or
// reported.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
#include <sstream>

#include "audit/gan_family.h"
#include "generate/tiny_gan.h"
#include "sfumato/core/error.h"
#include "sfumato/models/gan_networks.h"
#include "sfumato/train/gradient_step.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

namespace fs = std::filesystem;
constexpr const char* kWeightsFile = "diffusion_pytorch_model.safetensors";

class GanBadInput : public GanFamily {
 protected:
  /// Settings that take both networks from `init`.
  std::vector<std::string> from(const fs::path& init) const {
    return gan(
        {"gan.generator_config=", "gan.discriminator_config=", "model.init=" + init.string()});
  }
  /// Empty folders may be there, as another start finds them.
  void expect_nothing_begun() const {
    EXPECT_FALSE(fs::exists(folder / "run" / "config.yaml"));
    EXPECT_FALSE(fs::exists(folder / "run" / "ledger.jsonl"));
  }
};

TEST_F(GanBadInput, LayersThatNormaliseOverABatchAreRefused) {
  const auto refusal = [&](const nlohmann::json& judge) {
    write("discriminator", judge);
    return error_message<Error>([&] { start("run", gan()); });
  };
  nlohmann::json judge = discriminator();
  judge["norm"] = "batch";
  EXPECT_THAT(refusal(judge), AllOf(HasSubstr("gan.discriminator_config '"),
                                    HasSubstr("discriminator.json': \"norm\": \"batch\""),
                                    HasSubstr("batch normalisation"), HasSubstr("clipping")));
  // Nothing is clipped without privacy: another reason.
  EXPECT_THAT(error_message<UsageError>([&] { start("run", gan({"privacy.enabled=false"})); }),
              AllOf(HasSubstr("discriminator.json': \"norm\""), Not(HasSubstr("clipping")),
                    HasSubstr("performance.physical_batch")));
  judge["norm"] = "instance";  // whose answer proposes nothing that is refused next
  EXPECT_THAT(refusal(judge),
              AllOf(HasSubstr("norm"), HasSubstr("'instance' is none of none, group, spectral"),
                    Not(HasSubstr("batch"))));
  judge = discriminator();
  judge["minibatch_stddev"] = true;
  EXPECT_THAT(refusal(judge), AllOf(HasSubstr("discriminator.json"), HasSubstr("minibatch_stddev"),
                                    HasSubstr("the others of its batch")));
  const nlohmann::json residual = {{"_class_name", "ResnetGANDiscriminator"},
                                   {"sample_size", 8},
                                   {"in_channels", 1},
                                   {"block_out_channels", {8, 8}},
                                   {"downsample_blocks", 1},
                                   {"norm", "batch"},
                                   {"num_class_embeds", 2}};
  EXPECT_THAT(refusal(residual), AllOf(HasSubstr("norm"), HasSubstr("'batch'")));
  expect_nothing_begun();
}

/// Compares each image with the mean of its batch, by no layer that anybody would know by name.
struct MixingDiscriminator : TinyDiscriminator {
  at::Tensor forward(const at::Tensor& images, const at::Tensor& labels, Tape* tape) override {
    return TinyDiscriminator::forward(images - images.mean(0, /*keepdim=*/true), labels, tape);
  }
};

TEST_F(GanBadInput, ADiscriminatorThatMixesRecordsIsRefused) {
  const auto verify = [](std::unique_ptr<DiscriminatorNetwork> judge) {
    GanTraining training;
    training.objective.fakes = 2;
    GanGenerator generator(tiny_generator(), std::move(judge), Placement{}, training);
    GradientStep(generator.objective(), ClipOptions{}, StepOptions{}).verify();
  };
  EXPECT_NO_THROW(verify(tiny_discriminator()));
  auto mixing = std::make_unique<MixingDiscriminator>();
  mixing->initialise(2);
  EXPECT_THAT(error_message<PrivacyError>([&] { verify(std::move(mixing)); }),
              HasSubstr("the network mixes examples"));
}

TEST_F(GanBadInput, ACheckpointOfTheOtherNetworkIsNoStart) {
  start("public", gan({"privacy.enabled=false", "gan.release_discriminator=true"}));
  const fs::path release = folder / "public/release";
  const auto refusal = [&](const fs::path& init) {
    return error_message<DataError>([&] { start("run", from(init)); });
  };
  const auto copied = [&](const char* name, const char* generator, const char* discriminator) {
    fs::create_directories(folder / name);
    fs::copy(release / generator, folder / name / "generator");
    fs::copy(release / discriminator, folder / name / "discriminator");
    return folder / name;
  };
  EXPECT_THAT(refusal(release / "discriminator"),
              AllOf(HasSubstr("discriminator/config.json"),
                    HasSubstr("DCGANDiscriminator is a discriminator, and a generator belongs")));
  EXPECT_THAT(refusal(copied("exchanged", "discriminator", "generator")),
              AllOf(HasSubstr("exchanged/generator/config.json"),
                    HasSubstr("DCGANDiscriminator is a discriminator")));
  EXPECT_THAT(refusal(copied("twice", "generator", "generator")),
              AllOf(HasSubstr("twice/discriminator/config.json"),
                    HasSubstr("DCGANGenerator is a generator, and a discriminator belongs")));
  // Weights alone, under the right description.
  const fs::path mixed = copied("mixed", "generator", "discriminator");
  write_file_atomic(mixed / "generator" / kWeightsFile,
                    read_file(release / "discriminator" / kWeightsFile));
  EXPECT_THAT(refusal(mixed), AllOf(HasSubstr("mixed/generator"), HasSubstr("do not fit")));
  expect_nothing_begun();
}

TEST_F(GanBadInput, NetworksOfAnotherFamilyAreNoStart) {
  start("gan", gan());
  start("diffusion");
  EXPECT_THAT(
      error_message<UsageError>([&] { start("run", from(folder / "diffusion/release")); }),
      AllOf(HasSubstr("command line: model.init"), HasSubstr("of the family diffusion"),
            HasSubstr("model.family is gan (command line)"), HasSubstr("model.family=diffusion")));
  EXPECT_THAT(error_message<UsageError>([&] {
                start("run", {"model.config=", "model.init=" + (folder / "gan/release").string()});
              }),
              AllOf(HasSubstr("of the family gan"), HasSubstr("model.family is diffusion")));
  expect_nothing_begun();
}

TEST_F(GanBadInput, ACollapsedGeneratorIsReportedInTheProgressLine) {
  // A generator whose parameters are `scale` times those of a new one, and which learns next to
  // nothing: of 0 it draws the same grey whatever it is given.
  const auto last_line = [&](const std::string& run, double scale) {
    forget_uses();  // weights of another run are no start
    const auto network = make_generator_network(generator(), "a test's");
    network->initialise(1);
    {
      const at::NoGradGuard no_grad;
      for (Parameter* parameter : network->parameters()) parameter->value.mul_(scale);
    }
    const fs::path init = folder / (run + "-start");
    save_gan_network(init / "generator", network->config(), named_state(*network));
    std::ostringstream shown;
    std::streambuf* const before = std::cerr.rdbuf(shown.rdbuf());
    start(run, gan({"gan.generator_config=", "model.init=" + init.string(),
                    "gan.generator_learning_rate=1e-12"}));
    std::cerr.rdbuf(before);
    const std::string text = shown.str();
    return text.substr(text.rfind("step "));
  };
  EXPECT_THAT(last_line("well", 3),
              AllOf(HasSubstr("step 6/6"), ::testing::Not(HasSubstr("warning"))));
  EXPECT_THAT(last_line("flat", 0),
              AllOf(HasSubstr("step 6/6"), HasSubstr("warning: fakes all alike")));
  EXPECT_EQ(ledger("flat").charged_steps, 6);
}

}  // namespace
}  // namespace sfumato
