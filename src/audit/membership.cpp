#include "sfumato/audit/membership.h"

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

#include "run/checkpoint_binding.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/generate/diffusion/generator.h"
#include "sfumato/generate/diffusion/parameterization.h"
#include "sfumato/generate/families.h"
#include "sfumato/generate/seeded_streams.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/run/checkpoint.h"

namespace sfumato {
namespace {

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

/// DataError for a checkpoint that the run's ledger does not note as its own. Says what is not
/// known.
void check_checkpoint(const Checkpoint& checkpoint, const std::filesystem::path& place,
                      const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) {
    log_warning(fmt::format(
        "'{}' is attacked as it is: there is no '{}' that would say whether it is this run's, as "
        "where a run is not private",
        place.string(), file.string()));
    return;
  }
  const LedgerSummary ledger = verify_ledger(file);
  std::int64_t line = 0;
  const std::string defect =
      ledger.problems.empty()
          ? checkpoint_defect(ledger, checkpoint, checkpoint.step, line)
          : fmt::format("nothing is known of it, for its ledger is damaged ({})",
                        ledger.problems.front());
  if (!defect.empty())
    throw DataError(fmt::format(
        "'{}': {}; an attack on it would say nothing of this run: put back the ledger and the "
        "checkpoints of one run and time",
        place.string(), defect));
  if (const std::int64_t last = last_checkpoint_step(ledger); last != checkpoint.step)
    log_warning(fmt::format(
        "'{}' is not what the run last saved: its ledger notes a checkpoint of step {}, which is "
        "not here",
        place.string(), last));
}

/// Sum of powers over everything but the batch, in double precision: [N].
at::Tensor power_sum(const at::Tensor& x, int power) {
  return x.flatten(1).to(at::kDouble).pow(power).sum(1);
}

}  // namespace

std::string ScoreColumn::name() const {
  if (score == MembershipScore::kDiscriminator) return to_string(score);
  return timestep < 0 ? to_string(score) + "@mean"
                      : fmt::format("{}@{}", to_string(score), timestep);
}

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

