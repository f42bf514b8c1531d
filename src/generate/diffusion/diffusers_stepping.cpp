// What diffusers' DDPMScheduler and DDIMScheduler (0.42) do with the same options.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sfumato/generate/diffusion/sampler.h"

namespace sfumato {
namespace {

/// diffusers takes its trailing timesteps from numpy.arange(T, 0, -T / steps), which holds one more
/// where T / (T / steps) rounds to more than `steps`.
bool has_a_timestep_too_many(int64_t total, int64_t steps) {
  const auto whole = static_cast<double>(total);
  return std::ceil(whole / (whole / static_cast<double>(steps))) > static_cast<double>(steps);
}

/// Whether DDIMScheduler goes to the next timestep of this list: it steps back by T / steps.
bool steps_to_the_next(const std::vector<int64_t>& timesteps, int64_t stride, int64_t after_last) {
  for (std::size_t i = 0; i < timesteps.size(); ++i) {
    const int64_t wanted = i + 1 < timesteps.size() ? timesteps[i + 1] : after_last;
    const int64_t previous = timesteps[i] - stride;
    if ((previous < 0 ? after_last : previous) != wanted) return false;
  }
  return true;
}

}  // namespace

std::string Sampler::diffusers_difference() const {
  const int64_t total = schedule_.num_train_timesteps, stride = total / options_.steps;
  const std::string what = fmt::format("{} steps of {} spacing over {} timesteps", options_.steps,
                                       to_string(options_.spacing), total);
  const std::string remedy = fmt::format(
      "with diffusers choose leading or trailing spacing and a number of steps that divides {}",
      total);
  if (options_.spacing == TimestepSpacing::kTrailing &&
      has_a_timestep_too_many(total, options_.steps))
    return fmt::format(
        "diffusers makes {} timesteps of {}, the last of which is -1 and turns the finished image "
        "into a wrong one; {}",
        options_.steps + 1, what, remedy);
  if (options_.kind == SamplerKind::kDdim) {
    // Without set_alpha_to_one timestep 0 and what follows it are the same level.
    const int64_t after_last = options_.set_alpha_to_one ? -1 : 0;
    if (steps_to_the_next(timesteps_, stride, after_last)) return last_noise_of_diffusers(what);
    return fmt::format(
        "diffusers' DDIMScheduler steps back by {} whatever its list says, so that {} leave other "
        "noise in an image than the network is told; {}",
        stride, what, remedy);
  }
  if (timesteps_.back() == 0 || options_.variance != DdpmVariance::kFixedLarge) return "";
  return fmt::format(
      "diffusers' DDPMScheduler with variance_type fixed_large adds noise of {:.1f} grey levels to "
      "the finished image after {}; with diffusers choose fixed_small, or leading spacing without "
      "steps_offset",
      127.5 * static_cast<double>(steps_.back().deviation), what);
}

/// Of DDIMScheduler with eta, where its last step ends at timestep 0 and not without noise.
std::string Sampler::last_noise_of_diffusers(const std::string& what) const {
  const float alpha = steps_.back().alpha, end = steps_.back().alpha_prev;
  const double variance = (1.0 - end) / (1.0 - alpha) * (1.0 - static_cast<double>(alpha) / end);
  const double deviation = options_.eta * std::sqrt(std::max(variance, 0.0));
  if (!(deviation > 0)) return "";
  return fmt::format(
      "diffusers' DDIMScheduler with eta {} and without set_alpha_to_one adds noise of {:.1f} grey "
      "levels to the finished image after {}; with diffusers choose set_alpha_to_one, or leading "
      "spacing without steps_offset",
      options_.eta, 127.5 * deviation, what);
}

std::string Sampler::start_defect() const {
  const double here = std::sqrt(static_cast<double>(steps_.front().alpha));
  if (here < std::sqrt(static_cast<double>(noisiest_alpha_)) + 0.1) return "";
  return fmt::format(
      "{} steps of {} spacing start at timestep {} of {}, where the noise schedule still holds "
      "{:.0f} % of an image: what is drawn from noise alone will be poor; use "
      "sample.spacing=trailing",
      options_.steps, to_string(options_.spacing), timesteps_.front(),
      schedule_.num_train_timesteps, 100 * here);
}

}  // namespace sfumato
