#!/usr/bin/env bash
# diffusers 0.42.1: DDIMScheduler with timestep_spacing="trailing" and a number of steps that does not divide
# num_train_timesteps.
#
# Expected: "trailing" is the spacing that ends at the clean image; with an exact denoiser every number of steps
# gives the clean image, and more steps are never worse.
# Seen: with 1000 timesteps and 40, 100, 250 or 500 steps the end is exact. With 334 or 501 steps noise of many grey
# levels (of 255) is left, 5 and 11, although there are more of them. The list of timesteps is spread by 1000 / steps, but step() goes to
# timestep - 1000 // steps: each step ends at a noisier level than the next one starts from, and the last one
# above timestep 0. UNet2DModel and pipelines are not involved.
# shellcheck source=common.sh
source "$(dirname -- "$0")/common.sh"
install diffusers==0.42.1 torch==2.11.0 numpy==2.4.6

environment/bin/python -W ignore - <<'PYTHON'
import diffusers
import torch
from diffusers import DDIMScheduler

IMAGE = 0.25  # the only image there is, in [-1, 1]: its denoiser is known exactly


def noise_left(steps):
    """Standard deviation around IMAGE at the end, in grey levels of 255."""
    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing", clip_sample=False,
                              set_alpha_to_one=True)
    scheduler.set_timesteps(steps)
    sample = torch.randn(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[t].double()
        noise = (sample - alpha.sqrt() * IMAGE) / (1 - alpha).sqrt()
        sample = scheduler.step(noise, t, sample).prev_sample
    return float((sample - IMAGE).square().mean().sqrt()) * 127.5


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
left = {steps: noise_left(steps) for steps in (40, 50, 100, 250, 334, 500, 501, 667)}
for steps, levels in left.items():
    print(f"{steps:4} steps ({'divide' if 1000 % steps == 0 else 'do not divide'} 1000): "
          f"noise of {levels:.2f} grey levels is left")
exact = all(levels < 0.01 for steps, levels in left.items() if 1000 % steps == 0)
raise SystemExit(0 if exact and left[334] > 2 and left[501] > 2 else 1)
PYTHON
