#include "sfumato/bench/step_benchmark.h"

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <variant>

#include "bench/temporary_folder.h"
#include "sfumato/bench/bench_network.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/device/gpu.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/mechanism/following_session.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/privacy/secure_random.h"
#include "sfumato/train/gradient_step.h"

namespace sfumato {
namespace {

constexpr uint64_t kStepSeed = 1;
constexpr int64_t kMaxCharges = 1'000'000'000;  ///< nothing is protected: the key is a test key
constexpr double kLearningRate = 1e-5;          ///< small, so that the weights stay sane

MechanismPlan plan_of(const StepCase& step_case, const StepShare& share) {
  if (step_case.examples < 1 || step_case.draws < 1 || share.batches < 1)
    throw UsageError("a step needs at least one example and one draw");
  MechanismPlan plan;
  plan.sample_rate = 0.01;
  plan.noise_multiplier = 1;
  plan.steps = kMaxCharges;
  const int64_t ranks = share.ranks ? share.ranks->size() : 1;
  plan.expected_batch_size = static_cast<double>(step_case.examples * share.batches * ranks);
  return plan;
}

std::vector<uint64_t> keys_of(const StepCase& step_case) {
  std::vector<uint64_t> keys(static_cast<size_t>(step_case.examples));
  std::iota(keys.begin(), keys.end(), uint64_t{0});
  return keys;
}

/// Of rank 0, with the only ledger, or of one that follows it.
using AnySession = std::variant<MechanismSession, FollowingSession>;

AnySession open_session(const MechanismPlan& plan, const std::filesystem::path& folder,
                        const std::shared_ptr<Communicator>& ranks) {
  SecureKey key = SecureKey::insecure_for_tests(kStepSeed);
  if (ranks && !ranks->leads()) return FollowingSession(plan, ranks, std::move(key));
  MechanismSession session = MechanismSession::create(
      plan, {.ledger = folder / "ledger.jsonl", .run = folder}, std::move(key));
  if (ranks && !ranks->alone()) session.lead(ranks);
  return session;
}

/// The clock is read when the GPU has nothing left to do.
void finish(ComputeDevice device) {
  if (device == ComputeDevice::kCuda) find_gpu_backend()->synchronize();
}

}  // namespace

std::vector<StepCase> builtin_step_cases() {
  const nlohmann::json small = {
      {"sample_size", 28},
      {"in_channels", 1},
      {"out_channels", 1},
      {"block_out_channels", {32, 64, 64}},
      {"layers_per_block", 2},
      {"norm_num_groups", 8},
      {"down_block_types", {"DownBlock2D", "DownBlock2D", "AttnDownBlock2D"}},
      {"up_block_types", {"AttnUpBlock2D", "UpBlock2D", "UpBlock2D"}}};
  const nlohmann::json cifar10 = {
      {"sample_size", 32},
      {"block_out_channels", {128, 256, 256, 256}},
      {"layers_per_block", 2},
      {"down_block_types", {"DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"}},
      {"up_block_types", {"UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"}},
      {"attention_head_dim", nullptr},
      {"downsample_padding", 0},
      {"flip_sin_to_cos", false},
      {"freq_shift", 1},
      {"norm_eps", 1e-6}};
  nlohmann::json dpdm = small;
  dpdm["block_out_channels"] = {40, 64, 64};
  dpdm["num_class_embeds"] = 10;
  const nlohmann::json dcgan = {{"generator",
                                 {{"_class_name", "DCGANGenerator"},
                                  {"sample_size", 28},
                                  {"out_channels", 1},
                                  {"latent_size", 128},
                                  {"block_out_channels", {512, 256, 128}},
                                  {"norm", "none"},
                                  {"bias", true},
                                  {"num_class_embeds", 10},
                                  {"class_embed_size", 10}}},
                                {"discriminator",
                                 {{"_class_name", "DCGANDiscriminator"},
                                  {"sample_size", 28},
                                  {"in_channels", 1},
                                  {"block_out_channels", {64, 256, 512}},
                                  {"norm", "none"},
                                  {"num_class_embeds", 10}}}};
  const nlohmann::json resnet_gan = {{"generator",
                                      {{"_class_name", "ResnetGANGenerator"},
                                       {"sample_size", 28},
                                       {"out_channels", 1},
                                       {"latent_size", 60},
                                       {"block_out_channels", {240, 240, 240}},
                                       {"upsample_blocks", 2},
                                       {"attention_after", nlohmann::json::array({2})},
                                       {"num_class_embeds", 10},
                                       {"initialization", "orthogonal"}}},
                                     {"discriminator",
                                      {{"_class_name", "ResnetGANDiscriminator"},
                                       {"sample_size", 28},
                                       {"in_channels", 1},
                                       {"block_out_channels", {160, 160, 160}},
                                       {"downsample_blocks", 2},
                                       {"num_class_embeds", 10},
                                       {"initialization", "orthogonal"}}}};
  return {{"small", small, 32, 1},
          {"cifar10", cifar10, 4, 4},
          {"dpdm-mnist", dpdm, 64, 32, /*by_name_only=*/true},
          {"dcgan28", dcgan, 64, 2, /*by_name_only=*/true},
          {"resnet-gan28", resnet_gan, 16, 2, /*by_name_only=*/true}};
}

std::vector<std::string> step_case_names() {
  std::vector<std::string> names;
  for (const StepCase& each : builtin_step_cases()) names.push_back(each.name);
  return names;
}

StepCase builtin_step_case(const std::string& name) {
  for (StepCase& each : builtin_step_cases())
    if (each.name == name) return std::move(each);
  throw UsageError("no built-in network is called '" + name + "'" +
                   did_you_mean(name, step_case_names()));
}

StepCase step_case_from(const std::filesystem::path& path, const std::filesystem::path& generator) {
  StepCase step_case{path.string(), describe_networks(path, generator)};
  if (!draws_in_steps(step_case.network)) step_case.draws = 2;
  return step_case;
}

struct StepBenchmark::Parts {
  Parts(const StepCase& step_case, AlgorithmPolicy policy, const StepShare& share)
      : device(step_case.device),
        batches(share.batches),
        ranks(share.ranks ? share.ranks : single_process()),
        plan(plan_of(step_case, share)),
        generator(random_generator(
            step_case.network,
            open_placement(step_case.device, step_case.precision, step_case.memory_format),
            kStepSeed, step_case.draws)),
        batch(synthetic_batch(generator->objective(), keys_of(step_case))),
        gradients(generator->objective(), clip_options(plan),
                  StepOptions{.policy = policy, .tuner = nullptr, .ranks = share.ranks}),
        optimizer(gradients.engine().trainable(),
                  std::vector<double>(gradients.engine().trainable().size(), 1.0), {},
                  gradients.engine().slices()),
        session(open_session(plan, folder.path(), share.ranks)) {}

