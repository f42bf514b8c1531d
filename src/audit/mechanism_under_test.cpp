#include "sfumato/audit/mechanism_under_test.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <unistd.h>

#include <filesystem>
#include <numeric>
#include <utility>

#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/privacy/secure_random.h"
#include "sfumato/train/gradient_step.h"
#include "sfumato/train/physical_batch.h"
#include "sfumato/train/training_mechanism.h"

namespace sfumato {
namespace {

/// Releases that an audit's own ledger allows: more than any audit takes.
constexpr int64_t kMostReleases = int64_t{1} << 31;

std::filesystem::path make_folder() {
  // In memory if possible: every charge waits for the disk.
  const std::filesystem::path memory = "/dev/shm";
  const bool usable = std::filesystem::is_directory(memory) && ::access(memory.c_str(), W_OK) == 0;
  const std::filesystem::path parent = usable ? memory : std::filesystem::temp_directory_path();
  const std::filesystem::path folder = parent / ("sfumato_audit_" + random_hex(8));
  if (!std::filesystem::create_directory(folder))
    throw DataError("cannot make the folder '" + folder.string() + "' for the audit's ledger");
  return folder;
}

SecureKey make_key(std::optional<uint64_t> test_seed, uint64_t session) {
  return test_seed ? SecureKey::insecure_for_tests(*test_seed * 1000 + session)
                   : SecureKey::generate();
}

StepOptions of_ranks(std::shared_ptr<Communicator> ranks) {
  StepOptions options;
  options.ranks = std::move(ranks);
  return options;
}

}  // namespace

GradientSource gradient_source(GradientStep& step, std::shared_ptr<Communicator> ranks) {
  return {[&step](const ProbeBatch& batch) {
            TrainingBatch images = batch.images.value();
            if (batch.mask.defined()) images.mask = batch.mask;
            step.accumulate_private(images);
          },
          &step, std::move(ranks)};
}

/// Its losses are those of the batch at hand, of which a TrainingBatch holds nothing.
struct ProbeStep::Parts : Objective {
  Parts(std::vector<Parameter*> probed, const ClipOptions& clip, std::shared_ptr<Communicator> with)
      : all(std::move(probed)), ranks(std::move(with)), step(*this, clip, of_ranks(ranks)) {}
  ImageShape image_shape() const override { return {}; }
  int64_t draws() const override { return at_hand.draws; }
  std::vector<Parameter*> parameters() override { return all; }
  TrainingBatch draw(const ExampleBatch&, uint64_t, uint64_t) const override { return {}; }
  TrainingBatch place(const TrainingBatch& drawn) const override { return drawn; }
  at::Tensor losses(const TrainingBatch&, Tape* tape) const override {
    return at_hand.losses(tape);
  }

  std::vector<Parameter*> all;
  std::shared_ptr<Communicator> ranks;
  ProbeBatch at_hand;
  GradientStep step;
};

ProbeStep::ProbeStep(std::vector<Parameter*> parameters, const ClipOptions& clip,
                     std::shared_ptr<Communicator> ranks)
    : parts_(std::make_unique<Parts>(std::move(parameters), clip, std::move(ranks))) {}

ProbeStep::~ProbeStep() = default;

GradientSource ProbeStep::source() {
  return {[parts = parts_.get()](const ProbeBatch& batch) {
            parts->at_hand = batch;
            const at::Tensor mask = batch.mask.defined() ? batch.mask : at::ones({batch.examples});
            parts->step.accumulate_private({{}, mask, batch.examples});
          },
          &parts_->step, parts_->ranks};
}

struct ProductionMechanism::Session {
  Session(const MechanismPlan& plan, std::optional<uint64_t> seed,
          std::shared_ptr<Communicator> with)
      : ranks(with ? std::move(with) : single_process()), test_seed(seed) {
    if (ranks->leads()) {
      folder = make_folder();
      place = {.ledger = folder / "ledger.jsonl", .run = folder, .most_steps = kMostReleases};
    }
    begin(plan);
  }
  ~Session() {
    training.reset();
    std::error_code ignored;
    if (ranks->leads()) std::filesystem::remove_all(folder, ignored);
  }
  /// The first session of the ledger or, where there is one, the next.
  void begin(const MechanismPlan& plan) {
    training.reset();
    if (ranks->leads()) {
      training = open_training_mechanism(/*seed=*/0, plan, place, /*checkpoint=*/nullptr,
                                         /*has_trained=*/number > 0, make_key(test_seed, number));
      training->lead(ranks);
    } else {
      training =
          follow_training(/*seed=*/0, plan, kMostReleases, make_key(test_seed, number), ranks);
    }
    ++number;
  }

