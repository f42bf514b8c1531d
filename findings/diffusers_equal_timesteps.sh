#!/usr/bin/env bash
# diffusers 0.42.1: DPMSolverMultistepScheduler and UniPCMultistepScheduler with use_karras_sigmas or
# use_exponential_sigmas and the cosine schedule (squaredcos_cap_v2).
#
# Expected: any of the four spacings of levels works with any of the schedules, in the loop that diffusers'
# documentation shows: set_timesteps(), then step() for each timestep.
# Seen: of the cosine schedule the noisiest levels share a timestep, since timesteps are rounded to integers (998, 998,
# 998, ... of 1000). step() looks its first timestep up, takes the second of equal ones for where it stands, leaves out
# the noisiest level and raises an error at the last step: IndexError, or of UniPC an AssertionError without words.
# After set_begin_index(0) the same loop draws. With the linear schedule no two timesteps are equal and both agree.
# shellcheck source=common.sh
source "$(dirname -- "$0")/common.sh"
install diffusers==0.42.1 torch==2.11.0 numpy==2.4.6

environment/bin/python -W ignore - <<'PYTHON'
import diffusers
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

IMAGE = 0.25  # the only image there is, in [-1, 1]: its denoiser is known exactly


def end(kind, schedule, levels, begin):
    """Of 20 steps from one noise; or the error."""
    scheduler = kind(num_train_timesteps=1000, beta_schedule=schedule, prediction_type="sample", **{levels: True})
    scheduler.set_timesteps(20)
    if begin:
        scheduler.set_begin_index(0)
    x = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    try:
        for t in scheduler.timesteps:
            x = scheduler.step(torch.full_like(x, IMAGE), t, x).prev_sample
    except (IndexError, AssertionError) as error:
        return type(error).__name__
    return f"{x.item():.4f}"


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
errors = {DPMSolverMultistepScheduler: "IndexError", UniPCMultistepScheduler: "AssertionError"}
as_said = True
for kind in (DPMSolverMultistepScheduler, UniPCMultistepScheduler):
    for levels in ("use_karras_sigmas", "use_exponential_sigmas"):
        for schedule in ("squaredcos_cap_v2", "linear"):
            plain, told = (end(kind, schedule, levels, begin) for begin in (False, True))
            print(f"{kind.__name__:28} {levels:23} {schedule:18} loop: {plain:14} with set_begin_index(0): {told}")
            as_said &= told == "0.2500" and plain == (told if schedule == "linear" else errors[kind])
raise SystemExit(0 if as_said else 1)
PYTHON