MembershipScorer::MembershipScorer(DenoiserFn network, const NoiseSchedule& schedule,
                                   Prediction prediction, const MembershipOptions& options)
    : noise_(predicted_noise(std::move(network), schedule, prediction)),
      schedule_(schedule),
      options_(options) {
  if (options_.scores.empty()) throw UsageError("name at least one score: loss, sima, pia, secmi");
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

MembershipScorer::MembershipScorer(ImageScores scores) : discriminator_(std::move(scores)) {
  options_.scores = {MembershipScore::kDiscriminator};
  columns_ = {{MembershipScore::kDiscriminator, -1}};
}

int64_t MembershipScorer::queries() const {
  const int64_t timesteps = std::ssize(options_.timesteps);
  int64_t total = 0;
  for (const MembershipScore score : options_.scores) switch (score) {
      case MembershipScore::kLoss: total += timesteps * options_.draws; break;
      case MembershipScore::kSimA: total += timesteps; break;
      case MembershipScore::kPia: total += timesteps + 1; break;
      case MembershipScore::kSecMi: total += kSecMiSteps + 1; break;
      case MembershipScore::kDiscriminator: ++total; break;
    }
  return total;
}

at::Tensor MembershipScorer::noise_in(const at::Tensor& x, const at::Tensor& labels,
                                      int64_t t) const {
  const at::Tensor noise =
      noise_(x, at::full({x.size(0)}, t, x.options().dtype(at::kLong)), labels);
  if (!noise.isfinite().all().item<bool>())
    throw DataError(fmt::format("the network's output at timestep {} is not finite", t));
  return noise;
}

at::Tensor MembershipScorer::loss(const at::Tensor& x0, const at::Tensor& labels, int64_t t) const {
  const SeededStreams streams("sfumato membership noise 1", options_.seed);
  const float abar = schedule_.alpha_cumprod(t);
  at::Tensor sum;
  for (int64_t draw = 0; draw < options_.draws; ++draw) {
    at::Tensor eps = at::empty(x0.sizes().slice(1), at::kFloat);
    streams.normals(eps.mutable_data_ptr<float>(), eps.numel(), static_cast<uint32_t>(draw),
                    static_cast<uint64_t>(t));
    eps = eps.to(x0.device()).unsqueeze(0);
    const at::Tensor noisy = std::sqrt(abar) * x0 + std::sqrt(1 - abar) * eps;
    const at::Tensor distance = power_sum(eps - noise_in(noisy, labels, t), 2).sqrt();
    sum = sum.defined() ? sum + distance : distance;
  }
  return sum / static_cast<double>(options_.draws);
}

at::Tensor MembershipScorer::pia(const at::Tensor& x0, const at::Tensor& e0,
                                 const at::Tensor& labels, int64_t t) const {
  const float abar = schedule_.alpha_cumprod(t);
  const at::Tensor noisy = std::sqrt(abar) * x0 + std::sqrt(1 - abar) * e0;
  return power_sum(e0 - noise_in(noisy, labels, t), 4);
}

at::Tensor MembershipScorer::ddim(const at::Tensor& x, const at::Tensor& labels, int64_t from,
                                  int64_t to) const {
  const float here = schedule_.alpha_cumprod(from), there = schedule_.alpha_cumprod(to);
  const at::Tensor noise = noise_in(x, labels, from);
  const at::Tensor clean = (x - std::sqrt(1 - here) * noise) / std::sqrt(here);
  return std::sqrt(there) * clean + std::sqrt(1 - there) * noise;
}

at::Tensor MembershipScorer::secmi(const at::Tensor& x0, const at::Tensor& labels) const {
  const int64_t step = secmi_step(schedule_);
  const int64_t last = (kSecMiSteps - 1) * step;
  at::Tensor x = x0;
  for (int64_t t = 0; t < last; t += step) x = ddim(x, labels, t, t + step);
  const at::Tensor forth = ddim(x, labels, last, last + step);
  return power_sum(x - ddim(forth, labels, last + step, last), 2);
}

at::Tensor MembershipScorer::score(const at::Tensor& x0, const at::Tensor& labels) const {
  const at::NoGradGuard no_grad;
  if (discriminator_) {
    const at::Tensor scores = discriminator_(x0, labels);
    if (!scores.isfinite().all().item<bool>())
      throw DataError("the discriminator's scores are not finite");
    return scores.neg().to(at::kDouble).unsqueeze(1).cpu();
  }
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

bool can_be_attacked(Generator& generator) {
  return dynamic_cast<DiffusionGenerator*>(&generator) != nullptr ||
         generator.membership_scores() != nullptr;
}

std::unique_ptr<Generator> trained_generator(const std::filesystem::path& run,
                                             const Config& config) {
  const auto newest = newest_checkpoint(run / "private" / "checkpoints");
  if (!newest) return nullptr;
  const Checkpoint checkpoint = read_checkpoint(*newest);
  check_checkpoint(checkpoint, *newest, run / "ledger.jsonl");
  NamedGroups groups;
  for (const TensorGroup& group : checkpoint.groups)
    groups.emplace_back(group.name, to_tensors(group));
  std::unique_ptr<Generator> generator = make_generator(config, open_placement(config.performance));
  generator->load_state(groups);
  return generator;
}

MembershipScorer membership_scorer(Generator& generator, const Config& config,
                                   const MembershipOptions& options) {
  auto* diffusion = dynamic_cast<DiffusionGenerator*>(&generator);
  if (diffusion == nullptr) {
    const ImageScores scores = generator.membership_scores();
    if (!scores)
      throw UsageError(
          "audit membership attacks diffusion networks, and generators by the discriminator that "
          "they learned from, which is not here: name the run, or a release that holds it "
          "(gan.release_discriminator); audit conformance and audit replication take generators of "
          "every family");
    if (options.scores != kDiffusionScores &&
        options.scores != std::vector{MembershipScore::kDiscriminator})
      throw UsageError(
          "of a generator there is the score 'discriminator' alone; leave --scores out");
    return MembershipScorer(scores);
  }
  return {diffusion->denoiser(), NoiseSchedule(noise_schedule_options(config.diffusion)),
          config.diffusion.prediction(), options};
}

}  // namespace sfumato