  TemporaryFolder folder;
  ComputeDevice device;
  int64_t batches;
  std::shared_ptr<Communicator> ranks;
  MechanismPlan plan;
  std::unique_ptr<Generator> generator;
  TrainingBatch batch;
  GradientStep gradients;
  Optimizer optimizer;
  AnySession session;
  int64_t step = 0;

  void accumulate(StepKind kind) {
    for (int64_t i = 0; i < batches; ++i)
      (void)(kind == StepKind::kPrivate ? gradients.accumulate_private(batch)
                                        : gradients.accumulate_plain(batch));
  }
  std::vector<at::Tensor> take_plain() {
    std::vector<at::Tensor> sums = gradients.take_plain();
    gradients.engine().slices()->sum(sums);
    return sums;
  }

  /// Seconds of one of `steps` calls of work(*this), from when all ranks begin to when all end.
  template <class Work>
  double seconds_of(int64_t steps, Work work) {
    finish(device);
    ranks->barrier();
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < steps; ++i) work(*this);
    finish(device);
    ranks->barrier();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    return seconds.count() / static_cast<double>(steps);
  }
};

StepBenchmark::StepBenchmark(const StepCase& step_case, AlgorithmPolicy policy,
                             const StepShare& share)
    : parts_(std::make_unique<Parts>(step_case, policy, share)) {}

StepBenchmark::~StepBenchmark() = default;

double StepBenchmark::run(StepKind kind, int64_t steps) {
  return parts_->seconds_of(steps, [&](Parts& p) {
    p.accumulate(kind);
    if (kind == StepKind::kPrivate) {
      NoisyGradient gradient = std::visit(
          [&](auto& session) { return session.release(p.gradients.take_private(), p.step++); },
          p.session);
      p.optimizer.step(std::move(gradient), kLearningRate);
    } else {
      p.optimizer.step(PublicGradient(p.take_plain(), p.plan.expected_batch_size), kLearningRate);
    }
  });
}

double StepBenchmark::run_gradient(StepKind kind, int64_t steps) {
  return parts_->seconds_of(steps, [&](Parts& p) {
    p.accumulate(kind);
    if (kind == StepKind::kPrivate)
      (void)p.gradients.take_private();
    else
      (void)p.take_plain();
  });
}

int64_t StepBenchmark::parameters() const {
  int64_t count = 0;
  for (const Parameter* parameter : parts_->gradients.engine().trainable())
    count += parameter->value.numel();
  return count;
}

int64_t StepBenchmark::exchanged() const { return parts_->gradients.engine().slices()->size(); }

bool StepBenchmark::recorded() const { return parts_->gradients.recorded(); }

const std::vector<LayerChoice>& StepBenchmark::choices() const {
  return parts_->gradients.engine().choices();
}

int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word)
    if (word == "VmHWM:") {
      int64_t kib = 0;
      status >> kib;
      return kib * 1024;
    }
  return 0;
}

bool reset_peak_resident() {
  std::ofstream file("/proc/self/clear_refs");
  file << 5 << std::flush;
  return file.good();
}

}  // namespace sfumato