  std::shared_ptr<Communicator> ranks;
  std::optional<uint64_t> test_seed;
  uint64_t number = 0;  ///< of sessions so far
  std::filesystem::path folder;
  SessionPlace place;
  std::unique_ptr<TrainingMechanism> training;
};

ProductionMechanism::ProductionMechanism(const MechanismPlan& plan, GradientSource source,
                                         std::optional<uint64_t> test_seed)
    : plan_(plan),
      source_(std::move(source)),
      session_(std::make_unique<Session>(plan, test_seed, source_.ranks)) {}

ProductionMechanism::~ProductionMechanism() = default;

std::vector<int64_t> ProductionMechanism::sample(int64_t step, int64_t records) {
  return session_->training->sample(step, records);
}

void ProductionMechanism::accumulate(const ProbeBatch& batch) {
  if (session_->ranks->alone()) return source_.accumulate(batch);
  std::vector<int64_t> examples(static_cast<std::size_t>(batch.examples));
  std::iota(examples.begin(), examples.end(), int64_t{0});
  const std::vector<int64_t> own = share(examples, 1);
  if (own.empty()) return;
  ProbeBatch part = batch.part(own.front(), std::ssize(own));
  if (batch.mask.defined()) part.mask = batch.mask.narrow(0, own.front(), std::ssize(own));
  source_.accumulate(part);
}

std::vector<at::Tensor> ProductionMechanism::take_clipped_sum() {
  const ClippedSum sum = source_.step->take_private();
  const ParameterSlices* const several = slices();
  return several ? several->gathered(ClippedSumInspector::sums(sum))
                 : ClippedSumInspector::sums(sum);
}

std::vector<at::Tensor> ProductionMechanism::release(int64_t step) {
  return moved_by([&](Optimizer& optimizer) {
    session_->training->update(*source_.step, optimizer, /*learning_rate=*/1.0, /*average=*/nullptr,
                               step, /*records=*/0);
  });
}

std::vector<at::Tensor> ProductionMechanism::applied(NoisyGradient&& gradient) const {
  return moved_by([&](Optimizer& optimizer) { optimizer.step(std::move(gradient), 1.0); });
}

std::vector<at::Tensor> ProductionMechanism::applied(PublicGradient&& gradient) const {
  return moved_by([&](Optimizer& optimizer) { optimizer.step(std::move(gradient), 1.0); });
}

std::vector<at::Tensor> ProductionMechanism::moved_by(
    const std::function<void(Optimizer&)>& step) const {
  std::vector<Parameter> weights;
  for (const Parameter* parameter : source_.step->engine().trainable())
    weights.push_back({parameter->name, at::zeros(parameter->value.sizes()), true});
  std::vector<Parameter*> addresses;
  for (Parameter& weight : weights) addresses.push_back(&weight);
  OptimizerOptions options;
  options.kind = OptimizerKind::kSgd;
  Optimizer optimizer(addresses, std::vector<double>(weights.size(), 1.0), options,
                      source_.step->engine().slices());
  step(optimizer);
  std::vector<at::Tensor> moved;
  for (const Parameter& weight : weights) moved.push_back(weight.value.neg());
  return moved;
}

int64_t ProductionMechanism::charges() const {
  return session_->ranks->from_leader(session_->training->charged());
}

void ProductionMechanism::resume() { session_->begin(plan_); }

const ParameterSlices* ProductionMechanism::slices() const {
  return session_->ranks->alone() ? nullptr : source_.step->engine().slices().get();
}

std::vector<int64_t> ProductionMechanism::share(const std::vector<int64_t>& sample,
                                                int64_t physical) const {
  const auto own =
      share_of_rank(sample, physical, session_->ranks->rank(), session_->ranks->size());
  return {own.begin(), own.end()};
}

}  // namespace sfumato
