#!/usr/bin/env bash
# diffusers 0.42.1: scheduler settings that are accepted, saved and mean something else.
#
# Expected: variance_type="fixed_large_log", a documented value of DDPMScheduler, is a variance; a scheduler that is made
# from another's configuration follows what its own configuration says.
# Seen: with fixed_large_log every step but the last is NaN, without a word: the square root of log(beta) is taken, and
# log(beta) is negative. PNDMScheduler.from_config of a DDIMScheduler with rescale_betas_zero_snr keeps the setting in its
# configuration and saves it again, but its last alphas_cumprod is not 0: PNDMScheduler does not know the setting.
# shellcheck source=common.sh
source "$(dirname -- "$0")/common.sh"
install diffusers==0.42.1 torch==2.11.0 numpy==2.4.6

environment/bin/python -W ignore - <<'PYTHON'
import diffusers
import torch
from diffusers import DDIMScheduler, DDPMScheduler, PNDMScheduler

print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
finite = {}
for variance in ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"):
    scheduler = DDPMScheduler(variance_type=variance)
    scheduler.set_timesteps(10)
    sample = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    steps = [scheduler.step(torch.zeros_like(sample), t, sample).prev_sample for t in scheduler.timesteps]
    finite[variance] = sum(bool(step.isfinite().all()) for step in steps)
    print(f"DDPMScheduler {variance}: {finite[variance]} of {len(steps)} steps are finite")

ddim = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
pndm = PNDMScheduler.from_config(ddim.config)
last = [float(scheduler.alphas_cumprod[-1]) for scheduler in (ddim, pndm)]
says = pndm.config.get("rescale_betas_zero_snr")
print(f"last alphas_cumprod: DDIMScheduler {last[0]:.3g}, PNDMScheduler {last[1]:.3g}, "
      f"whose configuration says rescale_betas_zero_snr={says}")
same = (finite == {"fixed_small": 10, "fixed_small_log": 10, "fixed_large": 10, "fixed_large_log": 1} and
        last[0] < 1e-12 and last[1] > 1e-6 and says is True)
raise SystemExit(0 if same else 1)
PYTHON
