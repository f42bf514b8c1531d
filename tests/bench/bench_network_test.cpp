#include "sfumato/bench/bench_network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "sfumato/bench/micro_benchmarks.h"
#include "sfumato/bench/step_benchmark.h"
#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "support/shared_folder.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::filesystem::path network_file(const std::string& name) {
  return test::source_folder() / "configs/networks" / (name + ".json");
}

const std::filesystem::path kDiscriminator = network_file("gan_smoke_discriminator"),
                            kGenerator = network_file("gan_smoke_generator");

TEST(BenchNetwork, BuiltInGansAreThoseOfTheConfigurations) {
  for (const auto& [name, file] :
       {std::pair{"dcgan28", "dcgan_28"}, std::pair{"resnet-gan28", "resnet_gan_28"}}) {
    const json network = builtin_step_case(name).network;
    const json expected = describe_networks(network_file(std::string(file) + "_discriminator"),
                                            network_file(std::string(file) + "_generator"));
    EXPECT_EQ(network, expected) << name;
  }
}

TEST(BenchNetwork, AFolderWithBothNetworksIsAPair) {
  const test::TempFolder folder;
  for (const auto& [name, file] :
       {std::pair{"generator", kGenerator}, std::pair{"discriminator", kDiscriminator}}) {
    std::filesystem::create_directories(folder.path() / name);
    write_json_atomic(folder.path() / name / "config.json",
                      nlohmann::ordered_json(read_json(file)));
  }
  EXPECT_EQ(describe_networks(folder.path()), describe_networks(kDiscriminator, kGenerator));
  std::filesystem::remove_all(folder.path() / "discriminator");
  EXPECT_EQ(describe_networks(folder.path()), read_json(kGenerator));
  EXPECT_THROW(describe_networks(folder.path() / "nothing"), DataError);
}

TEST(BenchNetwork, NetworksThatDoNotBelongTogetherAreRefused) {
  EXPECT_THROW(describe_networks(kDiscriminator, network_file("dcgan_64_generator")), DataError);
  EXPECT_THROW(describe_networks(kGenerator, kDiscriminator), DataError);
  EXPECT_THROW(describe_networks(kGenerator, kGenerator), DataError);
}

std::string refused_step(const StepCase& step_case) {
  try {
    StepBenchmark benchmark(step_case, AlgorithmPolicy::kAuto);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(BenchNetwork, HalfAGanTakesNoPrivateStep) {
  EXPECT_THAT(refused_step(step_case_from(kDiscriminator)), HasSubstr("--generator"));
  EXPECT_THAT(refused_step(step_case_from(kGenerator)), HasSubstr("takes no private step"));
  StepCase alone = step_case_from(kDiscriminator, kGenerator);
  EXPECT_EQ(alone.draws, 2);
  alone.draws = 1;
  EXPECT_THAT(refused_step(alone), HasSubstr("at least one fake"));
}

TEST(BenchNetwork, BothStepsOfADiscriminatorAreTimed) {
  StepCase step_case = step_case_from(kDiscriminator, kGenerator);
  step_case.examples = 4;
  step_case.draws = 3;
  StepBenchmark benchmark(step_case, AlgorithmPolicy::kAuto);
  EXPECT_EQ(benchmark.parameters(), 5'113);  // of the discriminator alone
  for (const StepKind kind : {StepKind::kPlain, StepKind::kPrivate}) {
    EXPECT_GT(benchmark.run(kind), 0);
    EXPECT_GT(benchmark.run_gradient(kind), 0);
  }
  EXPECT_FALSE(benchmark.choices().empty());
}

TEST(BenchNetwork, AGeneratorDrawsBesideAUNet) {
  const json networks[] = {read_json(kGenerator), builtin_step_case("small").network};
  EXPECT_FALSE(draws_in_steps(networks[0]));
  EXPECT_TRUE(draws_in_steps(networks[1]));
  const std::vector<SampleTimings> timings =
      benchmark_sampling(networks, {.batch = 2, .steps = 3, .repeat = 2});
  ASSERT_EQ(timings.size(), 2u);
  EXPECT_EQ(timings[0].steps, 1);
  EXPECT_EQ(timings[1].steps, 3);
  for (const SampleTimings& t : timings) {
    EXPECT_EQ(t.batch, 2);
    EXPECT_GT(t.images_per_s(), 0);
  }
  EXPECT_GT(timings[0].images_per_s(), timings[1].images_per_s());
  const json discriminator[] = {read_json(kDiscriminator)};
  EXPECT_THROW(benchmark_sampling(discriminator, {}), UsageError);
  EXPECT_THROW(benchmark_sampling(networks, {.batch = 0}), UsageError);
}

}  // namespace
}  // namespace sfumato
