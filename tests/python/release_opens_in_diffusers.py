#!/usr/bin/env python3
"""release/ of a run opens in diffusers, whose network then computes what `sfumato probe` computes.

Without --run, two small runs are made: with classes, and without (which DDPMPipeline also samples).
"""
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import (check, complete_checkpoints, main, prepare_small_store, smoke_arguments,
                         write_idx)

try:
    import torch
    from diffusers import DDPMPipeline
    from safetensors.torch import load_file, save_file
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
