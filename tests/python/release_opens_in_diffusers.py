#!/usr/bin/env python3
"""release/ of a run opens in diffusers, whose network then computes what `sfumato probe` computes.

Without --run, two small runs are made: with classes, and without (which DDPMPipeline also samples). Then
one for each solver: the scheduler of its release draws the images of `sfumato sample` to two grey levels,
and so does sample.py where there is no such scheduler.
"""
import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import (check, complete_checkpoints, main, prepare_small_store, smoke_arguments,
                         write_idx)

try:
    import torch
    from diffusers import DDPMPipeline
    from diffusers.schedulers import scheduling_edm_dpmsolver_multistep
    from safetensors.torch import load_file, save_file
    import numpy
    from PIL import Image
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
warnings.filterwarnings("ignore")


def compare_network(sfumato, pipeline, release: Path, work: Path) -> None:
    unet = pipeline.unet.eval()
    size, channels = unet.config.sample_size, unet.config.in_channels
    draw = torch.Generator().manual_seed(3)
    inputs = {"sample": torch.randn(3, channels, size, size, generator=draw),
              "timestep": torch.tensor([0, 17, 999]),
              "target": torch.randn(3, channels, size, size, generator=draw)}
    labels = None
    if unet.config.num_class_embeds:
        labels = inputs["class_labels"] = torch.tensor([0, 1, unet.config.num_class_embeds - 1])
    save_file(inputs, work / "inputs.safetensors")
    sfumato.run("probe", release, "--inputs", work / "inputs.safetensors", "--out",
                work / "outputs.safetensors")
    ours = load_file(work / "outputs.safetensors")["out"]
    with torch.no_grad():
        theirs = unet(inputs["sample"], inputs["timestep"], class_labels=labels).sample
    error = ((ours - theirs).norm() / theirs.norm()).item()
    check(error < 1e-5, f"outputs differ by {error:.1e} relative")


def check_release(sfumato, run: Path, work: Path):
    release = run / "release"
    pipeline = DDPMPipeline.from_pretrained(release, low_cpu_mem_usage=False)
    compare_network(sfumato, pipeline, release, work)
    steps = complete_checkpoints(run)
    if steps:
        average = load_file(run / f"private/checkpoints/step_{steps[-1]:06d}/ema.safetensors")
        weights = dict(pipeline.unet.named_parameters())
        shared = average.keys() & weights.keys()
        check(shared, f"the checkpoint's average has other names: {sorted(average)[:3]}")
        check(all(torch.equal(average[name], weights[name]) for name in shared),
              "the release does not hold the averaged weights")
    return pipeline


EDM = ("diffusion.parameterization=edm", "diffusion.schedule=linear")
# What `sfumato sample` draws with, and the scheduler that a release then carries.
SOLVERS = [
    (("sample.sampler=dpmpp_1", "sample.spacing=linspace"), "DPMSolverMultistepScheduler"),
    (("sample.sampler=dpmpp_2m", "diffusion.schedule=linear"), "DPMSolverMultistepScheduler"),
    (("sample.sampler=dpmpp_2m", "sample.solver_type=heun", "sample.sigma_schedule=exponential",
      "diffusion.schedule=linear"), "DPMSolverMultistepScheduler"),
    (("sample.sampler=dpmpp_3m", "sample.sigma_schedule=karras", "sample.steps=16"),
     "DPMSolverMultistepScheduler"),
    (("sample.sampler=sde_dpmpp_2m", "sample.spacing=leading", "sample.steps_offset=1",
      "diffusion.schedule=linear"), "DPMSolverMultistepScheduler"),
    (("sample.sampler=unipc",), "UniPCMultistepScheduler"),
    (("sample.sampler=unipc", "sample.solver_order=3", "sample.sigma_schedule=karras",
      "sample.disable_corrector=0", "sample.clip_sample=false", "diffusion.schedule=linear"),
     "UniPCMultistepScheduler"),
    (EDM, "EDMDPMSolverMultistepScheduler"),
    ((*EDM, "sample.sampler=euler", "sample.clip_sample=false"), "EDMEulerScheduler"),
    ((*EDM, "sample.sampler=dpmpp_2m", "diffusion.prediction=epsilon"),
     "EDMDPMSolverMultistepScheduler"),
    ((*EDM, "sample.sampler=dpmpp_3m", "sample.sigma_schedule=exponential"),
     "EDMDPMSolverMultistepScheduler"),
    ((*EDM, "sample.sampler=sde_dpmpp_2m"), "EDMDPMSolverMultistepScheduler")]
SCRIPTED = [
    ((*EDM, "sample.sampler=heun", "sample.s_churn=3", "sample.s_min=0.05", "sample.s_max=50",
      "sample.s_noise=1.003", "sample.guidance=0.5", "sample.guidance_sigma_max=5")),
    ((*EDM, "sample.sampler=euler", "sample.s_churn=100"))]
