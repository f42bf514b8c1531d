#!/usr/bin/env bash
# diffusers 0.42.1: timestep_spacing="trailing" makes one timestep too many for some numbers of steps.
#
# Expected: set_timesteps(n) gives n timesteps, the last of which is near 0.
# Seen: for 62 of the numbers from 1 to 1000 (61, 103, 121, ...) DDPMScheduler and DDIMScheduler give n + 1, and the
# last is -1: 1000 / n is rounded up a little as a float, and numpy.arange(1000, 0, -1000 / n) then holds one number
# more. step() takes -1 as an index from the end of the schedule, the noisiest level, without a word: with an exact
# denoiser 60 and 62 steps of DDPMScheduler end with the distribution of the images, and 61 with another one.
# shellcheck source=common.sh
source "$(dirname -- "$0")/common.sh"
install diffusers==0.42.1 torch==2.11.0 numpy==2.4.6

environment/bin/python -W ignore - <<'PYTHON'
import diffusers
import torch
from diffusers import DDIMScheduler, DDPMScheduler

MEAN, DEVIATION = 0.3, 0.5  # pixels are normal: their denoiser is known exactly


def timesteps(kind, steps):
    scheduler = kind(num_train_timesteps=1000, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(steps)
    return scheduler, [int(t) for t in scheduler.timesteps]


def deviation_at_the_end(steps):
    scheduler, times = timesteps(DDPMScheduler, steps)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(20000, 1, generator=generator, dtype=torch.float64)
    for t in times:
        alpha = scheduler.alphas_cumprod[t].double()
        variance = alpha * DEVIATION**2 + 1 - alpha
        image = (sample * alpha.sqrt() * DEVIATION**2 + MEAN * (1 - alpha)) / variance
        noise = (sample - alpha.sqrt() * image) / (1 - alpha).sqrt()
        sample = scheduler.step(noise, t, sample, generator=generator).prev_sample
    return float(sample.std())


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
wrong = {}
for kind in (DDPMScheduler, DDIMScheduler):
    wrong[kind] = [n for n in range(1, 1001) if len(timesteps(kind, n)[1]) != n]
    print(f"{kind.__name__}: {len(wrong[kind])} of 1000 numbers of steps give another number of timesteps, "
          f"the first are {wrong[kind][:5]}")
print(f"the last of 61: {timesteps(DDPMScheduler, 61)[1][-3:]}")
ends = {steps: deviation_at_the_end(steps) for steps in (60, 61, 62)}
for steps, deviation in ends.items():
    print(f"{steps} steps of DDPMScheduler: standard deviation {deviation:.3f} of {DEVIATION}")
same = wrong[DDPMScheduler] == wrong[DDIMScheduler] and len(wrong[DDPMScheduler]) == 62 and 61 in wrong[DDPMScheduler]
bad = abs(ends[61] - DEVIATION) > 5 * max(abs(ends[60] - DEVIATION), abs(ends[62] - DEVIATION))
raise SystemExit(0 if same and bad and timesteps(DDPMScheduler, 61)[1][-1] == -1 else 1)
PYTHON
