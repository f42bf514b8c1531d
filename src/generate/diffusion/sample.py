#!/usr/bin/env python3
"""Draws images from the network beside this file by Heun's or Euler's method with churn.

    python sample.py --count 16 --out images            # equal shares of the classes
    python sample.py --count 16 --label 3 --seed 1      # of one class

Karras et al. 2022 (arXiv 2206.00364), algorithm 2, which no scheduler of diffusers 0.42 is. It needs
PyTorch, and diffusers for the network, or network.py where that lies beside it. Class and number name an image: with the same seed it is the one
that `sfumato sample` draws, which may want other numbers of each class.
"""
import argparse
import hashlib
import json
import math
import struct
import warnings
import zlib
from pathlib import Path

warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # which nothing here needs
import torch

HERE = Path(__file__).resolve().parent
SETTINGS = json.loads("""__SETTINGS__""")


# ---------------------------------------------------------------------------------------- random
# shared: MASK =


# ------------------------------------------------------------------------------------------ files
# shared: def write_png


# ------------------------------------------------------------------------------------------ method
def network_at(network, x, sigma, labels):
    """The network's answer; guided where sigma is in the interval of guidance."""
    told = torch.full((len(x),), math.log(sigma) / 4, dtype=torch.float32)
    answer = network(x, told, class_labels=labels).sample
    low, high, w = (SETTINGS[f"guidance{end}"] for end in ("_sigma_min", "_sigma_max", ""))
    if not w or sigma < low * (1 - 1e-6) or (high is not None and sigma > high * (1 + 1e-6)):
        return answer
    nothing = torch.full_like(labels, SETTINGS["num_classes"])
    return (1 + w) * answer - w * network(x, told, class_labels=nothing).sample


def denoised(network, x, sigma, labels):
    """D(x, sigma) = skip x + out F(in x, ln(sigma) / 4), clipped. float64."""
    scheduler = SETTINGS["scheduler"]
    data = scheduler["sigma_data"]
    norm = math.hypot(sigma, data)
    out = sigma * data / norm * (-1 if scheduler["prediction_type"] == "v_prediction" else 1)
    answer = network_at(network, (x / norm).float(), sigma, labels)
    image = (data / norm) ** 2 * x + out * answer.double()
    most = SETTINGS["clip_sample_range"]
    return image.clamp(-most, most) if SETTINGS["clip_sample"] else image


def raised(sigma):
    least, most = SETTINGS["s_min"], SETTINGS["s_max"]
    if sigma < least or (most is not None and sigma > most):
        return sigma
    return sigma * (1 + min(SETTINGS["s_churn"] / SETTINGS["steps"], math.sqrt(2) - 1))


def solve(network, noise, labels):
    """`noise(moment)`: standard normal, [N, C, H, W]; moment 0 is the start."""
    sigmas = SETTINGS["sigmas"]
    x = (sigmas[0] * noise(0)).double()
    for i, (sigma, after) in enumerate(zip(sigmas, sigmas[1:])):
        high = raised(sigma)
        if high > sigma:
            x = x + SETTINGS["s_noise"] * math.sqrt(high ** 2 - sigma ** 2) * noise(i + 1).double()
        slope = (x - denoised(network, x, high, labels)) / high
        to = x + (after - high) * slope
        if SETTINGS["solver"] == "heun" and i + 2 < len(sigmas):
            second = (to - denoised(network, to, after, labels)) / after
            to = x + (after - high) * (slope + second) / 2
        x = to
    return x.float()


def opened(folder):
    """The network, in whose place diffusers would make none of blocks that it does not know."""
    if any("DDPMpp" in kind for kind in json.loads((folder / "config.json").read_text())["down_block_types"]):
        from network import load
        return load(folder)
    from diffusers import UNet2DModel
    return UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False).eval()


# -------------------------------------------------------------------------------------- pictures
@torch.no_grad()
def images(network, ids, seed):
    """uint8 [N, height, width, channels] of (label, index)."""
    size, channels = network.config.sample_size, network.config.in_channels
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    shape = (channels, height, width)

    def noise(moment):
        drawn = [normals(b"sfumato sampled images 1", seed, label, moment, index, math.prod(shape))
                 for label, index in ids]
        return torch.stack(drawn).view(-1, *shape)

    labels = torch.tensor([label for label, _ in ids]) if network.config.num_class_embeds else None
    levels = (solve(network, noise, labels) / 2 + 0.5).clamp(0, 1).mul(255).round()
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def wanted(count, label):
    """(label, index) of `count` images: of one class, or equal shares, the first classes' larger."""
    classes = max(SETTINGS["num_classes"], 1)
    if label is not None:
        if not 0 <= label < classes:
            raise SystemExit(f"--label {label} lies outside 0 to {classes - 1}")
        return [(label, index) for index in range(count)]
    return [(i % classes, i // classes) for i in range(count)]


# shared: def whole


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", type=Path, default=HERE / "unet", help="its folder")
    parser.add_argument("--out", type=Path, default=Path("images"), help="OUT/LABEL/INDEX.png")
    parser.add_argument("--count", type=whole(1, 10 ** 9), default=16)
    parser.add_argument("--label", type=int, help="one class; default: all alike")
    parser.add_argument("--seed", type=whole(0, 2 ** 63 - 1), default=0)
    parser.add_argument("--batch", type=whole(1, 65536), default=64, help="images drawn together")
    arguments = parser.parse_args()
    network = opened(arguments.network)
    ids = wanted(arguments.count, arguments.label)
    batches = (ids[at:at + arguments.batch] for at in range(0, len(ids), arguments.batch))
    write_images((drawn for some in batches for drawn in zip(some, images(network, some, arguments.seed))),
                 arguments.out)


if __name__ == "__main__":
    main()
