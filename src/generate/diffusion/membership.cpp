#include "sfumato/generate/diffusion/membership.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/parameterization.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

const std::vector<MembershipScore> kAllScores = {MembershipScore::kLoss, MembershipScore::kSimA,
                                                 MembershipScore::kPia, MembershipScore::kSecMi};
constexpr double kCandidateShares[] = {0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7};
constexpr int64_t kSecMiSteps = 10;

int64_t secmi_step(const NoiseSchedule& schedule) {
  return std::max<int64_t>(schedule.size() / 100, 1);
}

std::vector<int64_t> candidates(const NoiseSchedule& schedule, const std::vector<int64_t>& wanted) {
  const int64_t size = schedule.size();
  if (wanted.empty()) {
    std::set<int64_t> spread;
    for (const double share : kCandidateShares)
      spread.insert(static_cast<int64_t>(share * static_cast<double>(size)));
    return {spread.begin(), spread.end()};
  }
  for (const int64_t t : wanted)
    if (t < 0 || t >= size)
      throw UsageError(fmt::format("timestep {} lies outside 0..{}", t, size - 1));
  if (std::set(wanted.begin(), wanted.end()).size() != wanted.size())
    throw UsageError("a timestep is named twice");
  return wanted;
}

/// Sum of powers over everything but the batch, in double precision: [N].
at::Tensor power_sum(const at::Tensor& x, int power) {
  return x.flatten(1).to(at::kDouble).pow(power).sum(1);
}

}  // namespace

DenoiserFn predicted_noise(DenoiserFn network, const NoiseSchedule& schedule,
                           Prediction prediction) {
  if (prediction == Prediction::kEpsilon) return network;
  const auto abar = schedule.alphas_cumprod();
  const at::Tensor table = at::tensor(at::ArrayRef<float>(abar.data(), abar.size()), at::kFloat);
  return [network = std::move(network), table, prediction](const at::Tensor& x, const at::Tensor& t,
                                                           const at::Tensor& labels) {
    const at::Tensor output = network(x, t, labels);
    const at::Tensor alpha = table.to(x.device()).index_select(0, t).view({-1, 1, 1, 1});
    const at::Tensor root_alpha = alpha.sqrt(), root_beta = (1 - alpha).sqrt();
    return predicted_epsilon(prediction, output, x, root_alpha, root_beta);
  };
}

DiffusionMembership::DiffusionMembership(DenoiserFn network, const NoiseSchedule& schedule,
                                         Prediction prediction, const MembershipOptions& options)
    : noise_(predicted_noise(std::move(network), schedule, prediction)),
      schedule_(schedule),
      options_(options) {
  if (options_.scores.empty()) options_.scores = kAllScores;
  if (options_.draws < 1) throw UsageError("the loss needs at least one noise draw");
  options_.timesteps = candidates(schedule_, options_.timesteps);
  for (const MembershipScore score : options_.scores) {
    if (std::ranges::count(options_.scores, score) > 1)
      throw UsageError(fmt::format("the score '{}' is named twice", to_string(score)));
    if (score == MembershipScore::kDiscriminator)
      throw UsageError(
          "the score 'discriminator' needs a generator that learned from one; name other --scores");
    if (score == MembershipScore::kSecMi) {
      if (schedule_.size() <= kSecMiSteps)
        throw UsageError(
            fmt::format("secmi needs a schedule of more than {} timesteps, this one "
                        "has {}; name other --scores",
                        kSecMiSteps, schedule_.size()));
      columns_.push_back({score, kSecMiSteps * secmi_step(schedule_)});
      continue;
    }
    for (const int64_t t : options_.timesteps) columns_.push_back({score, t});
    if (score == MembershipScore::kLoss && options_.timesteps.size() > 1)
      columns_.push_back({score, -1});
  }
}

int64_t DiffusionMembership::queries() const {
  const int64_t timesteps = std::ssize(options_.timesteps);
  int64_t total = 0;
  for (const MembershipScore score : options_.scores) switch (score) {
      case MembershipScore::kLoss: total += timesteps * options_.draws; break;
      case MembershipScore::kSimA: total += timesteps; break;
      case MembershipScore::kPia: total += timesteps + 1; break;
      case MembershipScore::kSecMi: total += kSecMiSteps + 1; break;
      case MembershipScore::kDiscriminator: break;  // refused
    }
  return total;
}

