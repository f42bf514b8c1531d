#include "generate/diffusion/release_readme.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cctype>
#include <vector>

#include "generate/diffusion/released_solver.h"
#include "sfumato/core/version.h"

namespace sfumato {
namespace {

/// Numbers of steps that divide the timesteps, the largest first, at most eight of them.
std::vector<int64_t> good_counts(int64_t total) {
  std::vector<int64_t> counts;
  for (int64_t steps = total; steps >= 1 && counts.size() < 8; --steps)
    if (total % steps == 0) counts.push_back(steps);
  return counts;
}

/// How to open the network and its scheduler.
std::string opening(bool own_blocks, const std::string& scheduler) {
  if (!own_blocks)
    return "import torch\n"
           "from diffusers import DDPMPipeline\n\n"
           "pipeline = DDPMPipeline.from_pretrained(\"FOLDER\")\n"
           "unet, scheduler = pipeline.unet, pipeline.scheduler\n";
  return fmt::format(
      "import torch\n"
      "from diffusers import {0}\n\n"
      "from network import load  # network.py of FOLDER\n\n"
      "unet = load(\"FOLDER/unet\")\n"
      "scheduler = {0}.from_pretrained(\"FOLDER/scheduler\")\n",
      scheduler);
}

/// Where diffusers' own pipeline does not know the scheduler or the network: a loop that all know.
std::string own_loop(const Config& config, const ReleasedSolver& solver, bool own_blocks) {
  const bool classes = config.data.num_classes() > 0;
  const auto scheduler = solver.scheduler_config.at("_class_name").get<std::string>();
  std::string difference = solver.difference;
  if (!difference.empty()) difference[0] = static_cast<char>(std::toupper(difference[0]));
  return fmt::format(
      "# Image generator\n\n"
      "Trained by sfumato {}. What its training may have revealed: `privacy_card.md`. `unet/` "
      "holds "
      "the averaged\nweights and `scheduler/` a {} of diffusers (0.42).\n\n"
      "## Drawing images\n\n"
      "`sfumato sample FOLDER --out corpus --count N sample.sampler={} sample.steps={}`, or with "
      "diffusers, {}:\n\n"
      "```python\n"
      "{}"
      "scheduler.set_timesteps({})\n"
      "{}"
      "x = scheduler.init_noise_sigma * torch.randn(16, {}, {}, {})\n"
      "{}"
      "for t in scheduler.timesteps:\n"
      "    scaled = scheduler.scale_model_input(x, t)\n"
      "    with torch.no_grad():\n"
      "        output = unet(scaled, t{}).sample\n"
      "    x = scheduler.step(output, t, x).prev_sample\n"
      "```\n{}{}",
      version(), scheduler, to_string(config.sample.sampler()), config.sample.steps(),
      own_blocks
          ? "whose\n`UNet2DModel` does not have the blocks of this network: `network.py` is it"
          : "whose\n`DDPMPipeline` opens the folder, but does not draw by this scheduler",
      opening(own_blocks, scheduler), config.sample.steps(),
      scheduler == "DDPMScheduler" ? ""
                                   : "scheduler.set_begin_index(0)  # it takes the second of equal "
                                     "timesteps for the first\n",
      config.data.channels(), config.data.image_size(), config.data.image_size(),
      classes ? fmt::format("labels = torch.arange(16) % {}\n", config.data.num_classes()) : "",
      classes ? ", class_labels=labels" : "",
      difference.empty() ? "" : fmt::format("\n{}.\n", difference),
      solver.script.empty() ? ""
                            : "\n`python sample.py --count 16 --out images` draws what `sfumato "
                              "sample` draws with the settings of the run.\n");
}

}  // namespace

std::string release_readme(const Config& config, bool own_blocks) {
  const ReleasedSolver solver = released_solver(config);
  if (own_blocks || solver.scheduler_config.at("_class_name") != "DDPMScheduler")
    return own_loop(config, solver, own_blocks);
  const int64_t total = config.diffusion.num_train_timesteps();
  const std::string& caution = solver.difference;
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
