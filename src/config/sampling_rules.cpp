#include "sfumato/config/sampling_rules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <stdexcept>

namespace sfumato {
namespace {

using Names = std::vector<std::string>;

/// What a solver is for, and which settings it reads that not every other does.
struct SamplerRule {
  Sampler sampler;
  bool vp, edm;
  std::string instead;  ///< where it is for one of them alone
  Names own_settings;
};

const std::vector<SamplerRule>& sampler_rules() {
  const Names churn = {"sample.s_churn", "sample.s_min",          "sample.s_max",
                       "sample.s_noise", "sample.sigma_schedule", "sample.final_sigmas_type"};
  const Names first = {"sample.sigma_schedule", "sample.final_sigmas_type"};
  const Names higher = {"sample.sigma_schedule", "sample.final_sigmas_type", "sample.solver_type",
                        "sample.euler_at_final"};
  const std::string on_edm = "sample.sampler=sde_dpmpp_2m, or heun with sample.s_churn";
  static const std::vector<SamplerRule> kRules = {
      {Sampler::kDdpm, true, false, on_edm, {"sample.variance"}},
      {Sampler::kDdim,
       true,
       true,
       "",
       {"sample.eta", "sample.use_clipped_model_output", "sample.set_alpha_to_one"}},
      {Sampler::kEuler, false, true, "sample.sampler=ddim, which is the same there", churn},
      {Sampler::kHeun, false, true, "sample.sampler=dpmpp_2m", churn},
      {Sampler::kDpmpp1, true, true, "", first},
      {Sampler::kDpmpp2M, true, true, "", higher},
      {Sampler::kDpmpp3M, true, true, "", higher},
      {Sampler::kSdeDpmpp2M, true, true, "", higher},
      {Sampler::kUniPc,
       true,
       true,
       "",
       {"sample.sigma_schedule", "sample.final_sigmas_type", "sample.solver_type",
        "sample.solver_order", "sample.predict_x0", "sample.disable_corrector"}}};
  return kRules;
}

const SamplerRule& rule_of(Sampler sampler) {
  for (const SamplerRule& rule : sampler_rules())
    if (rule.sampler == sampler) return rule;
  throw std::logic_error("no rule for the sampler " + to_string(sampler));
}

bool lists(const Names& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

/// A resolved configuration names every setting: what is the default was asked for by nobody.
bool is_changed(const SettingBase& setting) {
  return setting.value_yaml() != setting.default_yaml();
}

/// Read, whatever the solver, by solvers of one parameterization alone.
const Names kSampleOfVp = {"sample.spacing", "sample.steps_offset"};
const Names kSampleOfEdm = {"sample.sigma_min", "sample.sigma_max", "sample.rho"};
const Names kDiffusionOfVp = {"diffusion.schedule",       "diffusion.num_train_timesteps",
                              "diffusion.beta_start",     "diffusion.beta_end",
                              "diffusion.timestep_power", "diffusion.rescale_betas_zero_snr"};
const Names kDiffusionOfEdm = {"diffusion.sigma_data", "diffusion.p_mean", "diffusion.p_std"};
/// Ddpm and ddim have always taken each other's.
const Names kForgiven = {"sample.variance", "sample.eta", "sample.use_clipped_model_output",
                         "sample.set_alpha_to_one"};

/// Settings of a section that belong to the other parameterization.
void name_foreign(const Section& section, const Names& of_vp, const Names& of_edm,
                  Parameterization parameterization, Names& mistakes) {
  const bool edm = parameterization == Parameterization::kEdm;
  for (const SettingBase* setting : section.settings())
    if (is_changed(*setting) && lists(edm ? of_vp : of_edm, setting->key()))
      mistakes.push_back(
          fmt::format("{} is for networks of diffusion.parameterization={}, and this one is {}; "
                      "leave it at its "
                      "default, {}",
                      place(*setting), edm ? "vp" : "edm", to_string(parameterization),
                      setting->default_yaml()));
}

/// Whether the solver may read a setting, for such a network or, where it is not known, for one of
/// them. Ddim of an EDM network is euler.
bool may_read(Sampler sampler, std::optional<Parameterization> parameterization,
              const std::string& key) {
  const bool may_be_euler = sampler == Sampler::kDdim && parameterization != Parameterization::kVp;
  const bool is_euler = may_be_euler && parameterization.has_value();
  return (!is_euler && sampler_reads(sampler, key)) ||
         (may_be_euler && sampler_reads(Sampler::kEuler, key));
}

/// Settings of other solvers, which change nothing of this one.
void name_unread(const SampleSettings& sample, std::optional<Parameterization> parameterization,
                 Names& mistakes) {
  const Sampler sampler = sample.sampler();
  const bool is_euler = sampler == Sampler::kDdim && parameterization == Parameterization::kEdm;
  const bool forgiving = (sampler == Sampler::kDdpm || sampler == Sampler::kDdim) && !is_euler;
  for (const SettingBase* setting : sample.settings()) {
    const std::string key = setting->key();
    if (!is_changed(*setting) || (forgiving && lists(kForgiven, key))) continue;
    if (may_read(sampler, parameterization, key)) continue;
    Names readers;
    for (const SamplerRule& rule : sampler_rules())
      if (lists(rule.own_settings, key)) readers.push_back(to_string(rule.sampler));
    mistakes.push_back(fmt::format(
        "{} is not read by {}, which is {}{}, but by {} alone; choose one of those as {}, or leave "
        "{} at its default, {}",
        place(*setting), place(sample.sampler), to_string(sampler),
        is_euler ? ", which of an edm network is euler" : "", fmt::join(readers, ", "),
        sample.sampler.key(), setting->key(), setting->default_yaml()));
  }
}

/// Bounds of something that nobody asked for. Where it was turned off by name, they may stay; those
/// that the solver does not read are named by name_unread.
void name_idle(const SampleSettings& sample, std::optional<Parameterization> parameterization,
               const Setting<double>& what, const char* verb, const Names& bounds,
               Names& mistakes) {
  if (what() > 0 || !what.is_default()) return;
  for (const SettingBase* setting : sample.settings())
    if (lists(bounds, setting->key()) && is_changed(*setting) &&
        may_read(sample.sampler(), parameterization, setting->key()))
      mistakes.push_back(
          fmt::format("{} has no effect: {} is 0, so that nothing is {}; set that, or leave {} at "
                      "its default, {}",
                      place(*setting), what.key(), verb, setting->key(), setting->default_yaml()));
}

void check_unipc(const SampleSettings& sample, Names& mistakes) {
  const SolverType type = sample.solver_type();
  const bool to_zero = sample.final_sigmas_type() == FinalSigma::kZero;
  if (type == SolverType::kMidpoint || type == SolverType::kHeun)
    mistakes.push_back(fmt::format("{} is a form of dpmpp solvers; of unipc choose bh2 or bh1",
                                   place(sample.solver_type)));
  if (type == SolverType::kBh1 && to_zero)
    mistakes.push_back(fmt::format(
        "{} is bh1, whose B(h) = h is infinite in a step that ends without noise; choose bh2, or "
        "{}=sigma_min",
        place(sample.solver_type), sample.final_sigmas_type.key()));
  if (sample.predict_x0()) return;
  if (to_zero)
    mistakes.push_back(fmt::format(
        "{} is false: by its noise an image cannot be followed to where there is none; set "
        "{}=sigma_min",
        place(sample.predict_x0), sample.final_sigmas_type.key()));
  if (sample.clip_sample())
    mistakes.push_back(
        fmt::format("{} is false: the noise is not clipped as an image is; set {}=false",
                    place(sample.predict_x0), sample.clip_sample.key()));
}

}  // namespace

bool sampler_reads(Sampler sampler, const std::string& setting) {
  return lists(rule_of(sampler).own_settings, setting) ||
         std::ranges::none_of(sampler_rules(), [&](const SamplerRule& rule) {
           return lists(rule.own_settings, setting);
         });
}

std::vector<std::string> sampling_mistakes(const SampleSettings& sample,
                                           std::optional<Parameterization> parameterization) {
  Names mistakes;
  const Sampler sampler = sample.sampler();
  const SamplerRule& rule = rule_of(sampler);
  if (parameterization) {
    name_foreign(sample, kSampleOfVp, kSampleOfEdm, *parameterization, mistakes);
    if (!(*parameterization == Parameterization::kEdm ? rule.edm : rule.vp))
      mistakes.push_back(fmt::format(
          "{} is {}, which is not for networks of "
          "diffusion.parameterization={}; choose {}",
          place(sample.sampler), to_string(sampler), to_string(*parameterization), rule.instead));
  }
  name_unread(sample, parameterization, mistakes);
  name_idle(sample, parameterization, sample.guidance, "guided",
            {"sample.guidance_sigma_min", "sample.guidance_sigma_max"}, mistakes);
  name_idle(sample, parameterization, sample.s_churn, "churned",
            {"sample.s_min", "sample.s_max", "sample.s_noise"}, mistakes);
  if (sampler == Sampler::kUniPc)
    check_unipc(sample, mistakes);
  else if (sample.solver_type() == SolverType::kBh1 || sample.solver_type() == SolverType::kBh2)
    mistakes.push_back(
        fmt::format("{} is a form of unipc; of dpmpp solvers choose midpoint or heun",
                    place(sample.solver_type)));
  if (sample.sigma_min() >= sample.sigma_max())
    mistakes.push_back(
        fmt::format("{} is not below {}; levels go from the second down to the first",
                    place(sample.sigma_min), place(sample.sigma_max)));
  if (sample.s_max() && *sample.s_max() < sample.s_min())
    mistakes.push_back(
        fmt::format("{} is below {}, so that no step has churn; raise it, or set {}=0",
                    place(sample.s_max), place(sample.s_min), sample.s_churn.key()));
  if (sample.guidance_sigma_max() && *sample.guidance_sigma_max() < sample.guidance_sigma_min())
    mistakes.push_back(fmt::format(
        "{} is below {}, so that nothing is guided; raise it, or set {}=0",
        place(sample.guidance_sigma_max), place(sample.guidance_sigma_min), sample.guidance.key()));
  return mistakes;
}

std::vector<std::string> diffusion_mistakes(const DiffusionSettings& diffusion,
                                            std::optional<Parameterization> parameterization) {
  Names mistakes;
  if (!parameterization) return mistakes;
  name_foreign(diffusion, kDiffusionOfVp, kDiffusionOfEdm, *parameterization, mistakes);
  if (*parameterization == Parameterization::kEdm && diffusion.prediction() == Prediction::kSample)
    mistakes.push_back(fmt::format(
        "{} is sample, which an edm network does not predict: what it adds to the noisy image is "
        "scaled; choose epsilon",
        place(diffusion.prediction)));
  return mistakes;
}

}  // namespace sfumato
