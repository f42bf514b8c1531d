#include "sfumato/audit/mechanism_under_test.h"

#include <ATen/ops/zeros.h>
#include <unistd.h>

#include <filesystem>

#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/privacy/secure_random.h"
#include "sfumato/train/gradient_step.h"

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

}  // namespace

GradientSource gradient_source(GradientEngine& engine) {
  return {[&engine](const ProbeBatch& batch) {
            engine.accumulate(batch.examples, batch.draws, batch.mask,
                              [&](Tape& tape) { return batch.losses(&tape); });
          },
          [&engine] { return engine.take(); }, engine.trainable()};
}

GradientSource gradient_source(GradientStep& step) {
  return {[&step](const ProbeBatch& batch) {
            TrainingBatch images = batch.images.value();
            if (batch.mask.defined()) images.mask = batch.mask;
            step.accumulate_private(images);
          },
          [&step] { return step.take_private(); }, step.engine().trainable()};
}

struct ProductionMechanism::Session {
  Session(const MechanismPlan& plan, std::optional<uint64_t> seed)
      : test_seed(seed),
        folder(make_folder()),
        place{.ledger = folder / "ledger.jsonl", .run = folder, .most_steps = kMostReleases},
        mechanism(MechanismSession::create(plan, place, make_key(seed, number))) {}
  ~Session() {
    mechanism.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }

  std::optional<uint64_t> test_seed;
  uint64_t number = 0;
  std::filesystem::path folder;
  SessionPlace place;
  std::optional<MechanismSession> mechanism;
};

ProductionMechanism::ProductionMechanism(const MechanismPlan& plan, GradientSource source,
                                         std::optional<uint64_t> test_seed)
    : plan_(plan),
      source_(std::move(source)),
      session_(std::make_unique<Session>(plan, test_seed)) {}

ProductionMechanism::~ProductionMechanism() = default;

std::vector<int64_t> ProductionMechanism::sample(int64_t step, int64_t records) {
  return session_->mechanism->sample(step, records);
}

void ProductionMechanism::accumulate(const ProbeBatch& batch) { source_.accumulate(batch); }

std::vector<at::Tensor> ProductionMechanism::take_clipped_sum() {
  const ClippedSum sum = source_.take();
  return ClippedSumInspector::sums(sum);
}

std::vector<at::Tensor> ProductionMechanism::release(int64_t step) {
  return applied(session_->mechanism->release(source_.take(), step));
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
  for (const Parameter* parameter : source_.trainable)
    weights.push_back({parameter->name, at::zeros(parameter->value.sizes()), true});
  std::vector<Parameter*> addresses;
  for (Parameter& weight : weights) addresses.push_back(&weight);
  OptimizerOptions options;
  options.kind = OptimizerKind::kSgd;
  Optimizer optimizer(addresses, std::vector<double>(weights.size(), 1.0), options);
  step(optimizer);
  std::vector<at::Tensor> moved;
  for (const Parameter& weight : weights) moved.push_back(weight.value.neg());
  return moved;
}

int64_t ProductionMechanism::charges() const {
  return session_->mechanism->ledger().charged_steps();
}

void ProductionMechanism::resume() {
  Session& session = *session_;
  session.mechanism.reset();
  session.mechanism =
      MechanismSession::resume(plan_, session.place, make_key(session.test_seed, ++session.number));
}

}  // namespace sfumato
