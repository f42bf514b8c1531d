#!/usr/bin/env python3
"""The large classifiers of `sfumato evaluate` as PyTorch modules, and the numbers that the C++ tests
(tests/evaluate/classifier_test.cpp) check against: counts and shapes of parameters, and logits with
weights by a formula, in training and not. Without arguments the numbers that stand in the test are
compared with those computed here; --golden prints them. WRN-40-4, ResNet-110 and ResNeXt-29 8x64d are
written here from the papers' descriptions by torch.nn, not from the C++."""
import argparse
import re
import sys
from pathlib import Path

try:
    import torch
    from torch import nn
except ImportError:
    print("skipped: no torch")
    sys.exit(77)

TEST = Path(__file__).resolve().parents[1] / "evaluate/classifier_test.cpp"


def hashed(name: str, count: int) -> torch.Tensor:
    """As tests/features/formula_weights.h."""
    seed = 2166136261
    for byte in name.encode():
        seed = ((seed ^ byte) * 16777619) & 0xffffffff
    x = (torch.arange(count, dtype=torch.int64) + seed) & 0xffffffff
    for _ in range(2):
        x = ((x ^ (x >> 16)) * 0x45d9f3b) & 0xffffffff
    return ((x ^ (x >> 16)) >> 8).double() / 16777216


def formula(name: str, shape: torch.Size) -> torch.Tensor:
    count = shape.numel()
    u = hashed(name, count)
    if len(shape) > 1:
        value = (u - .5) * 2 * (6 * shape[0] / count) ** .5
    elif name.endswith((".running_var", ".weight")):
        value = .75 + .5 * u
    else:
        value = (u - .5) * .2
    return value.float().view(shape)


def conv(before, after, side, stride=1, groups=1):
    return nn.Conv2d(before, after, side, stride, side // 2, groups=groups, bias=False)


class Basic(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(before, after, 3, stride), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = conv(after, after, 3), nn.BatchNorm2d(after)
        self.downsample = (nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False),
                                         nn.BatchNorm2d(after))
                           if stride != 1 or before != after else nn.Identity())

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (self.downsample(x) + y).relu()


class ResNet110(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, 16, 3), nn.BatchNorm2d(16)
        before = 16
        for stage, width in enumerate((16, 32, 64)):
            blocks = []
            for i in range(18):
                blocks.append(Basic(before, width, 2 if stage and not i else 1))
                before = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
        return self.fc(x.mean((2, 3)))


class Wide(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), conv(before, after, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(after), conv(after, after, 3)
        self.drop = nn.Dropout(.3)
        self.convShortcut = (nn.Conv2d(before, after, 1, stride, bias=False)
                             if before != after else None)

    def forward(self, x):
        y = self.bn1(x).relu()
        around = x if self.convShortcut is None else self.convShortcut(y)
        return around + self.conv2(self.drop(self.bn2(self.conv1(y)).relu()))


class Stage(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class Wrn404(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.conv1 = conv(channels, 16, 3)
        before = 16
        for stage, width in enumerate((64, 128, 256)):
            blocks = []
            for i in range(6):
                blocks.append(Wide(before, width, 2 if stage and not i else 1))
                before = width
            setattr(self, f"block{stage + 1}", Stage(blocks))
        self.bn1, self.fc = nn.BatchNorm2d(256), nn.Linear(256, classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(self.bn1(x).relu().mean((2, 3)))


class Bottleneck(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        inner = 8 * after // 4
        self.conv_reduce, self.bn_reduce = conv(before, inner, 1), nn.BatchNorm2d(inner)
        self.conv_conv, self.bn = conv(inner, inner, 3, stride, 8), nn.BatchNorm2d(inner)
        self.conv_expand, self.bn_expand = conv(inner, after, 1), nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if before != after:
            self.shortcut.add_module("shortcut_conv", conv(before, after, 1, stride))
            self.shortcut.add_module("shortcut_bn", nn.BatchNorm2d(after))

    def forward(self, x):
        y = self.bn_reduce(self.conv_reduce(x)).relu()
        y = self.bn(self.conv_conv(y)).relu()
        return (self.shortcut(x) + self.bn_expand(self.conv_expand(y))).relu()


class ResNext29(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.conv_1_3x3, self.bn_1 = conv(channels, 64, 3), nn.BatchNorm2d(64)
        before = 64
        for stage, width in enumerate((256, 512, 1024)):
            name, blocks = f"stage_{stage + 1}", nn.Sequential()
            for i in range(3):
                blocks.add_module(f"{name}_bottleneck_{i}",
                                  Bottleneck(before, width, 2 if stage and not i else 1))
                before = width
            setattr(self, name, blocks)
        self.classifier = nn.Linear(1024, classes)

    def forward(self, x):
        x = self.stage_3(self.stage_2(self.stage_1(self.bn_1(self.conv_1_3x3(x)).relu())))
        return self.classifier(x.mean((2, 3)))


NETWORKS = {"kResNet110": ResNet110, "kWrn404": Wrn404, "kResNext29": ResNext29}


def facts(make) -> list[float]:
    """Parameters, tensors, a checksum of names and shapes; logits of the first image, and in training
    (without dropout) of the first of a batch; the mean of a running variance after that."""
    network = make(3, 4)
    state = {name: tensor for name, tensor in network.state_dict().items()
             if not name.endswith("num_batches_tracked")}
    network.load_state_dict({name: formula(name, tensor.shape) for name, tensor in state.items()},
                            strict=False)
    named = dict(network.named_parameters())
    checksum = sum(sum(name.encode()) * 7 + sum((i + 1) * size for i, size in enumerate(tensor.shape))
                   for name, tensor in named.items())
    x = hashed("images", 2 * 3 * 12 * 16).float().view(2, 3, 12, 16) * 2 - 1
    with torch.no_grad():
        network.eval()
        still = network(x)[0].tolist()
        network.train()
        for part in network.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        moving = network(x)[0].tolist()
    variance = [tensor for name, tensor in network.state_dict().items()
                if name.endswith("running_var")][-1]
    return [sum(tensor.numel() for tensor in named.values()), len(named), checksum, *still, *moving,
            variance.mean().item()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", action="store_true", help="print the numbers for the test")
    parser.add_argument("--sfumato", help="as other checks; not used")
    parser.add_argument("--work", help="as other checks; not used")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    found = {name: facts(make) for name, make in NETWORKS.items()}
    if arguments.golden:
        for name, numbers in found.items():
            print(f"      {{ClassifierKind::{name}, {{" + ", ".join(f"{n:.7g}" if i > 2 else str(n)
                                                                for i, n in enumerate(numbers)) + "}},")
        return 0
    text = TEST.read_text()
    for name, numbers in found.items():
        row = re.search(rf"ClassifierKind::{name}, {{(.*?)}}}}", text, re.S)
        noted = [float(word) for word in row[1].replace("\n", " ").split(",")] if row else []
        if len(noted) != len(numbers) or any(abs(a - b) > 2e-5 * max(1, abs(b))
                                             for a, b in zip(noted, numbers)):
            print(f"{name}: the test has {noted}, and PyTorch {numbers}")
            return 1
    print(f"passed: {len(found)} networks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
