// The gradient engine on kernels, with every kind of layer in one network: what may not change the
// clipped sum, and how much one example may.
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>

#include <limits>

#include "emulated/on_kernels.h"
#include "grad/small_network.h"
#include "nn/recorded_op.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/isolation.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using namespace test;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

SmallBatch placed(const SmallBatch& batch, c10::Device device, Precision precision) {
  return {batch.examples,
          batch.draws,
          batch.x.to(device).to(type_of(precision)),
          batch.labels.to(device),
          batch.coefficients.to(device),
          batch.scale.to(device)};
}

class EngineOnKernels : public OnKernels, public ::testing::WithParamInterface<Precision> {
 protected:
  void SetUp() override {
    OnKernels::SetUp();
    if (IsSkipped()) return;
    precision_.emplace(GetParam());
    network_ = std::make_unique<SmallNetwork>();
    reference_ = std::make_unique<SmallNetwork>();
    const auto from = network_->parameters(), to = reference_->parameters();
    for (std::size_t j = 0; j < from.size(); ++j)
      to[j]->value.detach().copy_(from[j]->value.detach());
    here_.emplace();
    move_parameters(network_->parameters(), here_->device());
  }

  BatchStatistics add(GradientEngine& engine, const SmallBatch& batch,
                      const at::Tensor& mask = {}) {
    return accumulate(engine, *network_, placed(batch, here_->device(), GetParam()), mask);
  }
  /// Runs `work` with CPU tensors served by the CPU's own rules.
  template <class Work>
  auto on_cpu(const Work& work) {
    here_.reset();
    auto result = work(*reference_);
    here_.emplace();
    return result;
  }
  double tolerance() const { return tolerance_of(GetParam()); }

  std::optional<PrecisionScope> precision_;
  std::unique_ptr<SmallNetwork> network_, reference_;
  std::optional<KernelsServe> here_;
};

double median_norm(const BatchStatistics& statistics) {
  std::vector<double> norms = values_on_host(statistics.norm);
  std::sort(norms.begin(), norms.end());
  return 0.99 * norms[norms.size() / 2];
}

struct Reference {
  Tensors sums;
  at::Tensor loss, norm;
  BatchStatistics::Counts counts;
};

TEST_P(EngineOnKernels, AgreesWithTheCpu) {
  int turn = 0;
  for (const AlgorithmPolicy policy : different_policies()) {
    const Clipping clipping = kAllClippings[turn % 3];
    const SmallBatch batch = SmallBatch::random(4, 1 + turn % 3);
    ++turn;
    ClipOptions clip{clipping, 1.0, 0.1};
    const Reference wanted = on_cpu([&](SmallNetwork& network) {
      GradientEngine probe(network.parameters(), clip);
      clip.clip_norm_l2 = median_norm(accumulate(probe, network, batch));
      GradientEngine engine(network.parameters(), clip);
      const BatchStatistics statistics = accumulate(engine, network, batch);
      return Reference{taken(engine), statistics.loss, statistics.norm, statistics.counts()};
    });
    GradientEngine engine(network_->parameters(), clip, policy);
    const BatchStatistics statistics = add(engine, batch);
    const Tensors got = taken(engine);
    // Kernels' Gram norms hold a floor for sums that are cut (kernels/gram_norm.h), the CPU's do
    // not.
    const double allowed = (policy == AlgorithmPolicy::kGram ? 2 : 1) * tolerance();
    EXPECT_EQ(statistics.counts().counted, 4);
    EXPECT_EQ(statistics.counts().clipped, wanted.counts.clipped);
    EXPECT_LE(distance_on_host({statistics.norm}, {wanted.norm}),
              allowed * norm_on_host({wanted.norm}))
        << to_string(policy);
    EXPECT_LE(distance_on_host({statistics.loss}, {wanted.loss}),
              tolerance() * norm_on_host({wanted.loss}));
    EXPECT_LE(distance_on_host(got, wanted.sums), allowed * norm_on_host(wanted.sums))
        << to_string(policy);
  }
}