at::Tensor DiffusionMembership::noise_in(const at::Tensor& x, const at::Tensor& labels,
                                         int64_t t) const {
  const at::Tensor noise =
      noise_(x, at::full({x.size(0)}, t, x.options().dtype(at::kLong)), labels);
  if (!noise.isfinite().all().item<bool>())
    throw DataError(fmt::format("the network's output at timestep {} is not finite", t));
  return noise;
}

at::Tensor DiffusionMembership::loss(const at::Tensor& x0, const at::Tensor& labels,
                                     int64_t t) const {
  const SeededStreams streams("sfumato membership noise 1", options_.seed);
  const float abar = schedule_.alpha_cumprod(t);
  at::Tensor sum;
  for (int64_t draw = 0; draw < options_.draws; ++draw) {
    at::Tensor eps = at::empty(x0.sizes().slice(1), at::kFloat);
    streams.normals(eps.mutable_data_ptr<float>(), eps.numel(), static_cast<uint32_t>(draw),
                    static_cast<uint64_t>(t));
    eps = eps.to(x0.device()).unsqueeze(0);
    const at::Tensor noisy = noisy_sample(x0, eps, std::sqrt(abar), std::sqrt(1 - abar));
    const at::Tensor distance = power_sum(eps - noise_in(noisy, labels, t), 2).sqrt();
    sum = sum.defined() ? sum + distance : distance;
  }
  return sum / static_cast<double>(options_.draws);
}

at::Tensor DiffusionMembership::pia(const at::Tensor& x0, const at::Tensor& e0,
                                    const at::Tensor& labels, int64_t t) const {
  const float abar = schedule_.alpha_cumprod(t);
  const at::Tensor noisy = noisy_sample(x0, e0, std::sqrt(abar), std::sqrt(1 - abar));
  return power_sum(e0 - noise_in(noisy, labels, t), 4);
}

at::Tensor DiffusionMembership::ddim(const at::Tensor& x, const at::Tensor& labels, int64_t from,
                                     int64_t to) const {
  const float here = schedule_.alpha_cumprod(from), there = schedule_.alpha_cumprod(to);
  const at::Tensor noise = noise_in(x, labels, from);
  const at::Tensor clean =
      predicted_sample(Prediction::kEpsilon, noise, x, std::sqrt(here), std::sqrt(1 - here));
  return noisy_sample(clean, noise, std::sqrt(there), std::sqrt(1 - there));
}

at::Tensor DiffusionMembership::secmi(const at::Tensor& x0, const at::Tensor& labels) const {
  const int64_t step = secmi_step(schedule_);
  const int64_t last = (kSecMiSteps - 1) * step;
  at::Tensor x = x0;
  for (int64_t t = 0; t < last; t += step) x = ddim(x, labels, t, t + step);
  const at::Tensor forth = ddim(x, labels, last, last + step);
  return power_sum(x - ddim(forth, labels, last + step, last), 2);
}

at::Tensor DiffusionMembership::score(const at::Tensor& x0, const at::Tensor& labels) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> found;
  for (const MembershipScore score : options_.scores) {
    if (score == MembershipScore::kSecMi) {
      found.push_back(secmi(x0, labels));
      continue;
    }
    const at::Tensor e0 = score == MembershipScore::kPia ? noise_in(x0, labels, 0) : at::Tensor();
    at::Tensor sum;
    for (const int64_t t : options_.timesteps) {
      at::Tensor at_t;
      if (score == MembershipScore::kLoss) at_t = loss(x0, labels, t);
      if (score == MembershipScore::kSimA) at_t = power_sum(noise_in(x0, labels, t), 4);
      if (score == MembershipScore::kPia) at_t = pia(x0, e0, labels, t);
      sum = sum.defined() ? sum + at_t : at_t;
      found.push_back(at_t);
    }
    if (score == MembershipScore::kLoss && options_.timesteps.size() > 1)
      found.push_back(sum / static_cast<double>(options_.timesteps.size()));
  }
  return at::stack(found, 1).cpu();
}

}  // namespace sfumato
