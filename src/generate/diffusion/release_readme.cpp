#include "generate/diffusion/release_readme.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/version.h"
#include "sfumato/generate/diffusion/noise_schedule.h"
#include "sfumato/generate/diffusion/solver.h"

namespace sfumato {
namespace {

/// Numbers of steps that divide the timesteps, the largest first, at most eight of them.
std::vector<int64_t> good_counts(int64_t total) {
  std::vector<int64_t> counts;
  for (int64_t steps = total; steps >= 1 && counts.size() < 8; --steps)
    if (total % steps == 0) counts.push_back(steps);
  return counts;
}

}  // namespace

std::string diffusers_caution(const Config& config) {
  try {
    const std::unique_ptr<Solver> solver =
        make_solver(NoiseSchedule(noise_schedule_options(config.diffusion)), config.sample,
                    config.diffusion.prediction());
    return solver->diffusers_difference();
  } catch (const UsageError&) {
    return "";  // `sample` will refuse these settings, which training does not use
  }
}

std::string release_readme(const Config& config) {
  const int64_t total = config.diffusion.num_train_timesteps();
  const std::string caution = diffusers_caution(config);
  const std::string own =
      caution.empty()
          ? ""
          : fmt::format("\nThe run's own settings, `sample.*`, are such a case: {}.\n", caution);
  return fmt::format(
      "# Image generator\n\n"
      "Trained by sfumato {}. What its training may have revealed: `privacy_card.md`. `unet/` "
      "holds "
      "the averaged\nweights and `scheduler/` the noise schedule, as diffusers' "
      "`DDPMPipeline.from_pretrained` reads them.\n\n"
      "## Drawing images\n\n"
      "`sfumato sample FOLDER --out corpus --count N` takes any number of steps and any "
      "`sample.spacing`: every step goes to\nthe next timestep of the list and the last to the "
      "image.\n\n"
      "diffusers' schedulers do so where `num_inference_steps` divides the {} timesteps ({}) and "
      "`timestep_spacing` is\n`leading` or `trailing`. Elsewhere (0.42):\n\n"
      "- `DDIMScheduler` steps back by the timesteps divided by the steps whatever its list says: "
      "with `trailing` or\n  `linspace` spacing the images keep noise.\n"
      "- `leading` spacing with more than half as many steps as timesteps starts in the middle of "
      "the schedule.\n"
      "- `trailing` spacing has one timestep too many for some numbers (61 of 1000); the last is "
      "-1 and spoils the image.\n"
      "- `DDPMScheduler` with `trailing` spacing and `variance_type: fixed_large` adds noise to "
      "the finished image, also where\n  the steps divide the timesteps.\n{}",
      version(), total, fmt::join(good_counts(total), ", "), own);
}

}  // namespace sfumato