TEST_P(EngineOnKernels, TheSplitIntoPhysicalBatchesDoesNotMatter) {
  for (const Clipping clipping : kAllClippings) {
    const SmallBatch batch = SmallBatch::random(5, 2);
    ClipOptions clip{clipping, 1.0, 0.1};
    {
      GradientEngine probe(network_->parameters(), clip);
      clip.clip_norm_l2 = median_norm(add(probe, batch));
      (void)probe.take();
    }
    std::vector<Tensors> sums;
    for (const int64_t physical : {5, 1, 2, 3}) {
      GradientEngine engine(network_->parameters(), clip);
      for (int64_t first = 0; first < batch.examples; first += physical) {
        const int64_t real = std::min(physical, batch.examples - first);
        at::Tensor mask = at::zeros({physical});
        mask.narrow(0, 0, real).fill_(1.0);
        add(engine, batch.part(first, real).padded(physical), mask);
      }
      sums.push_back(taken(engine));
      // Sums in another order; a GPU's libraries may take another algorithm for another batch, and
      // where operands are rounded, a last bit of an activation grows to 2^-11 or 2^-8.
      const double tolerance = GetParam() == Precision::kBf16   ? 1e-2
                               : !on_gpu()                      ? 2e-6
                               : GetParam() == Precision::kFp32 ? 1e-5
                                                                : 1e-3;
      EXPECT_LE(distance_on_host(sums.back(), sums[0]), tolerance * norm_on_host(sums[0]))
          << physical;
    }
  }
}

TEST_P(EngineOnKernels, PaddingAddsNothingWhateverItHolds) {
  const SmallBatch batch = SmallBatch::random(2, 2);
  const at::Tensor mask = at::tensor({1.0f, 1.0f, 0.0f, 0.0f});
  for (const AlgorithmPolicy policy : different_policies()) {
    GradientEngine engine(network_->parameters(), {}, policy);
    SmallBatch padded = batch.padded(4);
    add(engine, padded, mask);
    const Tensors plain = taken(engine);
    EXPECT_GT(norm_on_host(plain), 0);
    padded.x.narrow(0, 4, 2).fill_(kNaN);
    padded.scale[3] = 1e30;
    const BatchStatistics statistics = add(engine, padded, mask);
    EXPECT_TRUE(same_bits(taken(engine), plain)) << to_string(policy);
    EXPECT_EQ(statistics.counts().counted, 2);
    EXPECT_EQ(statistics.counts().excluded, 0) << "padding is no example";
  }
}

TEST_P(EngineOnKernels, AnExampleThatIsNotFiniteHasWeightZeroAndTouchesNoOther) {
  for (const AlgorithmPolicy policy : different_policies()) {
    for (const double poison : {kNaN, kInfinity}) {
      const SmallBatch batch = SmallBatch::random(3, 2);
      GradientEngine engine(network_->parameters(), {}, policy);
      add(engine, batch, at::tensor({1.0f, 0.0f, 1.0f}));
      const Tensors without = taken(engine);
      ASSERT_GT(norm_on_host(without), 0);
      for (const bool in_loss : {true, false}) {
        SmallBatch poisoned = batch;
        poisoned.scale = batch.scale.clone();
        poisoned.x = batch.x.clone();
        if (in_loss) poisoned.scale[1] = poison;
        if (!in_loss) poisoned.x[3][0][4][4] = poison;
        const BatchStatistics::Counts counts = add(engine, poisoned).counts();
        EXPECT_EQ(counts.excluded, 1);
        EXPECT_EQ(counts.counted, 3);
        EXPECT_TRUE(same_bits(taken(engine), without))
            << to_string(policy) << ", " << poison << " in " << (in_loss ? "the loss" : "a pixel");
      }
    }
  }
}

TEST_P(EngineOnKernels, AnEmptyBatchIsASumOfZeros) {
  GradientEngine engine(network_->parameters(), {});
  for (const bool empty_pass : {false, true}) {
    if (empty_pass) {
      const BatchStatistics statistics = engine.accumulate(0, 2, {}, [](Tape&) -> at::Tensor {
        ADD_FAILURE() << "the network ran on nothing";
        return at::zeros({0});
      });
      EXPECT_EQ(statistics.counts().counted, 0);
    }
    const Tensors sums = taken(engine);
    ASSERT_EQ(sums.size(), engine.trainable().size());
    for (std::size_t j = 0; j < sums.size(); ++j)
      EXPECT_EQ(sums[j].sizes(), engine.trainable()[j]->value.sizes());
    EXPECT_EQ(norm_on_host(sums), 0);
  }
}

