#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "sfumato/dist/communicator.h"
#include "sfumato/generate/objective.h"
#include "sfumato/grad/clipped_sum.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/grad/public_gradient.h"
#include "sfumato/nn/module.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

class GradientStep;
class Optimizer;

/// A physical batch of an audit: B examples of K draws each and how their losses arise.
struct ProbeBatch {
  int64_t examples = 0, draws = 1;
  at::Tensor mask;  ///< [B] float32: 1 real, 0 padding; undefined: all real
  /// [B]: the mean over each example's draws.
  std::function<at::Tensor(Tape*)> losses;
  /// [B K]: the loss of every draw by itself; empty where the network does not offer it. Only
  /// mechanisms that do wrong need it.
  std::function<at::Tensor(Tape*)> draw_losses;
  /// Whose losses they are, where a GradientStep computes them; `mask` goes for its own.
  std::optional<TrainingBatch> images;
  /// The same batch of `count` examples alone, from `first` on; without a mask. Only where several
  /// ranks share it.
  std::function<ProbeBatch(int64_t first, int64_t count)> part = {};
};

/// A training mechanism as an audit drives it, step by step. Production is ProductionMechanism;
/// whoever writes another one in its place (a test with a defect, a new back end) is audited alike.
/// Gradients are in the order of the trainable parameters, float32.
class MechanismUnderTest {
 public:
  virtual ~MechanismUnderTest() = default;
  /// Which of the records 0 ... records-1 join a step.
  virtual std::vector<int64_t> sample(int64_t step, int64_t records) = 0;
  /// Adds the clipped gradients of a physical batch to the sum of the step.
  virtual void accumulate(const ProbeBatch& batch) = 0;
  /// The sum so far, before noise; starts over. Looks only: nothing is charged.
  virtual std::vector<at::Tensor> take_clipped_sum() = 0;
  /// Ends the step: charge, noise, divisor, optimizer. Returns the gradient that the weights were
  /// moved by, as a plain SGD step of rate 1 shows it.
  virtual std::vector<at::Tensor> release(int64_t step) = 0;
  /// Noisy releases paid for so far.
  virtual int64_t charges() const = 0;
  /// Ends the session and starts the next one on the same ledger, as a resumed run does.
  virtual void resume() = 0;

  /// Which ranks take the steps, and which part of the weights each owns; null: one process. All
  /// calls but share() are then collective, return the same on every rank, and take the same
  /// batches there, of which each adds its share.
  virtual const ParameterSlices* slices() const { return nullptr; }
  /// Of a step's sample what this rank takes, cut into physical batches of `physical`.
  virtual std::vector<int64_t> share(const std::vector<int64_t>& sample, int64_t physical) const {
    (void)physical;
    return sample;
  }
};

/// Training's GradientStep, which is borrowed, and how it comes by a probe's batches.
struct GradientSource {
  std::function<void(const ProbeBatch&)> accumulate;
  GradientStep* step = nullptr;
  std::shared_ptr<Communicator> ranks = nullptr;  ///< of the step; null: this process alone
};
/// Its batches must hold `images`. `ranks`: those of the step.
GradientSource gradient_source(GradientStep& step, std::shared_ptr<Communicator> ranks = nullptr);

/// A GradientStep over batches that say themselves how their losses arise.
class ProbeStep {
 public:
  ProbeStep(std::vector<Parameter*> parameters, const ClipOptions& clip,
            std::shared_ptr<Communicator> ranks = nullptr);
  ~ProbeStep();
  GradientSource source();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// The TrainingMechanism that a trainer drives, between a source of gradients and an Optimizer,
/// with keys and a ledger of its own (in a temporary folder, in memory where there is one). Where
/// the source has ranks, each has one of these: the first leads and holds the ledger, the others
/// follow, as in training.
class ProductionMechanism : public MechanismUnderTest {
 public:
  /// `source`: clips as `plan` has it, else release() throws a PrivacyError, as in training.
  /// `test_seed`: keys for tests, on all ranks the same; without one they come from the operating
  /// system, as in training.
  ProductionMechanism(const MechanismPlan& plan, GradientSource source,
                      std::optional<uint64_t> test_seed = std::nullopt);
  ~ProductionMechanism() override;

  std::vector<int64_t> sample(int64_t step, int64_t records) override;
  void accumulate(const ProbeBatch& batch) override;
  std::vector<at::Tensor> take_clipped_sum() override;
  std::vector<at::Tensor> release(int64_t step) override;
  int64_t charges() const override;
  void resume() override;
  const ParameterSlices* slices() const override;
  std::vector<int64_t> share(const std::vector<int64_t>& sample, int64_t physical) const override;

 protected:
  /// What plain SGD of rate 1 makes of a gradient, starting at weights of zero.
  std::vector<at::Tensor> applied(NoisyGradient&& gradient) const;
  std::vector<at::Tensor> applied(PublicGradient&& gradient) const;
  const MechanismPlan& plan() const { return plan_; }
  GradientSource& source() { return source_; }

 private:
  std::vector<at::Tensor> moved_by(const std::function<void(Optimizer&)>& step) const;

  struct Session;
  MechanismPlan plan_;
  GradientSource source_;
  std::unique_ptr<Session> session_;
};

}  // namespace sfumato
