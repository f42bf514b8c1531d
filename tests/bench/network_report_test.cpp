// What doctor says a configuration takes, against the networks' own numbers of parameters.
#include "sfumato/bench/network_report.h"

#include <gtest/gtest.h>

#include "audit/gan_family.h"
#include "sfumato/generate/diffusion/network.h"
#include "sfumato/models/gan_networks.h"
#include "sfumato/models/unet2d.h"

namespace sfumato {
namespace {

using namespace test;

int64_t elements(Module& network) {
  int64_t count = 0;
  for (const Parameter* parameter : network.parameters()) count += parameter->value.numel();
  return count;
}

/// Counts of steps and running statistics are small beside the weights.
void expect_numbers(int64_t bytes, int64_t numbers) {
  EXPECT_NEAR(static_cast<double>(bytes), 4.0 * static_cast<double>(numbers),
              0.03 * 4 * static_cast<double>(numbers));
}

using NetworkReports = GanFamily;

TEST_F(NetworkReports, AGanIsCountedWhole) {
  const NetworkReport report = report_network(*config("run", gan()));
  const int64_t judge = elements(*make_discriminator_network(discriminator(), "a test's"));
  const int64_t painter = elements(*make_generator_network(generator(), "a test's"));
  EXPECT_EQ(report.network, "discriminator");
  EXPECT_EQ(report.parameters, judge);
  // The discriminator and two moments, without an average; the generator, its average and two
  // moments, and all of these once more while it steps.
  expect_numbers(report.state_bytes, 3 * judge + 8 * painter);
  const NetworkReport plain =
      report_network(*config("run", gan({"optimizer.name=sgd", "optimizer.momentum=0"})));
  EXPECT_EQ(report.state_bytes - plain.state_bytes, 8 * judge);
}

TEST_F(NetworkReports, ADiffusionNetworkHasAnAverageAndTwoMoments) {
  const auto settings = config("run");
  const NetworkReport report = report_network(*settings);
  EXPECT_EQ(report.network, "network");
  expect_numbers(report.state_bytes, 4 * elements(*make_network(*settings)));
}

}  // namespace
}  // namespace sfumato