TEST_P(EngineOnKernels, ASumInUseKeepsItsBuffers) {
  const SmallBatch batch = SmallBatch::random(2, 1);
  GradientEngine engine(network_->parameters(), {});
  add(engine, batch);
  {
    const ClippedSum sum = engine.take();
    const double norm = norm_on_host(ClippedSumInspector::sums(sum));
    EXPECT_THAT(error_message<PrivacyError>([&] { add(engine, batch); }),
                ::testing::HasSubstr("still in use"));
    EXPECT_THAT(error_message<PrivacyError>([&] { (void)engine.take(); }),
                ::testing::HasSubstr("still in use"));
    EXPECT_EQ(norm_on_host(ClippedSumInspector::sums(sum)), norm);
    // What its owner leaves in the buffers is nobody's gradient.
    for (const at::Tensor& t : ClippedSumInspector::sums(sum)) at::Tensor(t).fill_(kNaN);
  }
  EXPECT_EQ(norm_on_host(taken(engine)), 0) << "taken again without a batch";
  { const ClippedSum again = engine.take(); }
  add(engine, batch);
  const Tensors first = taken(engine);
  EXPECT_GT(norm_on_host(first), 0);
  add(engine, batch);
  EXPECT_TRUE(same_bits(taken(engine), first)) << "every logical batch starts from zero";
  add(engine, batch);
  add(engine, batch);
  EXPECT_NEAR(norm_on_host(taken(engine)), 2 * norm_on_host(first), 1e-5 * norm_on_host(first));
}

/// Where memory runs out in a pass.
enum class Place { kBeforeForward, kAfterForward, kInBackward };

TEST_P(EngineOnKernels, WhereMemoryRunsOutTheSumIsAsItWas) {
  const SmallBatch first = SmallBatch::random(2, 2), second = SmallBatch::random(3, 2);
  for (const AlgorithmPolicy policy : {AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram}) {
    GradientEngine engine(network_->parameters(), {}, policy);
    add(engine, first);
    add(engine, second);
    const Tensors wanted = taken(engine);
    for (const Place where : {Place::kBeforeForward, Place::kAfterForward, Place::kInBackward}) {
      const auto run_out = [] { TORCH_CHECK_WITH(OutOfMemoryError, false, "made up by a test"); };
      add(engine, first);
      const SmallBatch batch = placed(second, here_->device(), GetParam());
      EXPECT_THROW(
          engine.accumulate(batch.examples, batch.draws, {},
                            [&](Tape& tape) {
                              if (where == Place::kBeforeForward) run_out();
                              const at::Tensor loss = batch.loss(*network_, &tape);
                              if (where == Place::kAfterForward) run_out();
                              if (where == Place::kInBackward)
                                loss.register_hook([&](const at::Tensor&) -> void { run_out(); });
                              return loss;
                            }),
          c10::OutOfMemoryError)
          << to_string(policy) << ", place " << static_cast<int>(where);
      add(engine, second);
      EXPECT_TRUE(same_bits(taken(engine), wanted))
          << to_string(policy) << ", place " << static_cast<int>(where);
    }
  }
}

/// A parameter whose part of the sum may need memory that is not there.
struct Greedy : Module {
  Parameter value;
  bool runs_out = false;
  Greedy() {
    value.value = at::zeros({2});
    add_parameter("greedy", value);
    set_trainable(value, true);
  }
  at::Tensor forward(const at::Tensor& x, Tape& tape) {
    tape.expect(value.name);
    return recorded_op(x, x.detach().clone(), [this, &tape](const at::Tensor& dy, bool) {
      PerExampleGradient gradient;
      gradient.squared_norm = at::zeros({tape.examples()}, dy.options().dtype(at::kDouble));
      gradient.clipped_sum = [this, like = dy](const ClipWeights&) {
        TORCH_CHECK_WITH(OutOfMemoryError, !runs_out, "made up by a test");
        return at::zeros({2}, like.options());
      };
      tape.record(value.name, std::move(gradient));
      return dy;
    });
  }
};

