#include "sfumato/grad/gradient_engine.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>
#include <unordered_map>
#include <utility>

#include "grad/exact_sum.h"
#include "kernels/clip_factors.h"
#include "sfumato/core/error.h"
#include "sfumato/privacy/bounds.h"

namespace sfumato {
namespace {

class EngineTape final : public Tape {
 public:
  EngineTape(int64_t examples, int64_t draws, const std::vector<Parameter*>& trainable,
             AlgorithmPolicy policy, Tuner& tuner, std::vector<LayerChoice>& choices)
      : Tape(examples, draws),
        policy_(policy),
        tuner_(tuner),
        choices_(choices),
        gradients_(trainable.size()),
        uses_(trainable.size(), 0) {
    for (size_t i = 0; i < trainable.size(); ++i) index_.emplace(trainable[i]->name, i);
  }

  void expect(const std::string& parameter) override {
    if (++uses_[at(parameter)] > 1)
      throw PrivacyError(fmt::format(
          "parameter '{}' is used twice in one pass: tied parameters have no per-example rule; "
          "give each use its own parameter or freeze it",
          parameter));
  }

  LayerPlan choose(const LayerWork& work, const std::vector<LayerCandidate>& candidates) override {
    choices_.push_back(candidates.empty() ? choose_algorithm(work, policy_)
                                          : choose_algorithm(work, policy_, candidates, tuner_));
    return {choices_.back().algorithm, choices_.back().route};
  }

  void record(const std::string& parameter, PerExampleGradient gradient) override {
    PerExampleGradient& slot = gradients_[at(parameter)];
    if (slot.defined())
      throw PrivacyError(
          fmt::format("parameter '{}' was recorded twice in one backward pass", parameter));
    slot = std::move(gradient);
  }

  /// Every trainable parameter was used once in forward and recorded once in backward.
  void check_complete(const std::vector<Parameter*>& trainable) const {
    std::string missing;
    for (size_t i = 0; i < trainable.size(); ++i)
      if (uses_[i] != 1 || !gradients_[i].defined())
        missing += fmt::format("{}'{}'", missing.empty() ? "" : ", ", trainable[i]->name);
    if (!missing.empty())
      throw PrivacyError(fmt::format(
          "trainable parameters without a per-example gradient: {}; freeze what the loss does not "
          "reach (model.trainable), and use only layers with a per-example rule",
          missing));
  }

  std::vector<PerExampleGradient>& gradients() { return gradients_; }

 private:
  size_t at(const std::string& parameter) const {
    const auto found = index_.find(parameter);
    if (found == index_.end())
      throw PrivacyError(fmt::format(
          "parameter '{}' is trained by a layer but unknown to the gradient engine", parameter));
    return found->second;
  }

