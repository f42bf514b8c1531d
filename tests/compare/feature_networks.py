#!/usr/bin/env python3
"""Holds every layer of the feature networks against PyTorch's networks, and resizing against Pillow's.

    cmake --build build/release --target feature_layers
    tests/compare/feature_networks.py                      # with weights by a formula
    tests/compare/feature_networks.py --squeezenet squeezenet_v1.0_imagenet.safetensors \\
        --efficientnet efficientnet-lite0.safetensors      # and with real ones
    tests/compare/feature_networks.py --golden             # prints what tests/features checks against

References: torchvision's SqueezeNet, efficientnet-lite-pytorch's EfficientNet, pytorch-fid's and
torch-fidelity's Inception, clean-fid's resizing, the network of scripts/train-lenet. Needs these packages
(pytorch-fid 0.3.0, torch-fidelity 0.4.0, clean-fid 0.1.35, efficientnet-lite-pytorch 0.1.0, torchvision), installed
with --no-deps beside torch, Pillow and scipy. Largest differences are relative to the largest value of a layer.
Status 1 if one is above the bound.
"""
import argparse
import contextlib
import importlib.machinery
import importlib.util
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
BOUND = 5e-5


def script(name):
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(ROOT / "scripts" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


IMPORT = script("import-checkpoint")


# ------------------------------------------------- the formula of tests/features/formula_weights.h
def hashed(name, count):
    """Numbers in [0, 1), by the name of their tensor and their place."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 & 0xffffffff
    x = torch.arange(count, dtype=torch.int64) + seed & 0xffffffff
    for _ in range(2):
        x = (x ^ x >> 16) * 0x45d9f3b & 0xffffffff
    return ((x ^ x >> 16) >> 8).double() / 2**24


def formula(name, shape):
    u = hashed(name, int(numpy.prod(shape))).view(shape)
    if len(shape) > 1:
        fan_in = numpy.prod(shape) / shape[0]
        return ((u - .5) * 2 * (6 / fan_in) ** .5).float()
    if name.endswith((".running_var", ".weight")):
        return (.75 + .5 * u).float()
    return ((u - .5) * .2).float()


def formula_images(channels):
    u = hashed("images", 2 * 20 * 24 * channels).view(2, 20, 24, channels)
    return (u * 256).floor().to(torch.uint8)


# --------------------------------------------------------------------------------- resizing
def clean(images, side):
    """clean-fid's own resizer where it is of 299 pixels, and of its kind elsewhere."""
    from cleanfid.resize import build_resizer, make_resizer
    resize = build_resizer("clean") if side == 299 else make_resizer("PIL", False, "bicubic", (side, side))
    if images.shape[-1] == 1:
        images = images.expand(-1, -1, -1, 3)
    return torch.stack([torch.from_numpy(resize(image.numpy()).copy()) for image in images]).permute(0, 3, 1, 2)


# --------------------------------------------------------------------------------- references
class Watched:
    """Outputs of modules, by the names of our layers."""

    def __init__(self, module, layers):
        self.seen = {}
        for ours, theirs in layers.items():
            module.get_submodule(theirs).register_forward_hook(
                lambda _, __, out, ours=ours: self.seen.__setitem__(ours, out.clone()))


def squeezenet(weights):
    from torchvision.models import squeezenet1_0
    net = squeezenet1_0().eval()
    place = {2: 3, 3: 4, 4: 5, 5: 7, 6: 8, 7: 9, 8: 10, 9: 12}
    names = {"features.0": "conv1", "classifier.1": "conv_final"}
    for number, at in place.items():
        for theirs, ours in (("squeeze", "conv1x1_1"), ("expand1x1", "conv1x1_2"), ("expand3x3", "conv3x3_2")):
            names[f"features.{at}.{theirs}"] = f"fire{number}.{ours}"
    state = load(net, weights, lambda name: names[name.rpartition(".")[0]] + "." + name.rpartition(".")[2])
    watched = Watched(net, {"conv1": "features.1"} | {f"fire{n}": f"features.{at}" for n, at in place.items()})

    def run(images):
        x = clean(images, 127).flip(1) - torch.tensor([104., 117, 123]).view(1, 3, 1, 1)
        logits = net(x)
        return watched.seen | {"input": x, "features": watched.seen["fire9"].mean((2, 3)), "logits": logits}
    return state, run


def efficientnet(weights):
    from efficientnet_lite_pytorch import EfficientNet
    net = EfficientNet.from_name("efficientnet-lite0", image_size=64).eval()
    state = load(net, weights, lambda name: name)
    watched = Watched(net, {f"block{i + 1}": f"_blocks.{i}" for i in range(16)})
    head = []
    net._avg_pooling.register_forward_pre_hook(lambda _, inputs: head.append(inputs[0]))

    def run(images):
        x = (clean(images, 64) - 127) / 128
        with contextlib.redirect_stdout(io.StringIO()):
            logits = net(x)
        if head:
            watched.seen["head"] = head.pop()
        return watched.seen | {"input": x, "features": watched.seen["block15"].mean((2, 3)), "logits": logits}
    return state, run


def lenet(weights):
    net = script("train-lenet").LeNet(52).eval()
    state = load(net, weights, lambda name: name)

    def run(images):
        x = clean(images, 28)[:, :1] / 127.5 - 1
        return {"input": x, "features": net.features(x), "logits": net(x)}
    return state, run


MIXED = [f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")]
STEM = ["Conv2d_2b_3x3", "Conv2d_4a_3x3"]


def inception_pytorch_fid(weights):
    """After clean-fid's resizing."""
    from pytorch_fid import inception
    inception.load_state_dict_from_url = lambda *_, **__: None
    load_state, torch.nn.Module.load_state_dict = torch.nn.Module.load_state_dict, lambda *_, **__: None
    net = inception.fid_inception_v3().eval()
    torch.nn.Module.load_state_dict = load_state
    state = load(net, weights, lambda name: name)
    watched = Watched(net, {name: name for name in MIXED + STEM})

    def run(images):
        x = (clean(images, 299) - 128) / 128
        y = net.Conv2d_2b_3x3(net.Conv2d_2a_3x3(net.Conv2d_1a_3x3(x)))
        y = net.Conv2d_4a_3x3(net.Conv2d_3b_1x1(functional.max_pool2d(y, 3, 2)))
        y = functional.max_pool2d(y, 3, 2)
        for name in MIXED:
            y = net.get_submodule(name)(y)
        features = functional.adaptive_avg_pool2d(y, 1).flatten(1)
        return watched.seen | {"input": x, "features": features, "logits": features @ net.fc.weight.T}
    return state, run


def inception_torch_fidelity(weights):
    """From images to logits, its own resizing included."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs
    theirs.load_state_dict_from_url = lambda *_, **__: None
    load_state, torch.nn.Module.load_state_dict = torch.nn.Module.load_state_dict, lambda *_, **__: None
    net = theirs.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"])
    torch.nn.Module.load_state_dict = load_state
    state = load(net, weights, lambda name: name)
    watched = Watched(net, {name: name for name in MIXED + STEM})
    inputs = []
    net.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))

    def run(images):
        features, logits = net(images.expand(-1, -1, -1, 3).permute(0, 3, 1, 2))
        return watched.seen | {"input": inputs.pop(), "features": features, "logits": logits}
    return state, run


def load(net, weights, ours):
    """Gives the network `weights`, or those of the formula: what it then has, by our names."""
    state = {}
    for name, tensor in net.state_dict().items():
        if not tensor.is_floating_point():
            continue
        key = ours(name)
        value = weights[key] if weights else formula(key, tuple(tensor.shape))
        with torch.no_grad():
            tensor.copy_(value)
        state[key] = value
    return state


# ---------------------------------------------------------------------------------- ours, and both
def read(path):
    from safetensors.torch import load_file
    return load_file(path)


def ours(program, network, state, images):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        IMPORT.write_safetensors(folder / "weights.safetensors", state)
        IMPORT.write_safetensors(folder / "images.safetensors", {"images": images})
        speed = subprocess.run([program, network, *(folder / f"{name}.safetensors"
                                                    for name in ("weights", "images", "out"))],
                               check=True, capture_output=True, text=True).stdout
        return read(folder / "out.safetensors"), float(speed)


def compare(program, title, network, make, weights, images):
    state, run = make(weights)
    with torch.no_grad():
        wanted = run(images)
    found, speed = ours(program, network, state, images)
    print(f"{title}: {len(images)} images, {speed:.1f} images/s")
    worst, compared = 0, [name for name in wanted if name in found]
    for name in compared:
        assert wanted[name].shape == found[name].shape, (name, wanted[name].shape, found[name].shape)
        scale = wanted[name].abs().max().item()
        difference = (wanted[name] - found[name]).abs().max().item() / scale
        worst = max(worst, difference)
        print(f"    {name:14} {str(tuple(found[name].shape)):22} largest {scale:9.3g}   differs by {difference:.1e}")
    missing = {"input", "features", "logits"} - set(compared)
    assert not missing, missing
    return worst


def golden(make, channels):
    _, run = make(None)
    with torch.no_grad():
        found = run(formula_images(channels))
    for name in ("features", "logits"):
        values = found[name].double()
        picked = [values[0, 0], values[0, 1], values[1, -1], values.abs().sum()]
        print(f"    {name}: " + ", ".join(f"{value:.7g}" for value in picked))


CASES = [("squeezenet", squeezenet, 3), ("efficientnet-lite0", efficientnet, 3), ("lenet", lenet, 1),
         ("inception", inception_torch_fidelity, 3), ("inception-clean", inception_pytorch_fid, 3)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "build/release/feature_layers")
    parser.add_argument("--squeezenet", type=Path)
    parser.add_argument("--efficientnet", type=Path)
    parser.add_argument("--images", type=Path, help=".npy of uint8 [n, H, W, 3], for the real weights")
    parser.add_argument("--golden", action="store_true")
    arguments = parser.parse_args()
    if arguments.golden:
        for network, make, channels in CASES:
            print(network)
            golden(make, channels)
        return
    worst = 0
    for network, make, channels in CASES:
        worst = max(worst, compare(arguments.program, f"{network}, weights of the formula", network, make, None,
                                   formula_images(channels)))
    images = formula_images(3)
    if arguments.images:
        images = torch.from_numpy(numpy.load(arguments.images))
    real = [("squeezenet", squeezenet, arguments.squeezenet, images),
            ("efficientnet-lite0", efficientnet, arguments.efficientnet, images),
            ("lenet", lenet, ROOT / "models/public/lenet/lenet.safetensors", images[..., :1].contiguous())]
    for network, make, path, given in real:
        if path:
            worst = max(worst, compare(arguments.program, f"{network}, real weights", network, make, read(path), given))
    print(f"the largest difference is {worst:.1e} of a layer's largest value; the bound is {BOUND}")
    sys.exit(worst > BOUND)


if __name__ == "__main__":
    main()
