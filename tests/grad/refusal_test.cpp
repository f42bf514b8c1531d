// What has no per-example gradient, or has it twice, is refused before anything is added up.
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grad/small_network.h"
#include "nn/recorded_op.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/gradient_engine.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

using Loss = std::function<at::Tensor(Tape&)>;

class Refusal : public ::testing::Test {
 protected:
  std::string refused(const Loss& loss) {
    GradientEngine engine(network.parameters(), {});
    const std::string message = error_message<PrivacyError>(
        [&] { engine.accumulate(batch.examples, batch.draws, {}, loss); });
    EXPECT_EQ(norm_of(ClippedSumInspector::sums(engine.take())), 0) << "something was added up";
    return message;
  }

  SmallNetwork network;
  SmallBatch batch = SmallBatch::random(3, 2);
};

TEST_F(Refusal, AScalarLoss) {
  for (const bool sum : {true, false})
    EXPECT_THAT(refused([&](Tape& tape) {
                  const at::Tensor losses = batch.loss(network, &tape);
                  return sum ? losses.sum() : losses.mean();
                }),
                HasSubstr("one value for each of the 3 examples"));
}

TEST_F(Refusal, AScalarLossOfASingleExample) {
  const SmallBatch one = batch.part(0, 1);
  GradientEngine engine(network.parameters(), {});
  EXPECT_THROW(
      engine.accumulate(1, 2, {}, [&](Tape& tape) { return one.loss(network, &tape).sum(); }),
      PrivacyError);
}

TEST_F(Refusal, ALossOfAnotherLength) {
  EXPECT_THAT(refused([&](Tape& tape) { return batch.loss(network, &tape).narrow(0, 0, 2); }),
              HasSubstr("[2]"));
  EXPECT_THAT(refused([&](Tape& tape) { return batch.loss(network, &tape).repeat({2}); }),
              HasSubstr("[6]"));
  EXPECT_THAT(refused([&](Tape& tape) { return batch.loss(network, &tape).unsqueeze(1); }),
              HasSubstr("[3, 1]"));
}

TEST_F(Refusal, ALossThatReachesNoParameter) {
  EXPECT_THAT(refused([&](Tape&) { return at::ones({3}); }), HasSubstr("no trainable parameter"));
}

TEST_F(Refusal, UnusedParametersAreNamed) {
  EXPECT_THAT(refused([&](Tape& tape) {
                const at::Tensor h = network.conv2.forward(
                    network.norm.forward(network.conv1.forward(batch.x, &tape), &tape), &tape);
                const at::Tensor tokens =
                    h.flatten(2).transpose(1, 2).add(network.positions.forward(h.size(0), &tape));
                return network.linear.forward(tokens, &tape).reshape({3, -1}).sum({1});
              }),
              AllOf(HasSubstr("'classes.weight'"), HasSubstr("'layer_norm.bias'"),
                    Not(HasSubstr("conv1")), HasSubstr("model.trainable")));
}

TEST_F(Refusal, AParameterWhoseOutputIsDetachedIsNamed) {
  EXPECT_THAT(
      refused([&](Tape& tape) {
        const at::Tensor x = network.conv1.forward(batch.x, &tape).detach();
        const at::Tensor h = network.conv2.forward(network.norm.forward(x, &tape), &tape);
        const at::Tensor tokens =
            h.flatten(2)
                .transpose(1, 2)
                .add(network.classes.forward(batch.labels, &tape).unsqueeze(1))
                .add(network.positions.forward(h.size(0), &tape));
        return network.linear.forward(network.layer_norm.forward(tokens, &tape), &tape)
            .reshape({3, -1})
            .sum({1});
      }),
      AllOf(HasSubstr("'conv1.weight'"), HasSubstr("'conv1.bias'"), Not(HasSubstr("norm.weight"))));
}

TEST_F(Refusal, ATiedParameter) {
  EXPECT_THAT(refused([&](Tape& tape) {
                const at::Tensor a = batch.loss(network, &tape);
                return a.add(batch.loss(network, &tape));
              }),
              AllOf(HasSubstr("tied"), HasSubstr("conv1.weight")));
}

TEST_F(Refusal, ALayerThatTheEngineDoesNotKnow) {
  Linear stranger(3, 3);
  stranger.name_parameters("stranger.");
  EXPECT_THAT(refused([&](Tape& tape) {
                const at::Tensor out = network.forward(batch.x, batch.labels, &tape);
                return stranger.forward(out, &tape).reshape({3, -1}).sum({1});
              }),
              HasSubstr("stranger.weight"));
}

/// A layer whose backward hands over its gradient `times` times.
struct Repeating : Module {
  explicit Repeating(int times) : times_(times) {
    weight.value = at::ones({1});
    add_parameter("weight", weight);
    set_trainable(weight, true);
    name_parameters("repeating.");
  }
  at::Tensor forward(const at::Tensor& x, Tape* tape) {
    tape->expect(weight.name);
    return recorded_op(x, x.detach().clone(), [this, tape](const at::Tensor& dy, bool) {
      for (int i = 0; i < times_; ++i)
        tape->record(weight.name, {at::ones({2}, at::kDouble), {}, [](const ClipWeights& weights) {
                                     return weights.factors.sum().view({1});
                                   }});
      return dy;
    });
  }
  Parameter weight;

 private:
  int times_;
};

TEST(RefusalOfRules, ARuleThatRecordsTwiceOrNotAtAll) {
  for (const int times : {0, 1, 2}) {
    Repeating layer(times);
    GradientEngine engine(layer.parameters(), {});
    const auto run = [&] {
      engine.accumulate(2, 1, {}, [&](Tape& tape) { return layer.forward(at::ones({2}), &tape); });
    };
    if (times == 1) {
      EXPECT_NO_THROW(run());
    } else {
      EXPECT_THAT(error_message<PrivacyError>(run), HasSubstr("repeating.weight"));
    }
  }
}

// The leading dimension of every recorded layer is examples times draws.
TEST(RefusalOfRules, ALayerThatSeesOneRowForAllExamples) {
  Linear linear(2, 2);
  linear.name_parameters("shared.");
  GradientEngine engine(linear.parameters(), {});
  for (const at::Tensor& x : {at::ones({1, 2}), at::ones({1, 4, 2}), at::ones({6, 2})}) {
    EXPECT_THAT(error_message<PrivacyError>([&] {
                  engine.accumulate(2, 1, {}, [&](Tape& tape) {
                    return linear.forward(x, &tape).sum().expand({2});
                  });
                }),
                HasSubstr("shared.weight"));
  }
}

TEST(RefusalOfOptions, NothingTrainable) {
  SmallNetwork network;
  for (Parameter* p : network.parameters()) set_trainable(*p, false);
  EXPECT_THROW(GradientEngine(network.parameters(), {}), PrivacyError);
  EXPECT_THROW(GradientEngine({}, {}), PrivacyError);
}

TEST(RefusalOfOptions, AClipNormThatBoundsNothing) {
  SmallNetwork network;
  for (const double bad : {0.0, -1.0, std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN()})
    EXPECT_THROW(GradientEngine(network.parameters(), {Clipping::kFlat, bad, 0.01}), PrivacyError)
        << bad;
}

TEST(RefusalOfOptions, AutomaticClippingWithoutItsStabiliser) {
  SmallNetwork network;
  for (const double bad : {0.0, -0.5, std::numeric_limits<double>::quiet_NaN()})
    EXPECT_THROW(GradientEngine(network.parameters(), {Clipping::kAutomatic, 1.0, bad}),
                 PrivacyError)
        << bad;
}

}  // namespace
}  // namespace sfumato