  AlgorithmPolicy policy_;
  Tuner& tuner_;
  std::vector<LayerChoice>& choices_;
  std::vector<PerExampleGradient> gradients_;
  std::vector<int> uses_;
  std::unordered_map<std::string, size_t> index_;
};

/// Each value is 1 (real) or 0 (padding).
void check_mask(const at::Tensor& mask, int64_t examples) {
  if (!mask.defined()) return;
  if (mask.dim() != 1 || mask.size(0) != examples || mask.scalar_type() != at::kFloat)
    throw PrivacyError(
        fmt::format("the mask has shape {} but must have one value for each of the "
                    "{} examples",
                    c10::str(mask.sizes()), examples));
  for (int64_t i = 0; i < examples; ++i) {
    const float value = mask[i].item<float>();
    if (value != 0 && value != 1)
      throw PrivacyError(fmt::format(
          "the mask holds {}: it says which examples are real (1) or padding (0), and a weight "
          "would lift the clipped contribution above the clip norm",
          value));
  }
}

ClipFactorOptions factor_options(const ClipOptions& clip) {
  const ClipRule rule = clip.clipping == Clipping::kFlat       ? ClipRule::kFlat
                        : clip.clipping == Clipping::kPerLayer ? ClipRule::kPerLayer
                                                               : ClipRule::kAutomatic;
  return {rule, clip.clip_norm_l2, clip.automatic_gamma};
}

/// Which rows a rule on the CPU must treat as zero; kernels see it in the factors.
std::vector<int64_t> excluded_rows(const at::Tensor& flags) {
  std::vector<int64_t> rows;
  const uint8_t* flag = flags.const_data_ptr<uint8_t>();
  for (int64_t i = 0; i < flags.numel(); ++i)
    if ((flag[i] & kExampleExcluded) != 0) rows.push_back(i);
  return rows;
}

void check_loss(const at::Tensor& loss, int64_t examples) {
  if (loss.dim() != 1 || loss.size(0) != examples)
    throw PrivacyError(fmt::format(
        "the loss has shape {} but must be one value for each of the {} examples: a mean over "
        "the batch has no per-example gradients",
        c10::str(loss.sizes()), examples));
  if (!loss.requires_grad())
    throw PrivacyError("the loss depends on no trainable parameter; see model.trainable");
}

}  // namespace

BatchStatistics::Counts BatchStatistics::counts() const {
  Counts counts;
  const at::Tensor host = flags.defined() ? flags.cpu() : at::Tensor{};
  for (int64_t i = 0; i < loss.numel(); ++i) {
    if (mask.defined() && mask[i].item<float>() == 0) continue;
    ++counts.counted;
    const uint8_t flag = host.defined() ? host.const_data_ptr<uint8_t>()[i] : uint8_t{0};
    counts.clipped += (flag & kExampleClipped) != 0 ? 1 : 0;
    counts.excluded += (flag & kExampleExcluded) != 0 ? 1 : 0;
  }
  return counts;
}

GradientEngine::GradientEngine(std::vector<Parameter*> parameters, const ClipOptions& clip,
                               AlgorithmPolicy policy, std::shared_ptr<Tuner> tuner,
                               std::shared_ptr<Communicator> ranks)
    : clip_(clip),
      policy_(policy),
      tuner_(tuner ? std::move(tuner) : std::make_shared<Tuner>(std::filesystem::path{})) {
  if (!(clip.clip_norm_l2 > 0) || !std::isfinite(clip.clip_norm_l2))
    throw PrivacyError("the clip norm must be positive and finite; set mechanism.clip_norm_l2");
  if (clip.clipping == Clipping::kAutomatic && !(clip.automatic_gamma >= kLeastAutomaticGamma))
    throw PrivacyError(
        fmt::format("automatic clipping needs a mechanism.automatic_gamma of at least {:g}",
                    kLeastAutomaticGamma));
  trainable_ = trainable_of(parameters);
  if (trainable_.empty())
    throw PrivacyError("no parameter is trainable; check the patterns of model.trainable");
  on_kernels_ = kernels_for(trainable_.front()->value) != nullptr;
  slices_ = std::make_shared<ParameterSlices>(trainable_, std::move(ranks));
  exact_ = std::make_unique<ExactSum>(slices_, clip.clip_norm_l2, on_kernels_);
  sums_.resize(trainable_.size());
  if (!on_kernels_) return;
  flat_ = at::zeros({slices_->size()}, trainable_.front()->value.detach().options());
  for (size_t j = 0; j < sums_.size(); ++j) sums_[j] = slices_->as_parameter(flat_, j);
}

GradientEngine::~GradientEngine() = default;

void GradientEngine::begin_batch(int64_t examples, const at::Tensor& mask) {
  check_mask(mask, examples);
  if (!lease_.expired())
    throw PrivacyError("the last clipped sum is still in use: release it before the next batch");
  exact_->expect(examples);
  // Whatever the last owner left: the update leaves zeros, but a sum may have been dropped.
  if (std::exchange(sum_is_stale_, false)) flat_.zero_();
}

void GradientEngine::withdraw_batch(int64_t examples) { exact_->withdraw(examples); }

BatchStatistics GradientEngine::accumulate(int64_t examples, int64_t draws, const at::Tensor& mask,
                                           const std::function<at::Tensor(Tape&)>& loss) {
  begin_batch(examples, mask);
  try {
    const at::Tensor device_mask =
        mask.defined() ? mask.to(trainable_.front()->value.device()) : mask;
    BatchStatistics statistics = accumulate_checked(examples, draws, device_mask, loss);
    statistics.mask = mask;
    return statistics;
  } catch (const c10::OutOfMemoryError&) {
    withdraw_batch(examples);
    throw;
  }
}

BatchStatistics GradientEngine::accumulate_checked(int64_t examples, int64_t draws,
                                                   const at::Tensor& device_mask,
                                                   const std::function<at::Tensor(Tape&)>& loss) {
  BatchStatistics statistics;
  const at::TensorOptions options = trainable_.front()->value.detach().options();
  statistics.loss = at::zeros({examples}, options);
  statistics.norm = at::zeros({examples}, options.dtype(at::kDouble));
  if (examples == 0) return statistics;
  choices_.clear();
  EngineTape tape(examples, draws, trainable_, policy_, *tuner_, choices_);
  {
    const at::Tensor losses = loss(tape);
    check_loss(losses, examples);
    statistics.loss = losses.detach().clone();
    losses.backward(at::ones({examples}, options));
  }
  tape.check_complete(trainable_);

  std::vector<PerExampleGradient>& gradients = tape.gradients();
  std::vector<at::Tensor> squared;
  for (const PerExampleGradient& gradient : gradients) squared.push_back(gradient.squared_norm);
  const bridge::ClipResult clip =
      bridge::clip_factors(at::stack(squared), device_mask, factor_options(clip_));
  statistics.norm = clip.total_norm;
  statistics.flags = clip.flags;
  add_contributions(gradients, clip);
  return statistics;
}

/// First everything that needs memory, then the additions: where memory runs out nothing was added.
void GradientEngine::add_contributions(std::vector<PerExampleGradient>& gradients,
                                       const bridge::ClipResult& clip) {
  const bool per_layer = clip_.clipping == Clipping::kPerLayer;
  const std::vector<int64_t> excluded =
      on_kernels_ ? std::vector<int64_t>{} : excluded_rows(clip.flags);
  std::vector<at::Tensor> contributions(gradients.size());
  std::vector<bridge::KeptEntry> kept;
  for (size_t j = 0; j < gradients.size(); ++j) {
    const auto row = static_cast<int64_t>(per_layer ? j : 0);
    if (gradients[j].kept.defined()) {
      kept.push_back({std::move(gradients[j].kept), sums_[j], row});
    } else {
      contributions[j] = gradients[j].clipped_sum({clip.factors.select(0, row), excluded});
      // In the layout of the sum, so that adding needs no copy.
      contributions[j] = on_kernels_ ? contributions[j] : contributions[j].contiguous();
    }
    gradients[j] = {};
  }
  bridge::clip_accumulate(kept, clip.factors);
  const int64_t examples = clip.flags.numel();
  if (!on_kernels_) return exact_->add(contributions, examples);
  for (size_t j = 0; j < contributions.size(); ++j)
    if (contributions[j].defined()) sums_[j].add_(contributions[j]);
  exact_->add_flat(flat_, examples);
  flat_.zero_();
}

/// Where this rank's parts of the sum go.
std::vector<at::Tensor> GradientEngine::place_of_parts(const std::shared_ptr<const int>& lease) {
  std::vector<at::Tensor> parts(sums_);
  if (on_kernels_) {
    begin_batch(0, {});
    lease_ = lease;
    sum_is_stale_ = true;
  }
  for (size_t j = 0; j < parts.size(); ++j) {
    if (slices_->whole()) {
      if (!parts[j].defined()) parts[j] = at::empty_like(trainable_[j]->value.detach());
    } else {
      const int64_t count = slices_->part(j).count;
      parts[j] = parts[j].defined() ? slices_->own(parts[j], j)
                                    : at::empty({count}, trainable_[j]->value.detach().options());
    }
  }
  return parts;
}

void GradientEngine::discard() { exact_->clear(); }

ClippedSum GradientEngine::take() {
  const auto lease = std::make_shared<const int>(0);
  std::vector<at::Tensor> parts = place_of_parts(lease);
  // Nothing that can be released holds less than the sum of all ranks, so that noise comes once.
  exact_->reduce();
  exact_->take(parts);
  return ClippedSum(std::move(parts), clip_.clip_norm_l2, lease,
                    slices_->whole() ? nullptr : slices_);
}

}  // namespace sfumato
