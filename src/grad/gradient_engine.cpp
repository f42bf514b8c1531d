#include "sfumato/grad/gradient_engine.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <cmath>
#include <unordered_map>
#include <utility>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// Clip factors are this much smaller than the formula, relatively: float32 rounding of factors
/// and of stored gradients can then not lift a contribution above the clip norm.
constexpr double kClipMargin = 1e-6;

class EngineTape final : public Tape {
 public:
  EngineTape(int64_t examples, int64_t draws, const std::vector<Parameter*>& trainable,
             AlgorithmPolicy policy, std::vector<LayerChoice>& choices)
      : Tape(examples, draws),
        policy_(policy),
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

  Algorithm choose(const LayerWork& work) override {
    choices_.push_back(choose_algorithm(work, policy_));
    return choices_.back().algorithm;
  }

  void record(const std::string& parameter, PerExampleGradient gradient) override {
    PerExampleGradient& slot = gradients_[at(parameter)];
    if (slot.clipped_sum)
      throw PrivacyError(
          fmt::format("parameter '{}' was recorded twice in one backward pass", parameter));
    slot = std::move(gradient);
  }

  /// Every trainable parameter was used once in forward and recorded once in backward.
  void check_complete(const std::vector<Parameter*>& trainable) const {
    std::string missing;
    for (size_t i = 0; i < trainable.size(); ++i)
      if (uses_[i] != 1 || !gradients_[i].clipped_sum)
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
  std::vector<LayerChoice>& choices_;
  std::vector<PerExampleGradient> gradients_;
  std::vector<int> uses_;
  std::unordered_map<std::string, size_t> index_;
};

/// `factor` as a float, rounded down: near zero a float is coarser than the clip margin.
float round_down(double factor) {
  const float nearest = static_cast<float>(factor);
  return double{nearest} > factor ? std::nextafter(nearest, 0.0f) : nearest;
}

/// 1 for real examples, 0 for padding.
std::vector<bool> real_examples(const at::Tensor& mask, int64_t examples) {
  std::vector<bool> real(static_cast<size_t>(examples), true);
  if (!mask.defined()) return real;
  if (mask.dim() != 1 || mask.size(0) != examples)
    throw PrivacyError(fmt::format("the mask has shape {} but must have one value for each of the "
                                   "{} examples",
                                   c10::str(mask.sizes()), examples));
  for (int64_t i = 0; i < examples; ++i) {
    const float value = mask[i].item<float>();
    if (value != 0 && value != 1)
      throw PrivacyError(fmt::format(
          "the mask holds {}: it says which examples are real (1) or padding (0), and a weight "
          "would lift the clipped contribution above the clip norm",
          value));
    real[static_cast<size_t>(i)] = value == 1;
  }
  return real;
}

/// Factor for a gradient of squared norm `squared` and bound C.
double clip_factor(double squared, double clip_norm, const ClipOptions& clip) {
  if (!std::isfinite(squared)) return 0.0;
  const double norm = std::sqrt(squared);
  const double factor = clip.clipping == Clipping::kAutomatic
                            ? clip_norm / (norm + clip.automatic_gamma)
                            : (norm > clip_norm ? clip_norm / norm : 1.0);
  return factor * (1 - kClipMargin);
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

GradientEngine::GradientEngine(std::vector<Parameter*> parameters, const ClipOptions& clip,
                               AlgorithmPolicy policy)
    : clip_(clip), policy_(policy) {
  if (!(clip.clip_norm_l2 > 0) || !std::isfinite(clip.clip_norm_l2))
    throw PrivacyError("the clip norm must be positive and finite; set mechanism.clip_norm_l2");
  if (clip.clipping == Clipping::kAutomatic && !(clip.automatic_gamma > 0))
    throw PrivacyError("automatic clipping needs mechanism.automatic_gamma above 0");
  for (Parameter* parameter : parameters)
    if (parameter->trainable) trainable_.push_back(parameter);
  if (trainable_.empty())
    throw PrivacyError("no parameter is trainable; check the patterns of model.trainable");
  sums_.resize(trainable_.size());
}

GradientEngine::~GradientEngine() = default;

BatchStatistics GradientEngine::accumulate(int64_t examples, int64_t draws, const at::Tensor& mask,
                                           const std::function<at::Tensor(Tape&)>& loss) {
  BatchStatistics statistics;
  statistics.loss = at::zeros({examples});
  statistics.norm = at::zeros({examples}, at::kDouble);
  if (examples == 0) return statistics;
  const std::vector<bool> real = real_examples(mask, examples);
  choices_.clear();
  EngineTape tape(examples, draws, trainable_, policy_, choices_);
  {
    const at::Tensor losses = loss(tape);
    check_loss(losses, examples);
    statistics.loss = losses.detach().clone();
    losses.backward(at::ones({examples}));
  }
  tape.check_complete(trainable_);

  std::vector<PerExampleGradient>& gradients = tape.gradients();
  at::Tensor total = at::zeros({examples}, at::kDouble);
  for (const PerExampleGradient& gradient : gradients) total.add_(gradient.squared_norm);
  const double* totals = total.const_data_ptr<double>();
  ClipWeights weights{at::zeros({examples}), {}};
  for (int64_t i = 0; i < examples; ++i)
    if (!std::isfinite(totals[i])) weights.excluded.push_back(i);

  const bool per_layer = clip_.clipping == Clipping::kPerLayer;
  const double layer_norm =
      per_layer ? clip_.clip_norm_l2 / std::sqrt(static_cast<double>(gradients.size()))
                : clip_.clip_norm_l2;
  std::vector<bool> clipped(static_cast<size_t>(examples), false);
  const auto set_factors = [&](const double* squared) {
    float* factors = weights.factors.mutable_data_ptr<float>();
    for (int64_t i = 0; i < examples; ++i) {
      const auto index = static_cast<size_t>(i);
      const bool finite = std::isfinite(totals[i]);
      const double factor = finite ? clip_factor(squared[i], layer_norm, clip_) : 0.0;
      factors[i] = real[index] ? round_down(factor) : 0.0f;
      if (finite && factor < 1 - 2 * kClipMargin) clipped[index] = true;
    }
  };
  if (!per_layer) set_factors(totals);
  for (size_t j = 0; j < gradients.size(); ++j) {
    if (per_layer) set_factors(gradients[j].squared_norm.const_data_ptr<double>());
    at::Tensor contribution = gradients[j].clipped_sum(weights).contiguous();
    gradients[j] = {};
    // The first physical batch is the sum: no zeros to fill and to read again.
    sums_[j] = sums_[j].defined() ? sums_[j].add_(contribution) : std::move(contribution);
  }

  statistics.norm = total.sqrt();
  for (int64_t i = 0; i < examples; ++i) {
    if (!real[static_cast<size_t>(i)]) continue;
    ++statistics.counted;
    statistics.clipped += clipped[static_cast<size_t>(i)] ? 1 : 0;
    statistics.excluded += std::isfinite(totals[i]) ? 0 : 1;
  }
  return statistics;
}

ClippedSum GradientEngine::take() {
  std::vector<at::Tensor> sums = std::exchange(sums_, std::vector<at::Tensor>(trainable_.size()));
  for (size_t j = 0; j < sums.size(); ++j)
    if (!sums[j].defined()) sums[j] = at::zeros_like(trainable_[j]->value.detach());
  return ClippedSum(std::move(sums), clip_.clip_norm_l2);
}

}  // namespace sfumato