TEST_P(EngineOnKernels, WhereMemoryRunsOutInTheSumNothingWasAdded) {
  const SmallBatch first = SmallBatch::random(2, 1), second = SmallBatch::random(3, 1);
  Greedy greedy;
  move_parameters(greedy.parameters(), here_->device());
  std::vector<Parameter*> parameters = network_->parameters();
  parameters.push_back(&greedy.value);
  for (const AlgorithmPolicy policy : {AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram}) {
    GradientEngine engine(parameters, {}, policy);
    const auto add_with_greedy = [&](const SmallBatch& batch) {
      const SmallBatch on_device = placed(batch, here_->device(), GetParam());
      engine.accumulate(batch.examples, batch.draws, {}, [&](Tape& tape) {
        return greedy.forward(on_device.loss(*network_, &tape), tape);
      });
    };
    add_with_greedy(first);
    add_with_greedy(second);
    const Tensors wanted = taken(engine);
    ASSERT_GT(norm_on_host(wanted), 0);
    add_with_greedy(first);
    greedy.runs_out = true;
    EXPECT_THROW(add_with_greedy(second), c10::OutOfMemoryError);
    greedy.runs_out = false;
    add_with_greedy(second);
    EXPECT_TRUE(same_bits(taken(engine), wanted)) << to_string(policy);
  }
}

TEST_P(EngineOnKernels, IsolationIsVerified) {
  const SmallBatch own = placed(SmallBatch::random(1, 2), here_->device(), GetParam());
  const SmallBatch others[] = {placed(SmallBatch::random(1, 2), here_->device(), GetParam()),
                               placed(SmallBatch::random(1, 2), here_->device(), GetParam())};
  GradientEngine engine(network_->parameters(), {});
  const auto verify = [&](bool mixing) {
    verify_isolation(engine, 2, [&](Tape& tape, int variant) {
      const SmallBatch& other = others[variant];
      SmallBatch both{2,
                      2,
                      at::cat({own.x, other.x}),
                      at::cat({own.labels, other.labels}),
                      at::cat({own.coefficients, other.coefficients}),
                      at::cat({own.scale, other.scale})};
      if (mixing) both.x = both.x.sub(both.x.mean(at::IntArrayRef{0}, true));
      return both.loss(*network_, &tape);
    });
  };
  verify(false);
  EXPECT_EQ(norm_on_host(taken(engine)), 0);
  EXPECT_THROW(verify(true), PrivacyError);
}

TEST_P(EngineOnKernels, FrozenParametersAreLeftOut) {
  for (Parameter* p : {&network_->conv1.weight, &network_->norm.weight, &network_->norm.bias,
                       &network_->conv2.bias, &network_->classes.weight, &network_->linear.weight})
    set_trainable(*p, false);
  for (Parameter* p :
       {&reference_->conv1.weight, &reference_->norm.weight, &reference_->norm.bias,
        &reference_->conv2.bias, &reference_->classes.weight, &reference_->linear.weight})
    set_trainable(*p, false);
  const SmallBatch batch = SmallBatch::random(3, 2);
  const Reference wanted = on_cpu([&](SmallNetwork& network) {
    GradientEngine engine(network.parameters(), {});
    const BatchStatistics statistics = accumulate(engine, network, batch);
    return Reference{taken(engine), statistics.loss, statistics.norm, statistics.counts()};
  });
  GradientEngine engine(network_->parameters(), {});
  const BatchStatistics statistics = add(engine, batch);
  EXPECT_LE(distance_on_host({statistics.norm}, {wanted.norm}),
            tolerance() * norm_on_host({wanted.norm}));
  EXPECT_LE(distance_on_host(taken(engine), wanted.sums), tolerance() * norm_on_host(wanted.sums));
}

/// Plain autograd through the same layers: ordinary training on a GPU.
TEST_P(EngineOnKernels, GradientsWithoutATapeAreThoseOfTheCpu) {
  const SmallBatch batch = SmallBatch::random(3, 2);
  const auto gradients_of = [](SmallNetwork& network, const SmallBatch& inputs) {
    inputs.loss(network, nullptr).sum().backward();
    inputs.loss(network, nullptr).sum().backward();  // adds up
    Tensors all;
    for (Parameter* p : network.parameters()) all.push_back(host(p->value.grad()));
    return all;
  };
  const Tensors wanted =
      on_cpu([&](SmallNetwork& network) { return gradients_of(network, batch); });
  const Tensors got = gradients_of(*network_, placed(batch, here_->device(), GetParam()));
  EXPECT_LE(distance_on_host(got, wanted), tolerance() * norm_on_host(wanted));
}

INSTANTIATE_TEST_SUITE_P(Precisions, EngineOnKernels, ::testing::ValuesIn(kPrecisions),
                         [](const auto& each) { return to_string(each.param); });

}  // namespace
}  // namespace sfumato
