#!/usr/bin/env python3
"""What diffusers saves beside a network is understood: noise schedules and prediction types of its
schedulers, which drawing and training take over, and weights in variants and shards.

The schedule that comes out is compared with the alphas_cumprod of the scheduler that went in.
"""
import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import DATA, USAGE, check, main, write_idx

try:
    import diffusers
    import torch
    from diffusers import DDPMScheduler, UNet2DModel
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
warnings.filterwarnings("ignore")

COSINE_V = dict(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
SCALED = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
SCHEDULERS = [
    ("DDPMScheduler", dict(COSINE_V, num_train_timesteps=100)),
    ("DDPMScheduler", dict(beta_schedule="sigmoid", variance_type="fixed_small_log")),
    ("DDPMScheduler", dict(variance_type="fixed_large_log", prediction_type="sample")),
    ("DDPMScheduler", dict(thresholding=True, clip_sample=False)),
    ("DDIMScheduler", dict(rescale_betas_zero_snr=True, prediction_type="v_prediction")),
    ("PNDMScheduler", dict(SCALED, skip_prk_steps=True, steps_offset=1)),
    ("DPMSolverMultistepScheduler", dict(SCALED, use_karras_sigmas=True)),  # -Infinity
    ("EulerDiscreteScheduler", dict(SCALED, prediction_type="v_prediction")),  # sigma_max null
    ("HeunDiscreteScheduler", {}),
    ("UniPCMultistepScheduler", dict(COSINE_V, num_train_timesteps=400)),
]
OTHERS = ["FlowMatchEulerDiscreteScheduler", "ScoreSdeVeScheduler", "LCMScheduler"]
TINY = dict(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8),
            layers_per_block=1, norm_num_groups=4, attention_head_dim=None,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"))


def check_schedule(name: str, scheduler, ours: dict) -> None:
    made = DDPMScheduler.from_config(ours)
    difference = (made.alphas_cumprod - scheduler.alphas_cumprod.float()).abs().max().item()
    # Solvers put 2^-24 in place of an alpha of 0.
    check(made.config.num_train_timesteps == scheduler.config.num_train_timesteps
          and difference < 1e-6, f"{name}: alphas_cumprod differ by {difference:.1e}")
    check(made.config.prediction_type == scheduler.config.prediction_type,
          f"{name}: prediction_type {made.config.prediction_type}")


def check_schedulers(sfumato, work: Path, network) -> None:
    folder = work / "scheduled"
    network.save_pretrained(folder / "unet")
    for number, (name, options) in enumerate(SCHEDULERS):
        scheduler = getattr(diffusers, name)(**options)
        scheduler.save_pretrained(folder / "scheduler")
        corpus = work / f"corpus{number}"
        sfumato.run("sample", folder, "--out", corpus, "--count", "1", "sample.steps=2", "--json")
        drawn = json.loads((corpus / "lineage.json").read_text())["settings"]["scheduler"]
        check_schedule(f"{name} {options}", scheduler, drawn)
        clips = not hasattr(scheduler.config, "clip_sample") or scheduler.config.clip_sample
        check(drawn["clip_sample"] == (clips or bool(scheduler.config.get("thresholding"))),
              f"{name}: clip_sample {drawn['clip_sample']}")
    # The steps themselves, for the variance that is taken through its logarithm.
    DDPMScheduler(variance_type="fixed_small_log").save_pretrained(folder / "scheduler")
    sfumato.run("sample", folder, "--out", work / "log", "--count", "1", "sample.steps=2",
                "sample.sampler=ddpm")
    DDPMScheduler(variance_type="fixed_large_log").save_pretrained(folder / "scheduler")
    sfumato.run("sample", folder, "--out", work / "none", "--count", "1", "sample.steps=2",
                "sample.sampler=ddpm", expect=DATA)
    for name in OTHERS:
        getattr(diffusers, name)().save_pretrained(folder / "scheduler")
        refused = sfumato.run("sample", folder, "--out", work / "none", "--count", "1", expect=DATA)
        check(name in refused.stderr, f"{name} is not named:\n{refused.stderr}")


def check_training(sfumato, work: Path, network) -> None:
    folder, store = work / "init", work / "store"
    network.save_pretrained(folder / "unet")
    scheduler = diffusers.UniPCMultistepScheduler(**COSINE_V, num_train_timesteps=200)
    scheduler.save_pretrained(folder / "scheduler")
    images, _ = write_idx(work, per_class=2, size=8)
    settings = [f"data.store={store}", f"model.init={folder}"]
    sfumato.run("prepare", f"data.source={images}", *settings)  # size and channels of the network
    train = [*settings, "mechanism.noise_multiplier=1", "mechanism.sample_rate=0.5",
             "mechanism.expected_batch_size=10", "mechanism.steps=1"]
    run = work / "run"
    sfumato.run("train", f"run.dir={run}", *train)
    release = json.loads((run / "release/scheduler/scheduler_config.json").read_text())
    check_schedule("the release", scheduler, release)
    refused = sfumato.run("train", f"run.dir={work / 'other'}", *train,
                          "diffusion.prediction=epsilon", expect=USAGE)
    check("prediction_type is v_prediction" in refused.stderr, refused.stderr)


def check_weights(sfumato, work: Path, network) -> None:
    draw = torch.Generator().manual_seed(5)
    inputs = {"sample": torch.randn(2, 1, 8, 8, generator=draw), "timestep": torch.tensor([3, 700]),
              "target": torch.zeros(2, 1, 8, 8)}
    save_file(inputs, work / "inputs.safetensors")
    half = UNet2DModel(**TINY).half()
    half.load_state_dict(network.state_dict())
    other = UNet2DModel(**TINY)
    folders = {}
    for name, saved, options in [("fp16", half, dict(variant="fp16", max_shard_size="20KB")),
                                 ("ema", network, dict(variant="ema", max_shard_size="50KB")),
                                 ("non_ema", network, dict(variant="non_ema"))]:
        folder = work / f"weights{len(folders)}"
        saved.save_pretrained(folder, **options)
        folders[folder] = name
    other.save_pretrained(work / "weights1", variant="non_ema")  # beside ema, which is taken
    for folder, variant in folders.items():
        model = UNet2DModel.from_pretrained(folder, variant=variant, low_cpu_mem_usage=False,
                                            torch_dtype=torch.float32)
        with torch.no_grad():
            theirs = model(inputs["sample"], inputs["timestep"]).sample
        sfumato.run("probe", folder, "--inputs", work / "inputs.safetensors", "--out",
                    work / "outputs.safetensors")
        ours = load_file(work / "outputs.safetensors")["out"]
        error = ((ours - theirs).norm() / theirs.norm()).item()
        check(error < 1e-5, f"{folder.name}: outputs differ by {error:.1e} relative")


def check_files(sfumato, work: Path, _) -> None:
    torch.manual_seed(1)
    network = UNet2DModel(**TINY)
    check_schedulers(sfumato, work, network)
    check_training(sfumato, work, network)
    check_weights(sfumato, work, network)


if __name__ == "__main__":
    main(check_files, __doc__.splitlines()[0])
