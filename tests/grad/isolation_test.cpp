#include "sfumato/grad/isolation.h"

#include <ATen/Context.h>
#include <ATen/ops/roll.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "grad/small_network.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::HasSubstr;

using Mixer = std::function<at::Tensor(const at::Tensor& hidden)>;

/// Two linear layers with something between them that may look at the whole batch.
struct TwoLayers : Module {
  Linear first{4, 6}, second{6, 2};
  TwoLayers() {
    add_child("first", first);
    add_child("second", second);
    name_parameters();
    at::manual_seed(1);  // a leak may be too small to see for one example in a hundred
    for (Parameter* p : parameters()) p->value.detach().copy_(at::randn(p->value.sizes()));
  }
};

class Isolation : public ::testing::TestWithParam<int64_t> {
 protected:
  void verify(const Mixer& mixer) {
    const int64_t draws = GetParam();
    const at::Tensor own = at::randn({draws, 4});
    const at::Tensor other[] = {at::randn({draws, 4}), at::randn({draws, 4})};
    const at::Tensor target = at::randn({2 * draws, 2});
    GradientEngine engine(network.parameters(), {});
    const auto leave_nothing = [&] {
      EXPECT_EQ(norm_of(ClippedSumInspector::sums(engine.take())), 0);
    };
    try {
      verify_isolation(engine, draws, [&](Tape& tape, int variant) {
        const at::Tensor x = at::cat({own, other[variant]});
        const at::Tensor h = mixer(network.first.forward(x, &tape)).tanh();
        return network.second.forward(h, &tape).sub(target).square().view({2, -1}).mean(1);
      });
    } catch (...) {
      leave_nothing();
      throw;
    }
    leave_nothing();
  }

  void refuse(const Mixer& mixer) {
    EXPECT_THAT(error_message<PrivacyError>([&] { verify(mixer); }), HasSubstr("mixes examples"));
  }

  TwoLayers network;
};

TEST_P(Isolation, PassesANetworkWhoseExamplesStayApart) {
  verify([](const at::Tensor& h) { return h; });
  // Statistics over the features of one example are its own business.
  verify([](const at::Tensor& h) { return h.sub(h.mean(at::IntArrayRef{1}, true)); });
}

TEST_P(Isolation, RefusesBatchStatistics) {
  refuse([](const at::Tensor& h) { return h.sub(h.mean(at::IntArrayRef{0}, true)); });
  refuse(
      [](const at::Tensor& h) { return h.div(h.std(at::IntArrayRef{0}, false, true).add(0.1)); });
}

TEST_P(Isolation, RefusesAnExampleThatReadsAnother) {
  refuse([](const at::Tensor& h) { return at::roll(h, h.size(0) / 2, 0); });
}

// The forward pass of the first example is clean; its gradient is not.
TEST_P(Isolation, RefusesALeakIntoTheGradientAlone) {
  refuse([](const at::Tensor& h) {
    const int64_t half = h.size(0) / 2;
    const at::Tensor mine = h.narrow(0, 0, half), theirs = h.narrow(0, half, half);
    return at::cat({mine, theirs.mul(mine)});
  });
}

INSTANTIATE_TEST_SUITE_P(Draws, Isolation, ::testing::Values(1, 3));

TEST(IsolationOfLosses, RefusesAMeanThatPosesAsOneLossPerExample) {
  Linear linear(3, 1);
  linear.name_parameters();
  linear.weight.value.detach().fill_(0.5);
  const at::Tensor own = at::randn({1, 3});
  const at::Tensor other[] = {at::randn({1, 3}), at::randn({1, 3})};
  GradientEngine engine(linear.parameters(), {});
  EXPECT_THROW(verify_isolation(engine, 1,
                                [&](Tape& tape, int variant) {
                                  return linear.forward(at::cat({own, other[variant]}), &tape)
                                      .square()
                                      .mean()
                                      .expand({2});
                                }),
               PrivacyError);
}

// What the tape does not see would get a gradient that nobody clips: a second network, as that
// which makes a discriminator's fakes, and a layer that is called once more without the tape.
TEST(IsolationOfLosses, RefusesALossThatReachesParametersPastTheTape) {
  Linear trained(3, 1), other(3, 3);
  trained.name_parameters();
  trained.weight.value.detach().fill_(0.5);
  other.weight.value.detach().fill_(0.25);
  const at::Tensor own = at::randn({1, 3});
  const at::Tensor second[] = {at::randn({1, 3}), at::randn({1, 3})};
  const auto verify = [&](const std::function<at::Tensor(const at::Tensor&, Tape&)>& loss) {
    GradientEngine engine(trained.parameters(), {});
    verify_isolation(engine, 1, [&](Tape& tape, int variant) {
      return loss(at::cat({own, second[variant]}), tape).square().flatten();
    });
  };
  const auto refused = [&](const std::function<at::Tensor(const at::Tensor&, Tape&)>& loss) {
    EXPECT_THAT(error_message<PrivacyError>([&] { verify(loss); }), HasSubstr("past the tape"));
  };
  refused([&](const at::Tensor& x, Tape& tape) {
    return trained.forward(other.forward(x, nullptr), &tape);
  });
  refused([&](const at::Tensor& x, Tape& tape) {
    return trained.forward(x, &tape).add(trained.forward(x, nullptr));
  });
  EXPECT_NO_THROW(verify([&](const at::Tensor& x, Tape& tape) {
    return trained.forward(other.forward(x, nullptr).detach(), &tape);
  }));
}

// Where everything is NaN nothing can be compared.
TEST(IsolationOfLosses, RefusesANetworkThatIsNotFinite) {
  Linear linear(3, 1);
  linear.name_parameters();
  linear.weight.value.detach().fill_(std::numeric_limits<float>::quiet_NaN());
  GradientEngine engine(linear.parameters(), {});
  EXPECT_THAT(error_message<PrivacyError>([&] {
                verify_isolation(engine, 1, [&](Tape& tape, int) {
                  return linear.forward(at::ones({2, 3}), &tape).squeeze(1);
                });
              }),
              HasSubstr("not finite"));
}

}  // namespace
}  // namespace sfumato