CLASSES, EACH, SEED = 10, 2, 4


def noise_source(ids, shape):
    """Of moments: what `sfumato sample` draws for these (label, index)."""
    spec = importlib.util.spec_from_file_location(
        "gan_sample", Path(__file__).resolve().parents[2] / "src/generate/gan/sample.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    size = shape[0] * shape[1] * shape[2]

    def noise(moment):
        return torch.stack([script.normals(b"sfumato sampled images 1", SEED, label, moment, index,
                                           size) for label, index in ids]).view(-1, *shape)
    return noise


@torch.no_grad()
def drawn_by_diffusers(release: Path, ids, steps: int):
    """As the README of a release draws, with the noise of `sfumato sample`."""
    pipeline = DDPMPipeline.from_pretrained(release, low_cpu_mem_usage=False)
    unet, scheduler = pipeline.unet.eval(), pipeline.scheduler
    side = unet.config.sample_size
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    noise = noise_source(ids, (unet.config.in_channels, height, width))
    labels = torch.tensor([label for label, _ in ids])
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    x = scheduler.init_noise_sigma * noise(0)
    for i, t in enumerate(scheduler.timesteps):
        output = unet(scheduler.scale_model_input(x, t), t, class_labels=labels).sample
        fresh = {}
        if scheduler.config.get("algorithm_type") == "sde-dpmsolver++":
            scheduling_edm_dpmsolver_multistep.randn_tensor = lambda *_, **__: noise(i + 1)
            if type(scheduler).__name__ == "DPMSolverMultistepScheduler":
                fresh = {"variance_noise": noise(i + 1)}
        x = scheduler.step(output, t, x, **fresh).prev_sample
    levels = (x / 2 + 0.5).clamp(0, 1).mul(255).round()
    return type(scheduler).__name__, levels.permute(0, 2, 3, 1).int()


def pictures(folder: Path, ids):
    found = [numpy.asarray(Image.open(folder / f"{label}/{index:06}.png")) for label, index in ids]
    return torch.from_numpy(numpy.stack(found).astype("int32")).view(len(ids), *found[0].shape[:2], -1)


def compare(ours, theirs, what: str) -> None:
    worst = (ours - theirs).abs().max().item()
    check(worst <= 2, f"{what}: {worst} grey levels apart")
    check(ours.float().std() > 3, f"{what}: the images are all alike")


def compare_drawings(sfumato, work: Path, store: Path) -> None:
    ids = [(label, index) for label in range(CLASSES) for index in range(EACH)]
    count = str(len(ids))
    for number, (overrides, scheduler) in enumerate(SOLVERS + [(o, None) for o in SCRIPTED]):
        run = small_run(sfumato, work, store, f"solver_{number}", "sample.steps=8",
                        "preview.images=0", *overrides)
        corpus = work / f"corpus_{number}"
        sfumato.run("sample", run, "--out", corpus, "--count", count, f"sample.seed={SEED}")
        what = " ".join(overrides)
        ours = pictures(corpus / "images", ids)
        steps = 16 if "sample.steps=16" in overrides else 8
        if scheduler:
            name, theirs = drawn_by_diffusers(run / "release", ids, steps)
            check(name == scheduler, f"{what}: a {name} instead of a {scheduler}")
            compare(ours, theirs, what)
            continue
        subprocess.run([sys.executable, run / "release/sample.py", "--out", work / f"own_{number}",
                        "--count", count, "--seed", str(SEED)], check=True,
                       stdout=subprocess.DEVNULL)
        compare(ours, pictures(work / f"own_{number}", ids), what)


def small_run(sfumato, work: Path, store: Path, name: str, *overrides: str) -> Path:
    run = work / name
    sfumato.run("train", *smoke_arguments(store, run, "mechanism.steps=3", *overrides))
    return run


def check_diffusers(sfumato, work: Path, arguments):
    if arguments.run:
        check_release(sfumato, arguments.run.resolve(), work)
        return
    store = prepare_small_store(sfumato, work)
    check_release(sfumato, small_run(sfumato, work, store, "with_classes"), work)
    compare_drawings(sfumato, work, store)

    images, _ = write_idx(work, 40)
    store = work / "store_without_classes"
    sfumato.run("prepare", "--config", "configs/smoke.yaml", f"data.source={images}",
                "data.labels=", f"data.store={store}", "data.num_classes=0")
    run = small_run(sfumato, work, store, "without_classes", "data.num_classes=0",
                    "diffusion.label_dropout=0")
    pipeline = check_release(sfumato, run, work)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, num_inference_steps=2, output_type="np").images
    check(images.shape[0] == 2 and images.shape[1:3] == (16, 16), f"images of {images.shape}")


if __name__ == "__main__":
    main(check_diffusers, __doc__.splitlines()[0],
         lambda parser: parser.add_argument("--run", type=Path, help="check this run directory"))
