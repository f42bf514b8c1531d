#!/usr/bin/env python3
"""What PyTorch computes for networks of GANs is what tests/models/gan_networks.json holds, against
which the C++ tests check: state dicts, outputs, gradients by autograd, moved statistics.

Generators are those of a release's sample.py; discriminators are written down here.
--write-fixture FILE writes that file instead.
"""
import json
import math
import sys
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "src/generate/gan")]
from sfumato_cli import check, main

try:
    import torch
    from torch import nn
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
from sample import DCGANGenerator, ResnetGANGenerator

FIXTURE = ROOT / "tests/models/gan_networks.json"
ROWS, STRIDE, ITERATIONS = 3, 101, 20

GENERATORS = {
    "dcgan_64": dict(_class_name="DCGANGenerator", sample_size=64, out_channels=3, latent_size=10,
                     block_out_channels=[16, 12, 8, 6]),
    "dcgan_32_classes": dict(_class_name="DCGANGenerator", sample_size=32, out_channels=3,
                             latent_size=6, block_out_channels=[12, 8, 6], num_class_embeds=4,
                             class_embed_size=5),
    "dcgan_28_two_steps": dict(_class_name="DCGANGenerator", sample_size=28, out_channels=1,
                               latent_size=8, block_out_channels=[12, 8], norm="batch", bias=True),
    "dcgan_28_norm_free": dict(_class_name="DCGANGenerator", sample_size=28, out_channels=1,
                               latent_size=8, block_out_channels=[16, 12, 8], norm="none",
                               bias=True, num_class_embeds=3),
    "resnet_32": dict(_class_name="ResnetGANGenerator", sample_size=32, out_channels=3,
                      latent_size=12, block_out_channels=[16, 16, 8], upsample_blocks=3,
                      attention_after=[2], num_class_embeds=4, class_embed_size=6),
    "resnet_28": dict(_class_name="ResnetGANGenerator", sample_size=28, out_channels=1,
                      latent_size=12, block_out_channels=[12, 12, 8], upsample_blocks=2),
    "resnet_64": dict(_class_name="ResnetGANGenerator", sample_size=64, out_channels=3,
                      latent_size=10, block_out_channels=[16, 8, 8, 6], upsample_blocks=4,
                      attention_after=[1, 3], num_class_embeds=2, class_embed_size=3),
}
DISCRIMINATORS = {
    "dcgan_64": dict(_class_name="DCGANDiscriminator", sample_size=64, in_channels=3,
                     block_out_channels=[6, 8, 12, 16], norm="batch"),
    "dcgan_32_group": dict(_class_name="DCGANDiscriminator", sample_size=32, in_channels=3,
                           block_out_channels=[8, 12, 64], norm="group", num_class_embeds=4,
                           class_embed_size=3),
    "dcgan_28_norm_free": dict(_class_name="DCGANDiscriminator", sample_size=28, in_channels=1,
                               block_out_channels=[8, 12, 16], num_class_embeds=3),
    "dcgan_32_spectral": dict(_class_name="DCGANDiscriminator", sample_size=32, in_channels=3,
                              block_out_channels=[8, 12, 16], norm="spectral"),
    "resnet_28_spectral": dict(_class_name="ResnetGANDiscriminator", sample_size=28, in_channels=1,
                               block_out_channels=[8, 12, 12], downsample_blocks=2,
                               norm="spectral", num_class_embeds=3),
    "resnet_32": dict(_class_name="ResnetGANDiscriminator", sample_size=32, in_channels=3,
                      block_out_channels=[8, 8, 64, 64], downsample_blocks=2, num_class_embeds=4),
    "resnet_28": dict(_class_name="ResnetGANDiscriminator", sample_size=28, in_channels=1,
                      block_out_channels=[8, 12, 12], downsample_blocks=2, norm="none"),
    "resnet_64": dict(_class_name="ResnetGANDiscriminator", sample_size=64, in_channels=3,
                      block_out_channels=[6, 8, 8, 12], downsample_blocks=4, num_class_embeds=2),
}


def normalise(network, norm):
    for layer in list(network.modules()):
        if norm == "spectral" and isinstance(layer, nn.Conv2d):
            torch.nn.utils.spectral_norm(layer)


class DCGANDiscriminator(nn.Module):
    """PyTorch's example without its sigmoid; classes as constant planes after the first layers."""

    def __init__(self, c):
        super().__init__()
        widths, side, width_in = c["block_out_channels"], c["sample_size"], c["in_channels"]
        norm = c.get("norm", "none")
        classes, planes = c.get("num_class_embeds"), c.get("class_embed_size", widths[0])
        layers, bias = [], norm in ("none", "spectral")
        for i, width in enumerate(widths):
            layers.append(nn.Conv2d(width_in, width, 3 if side % 2 else 4, 2, 1, bias=bias))
            if norm == "batch" and i:
                layers.append(nn.BatchNorm2d(width))
            if norm == "group" and i:
                layers.append(nn.GroupNorm(min(32, width), width))
            layers.append(nn.LeakyReLU(0.2))
            side, width_in = (side + 1) // 2, width + (planes if classes and i == 0 else 0)
        layers.append(nn.Conv2d(width_in, 1, side, bias=bias))
        self.main = nn.Sequential(*layers)
        normalise(self.main, norm)
        if classes:
            self.class_embedding = nn.Embedding(classes, planes)

    def forward(self, x, labels):
        x = self.main[1](self.main[0](x))
        if hasattr(self, "class_embedding"):
            rows = self.class_embedding(labels)[:, :, None, None]
            x = torch.cat([x, rows.expand(*rows.shape[:2], *x.shape[2:])], 1)
        return self.main[2:](x).view(-1)


class DiscriminatorBlock(nn.Module):
    def __init__(self, width_in, width, first, downsample, norms):
        super().__init__()
        if norms and not first:
            self.norm1 = nn.GroupNorm(min(32, width_in), width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        if norms:
            self.norm2 = nn.GroupNorm(min(32, width), width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        if downsample or width_in != width:
            self.conv_sc = nn.Conv2d(width_in, width, 1)
        self.first, self.downsample = first, downsample

    def forward(self, x):
        pool = nn.AvgPool2d(2) if self.downsample else nn.Identity()
        h = getattr(self, "norm1", nn.Identity())(x)
        h = self.conv1(h if self.first else h.relu())
        h = self.conv2(getattr(self, "norm2", nn.Identity())(h).relu())
        return pool(h) + pool(getattr(self, "conv_sc", nn.Identity())(x))


class ProjectionScore(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.linear = nn.Linear(features, 1)
        if classes:
            self.embedding = nn.Embedding(classes, features)

    def forward(self, h, labels):
        score = self.linear(h).squeeze(1)
        return score + (self.embedding(labels) * h).sum(1) if hasattr(self, "embedding") else score


class ResnetGANDiscriminator(nn.Module):
    def __init__(self, c):
        super().__init__()
        widths = c["block_out_channels"]
        before = [c["in_channels"], *widths[:-1]]
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(width_in, width, i == 0, i < c["downsample_blocks"],
                               c.get("norm", "group") == "group")
            for i, (width_in, width) in enumerate(zip(before, widths)))
        normalise(self.blocks, c.get("norm", "group"))
        self.score = ProjectionScore(widths[-1], c.get("num_class_embeds"))

    def forward(self, x, labels):
        for block in self.blocks:
            x = block(x)
        return self.score(x.relu().sum((2, 3)), labels)


def pattern(shape, start, scale, offset=0.0):
    """Values that any language reproduces exactly: a permutation of the integers below a prime."""
    index = torch.arange(math.prod(shape), dtype=torch.int64)
    values = (index * 7919 + start * 104729 + 12345) % 10007
    return ((values.double() / 10007 - 0.5) * (2 * scale) + offset).float().reshape(shape)


def set_weights(network):
    with torch.no_grad():
        for i, (name, value) in enumerate(sorted(network.state_dict().items())):
            if name.endswith("num_batches_tracked"):
                value.fill_(5)
            elif name.endswith(("weight_u", "weight_v")):
                value.fill_(1 / math.sqrt(len(value)))
            elif value.dim() == 1:
                value.copy_(pattern(value.shape, i, 0.3, float(name.endswith((".weight", "_var")))))
            else:
                value.copy_(pattern(value.shape, i, 1.5 / math.sqrt(value[0].numel())))


    for layer in network.modules():
        if hasattr(layer, "weight_orig"):
            iterate(layer)


@torch.no_grad()
def iterate(layer):
    matrix = layer.weight_orig.flatten(1)
    for _ in range(ITERATIONS):
        layer.weight_v.copy_(nn.functional.normalize(matrix.t() @ layer.weight_u, dim=0))
        layer.weight_u.copy_(nn.functional.normalize(matrix @ layer.weight_v, dim=0))


def inputs_of(config, network):
    side = config["sample_size"]
    shape = ([ROWS, network.latent_size] if "latent_size" in config
             else [ROWS, config["in_channels"], side, side])
    labels = (torch.arange(ROWS) * 2 + 1) % (config.get("num_class_embeds") or 1)
    return pattern(shape, 1, 2 if "latent_size" in config else 1), labels


def rounded(values):
    return [float(f"{value:.7g}") for value in values.double().flatten().tolist()]


def norms(tensors):
    return {name: rounded(value.detach().double().norm())[0] for name, value in tensors}


def case_of(name, config):
    network = globals()[config["_class_name"]](config)
    set_weights(network)
    network.double()  # exact where float32 is not
    x, labels = inputs_of(config, network)
    x = x.double()
    case = {"name": name, "config": config,
            "state": {key: list(value.shape) for key, value in sorted(network.state_dict().items())}}
    with torch.no_grad():
        case["out"] = rounded(network.eval()(x, labels).flatten()[::STRIDE if x.dim() == 2 else 1])
    # In training, PyTorch's spectral normalisation iterates in each forward pass.
    out = network.train(config.get("norm") != "spectral")(x, labels)
    case["out_training"] = rounded(out.flatten()[::STRIDE if x.dim() == 2 else 1])
    (out * pattern(out.shape, 2, 1)).sum().backward()
    case["gradient_norms"] = norms((key, value.grad) for key, value in
                                   sorted(network.named_parameters()))
    case["moved"] = norms(sorted(network.named_buffers()))
    return case


def all_cases():
    torch.set_num_threads(1)
    return {"generators": [case_of(*item) for item in GENERATORS.items()],
            "discriminators": [case_of(*item) for item in DISCRIMINATORS.items()]}


def written(cases):
    kinds = [f'"{kind}": [\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in of) +
             "\n]" for kind, of in cases.items()]
    return "{" + ",\n".join(kinds) + "}\n"


def largest(value):
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max([abs(v) for v in values if isinstance(v, float)], default=0.0)


def alike(a, b, scale=0.0):
    """Numbers to 1e-4; gradients that are rounding alone count against the largest beside them."""
    if isinstance(b, float):
        return abs(a - b) <= 1e-4 * abs(b) + 1e-6 * scale
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key], largest(b)) for key in b)
    if isinstance(b, list):
        return len(a) == len(b) and all(alike(x, y, largest(b)) for x, y in zip(a, b))
    return a == b


def run_check(_, __, arguments):
    if arguments.write_fixture:
        arguments.write_fixture.write_text(written(all_cases()))
        return
    kept, now = json.loads(FIXTURE.read_text()), json.loads(written(all_cases()))
    for kind in now:
        for case, old in zip(now[kind], kept[kind], strict=True):
            check(alike(case, old), f"{kind}, {case['name']}: PyTorch computes other numbers")


if __name__ == "__main__":
    main(run_check, __doc__.splitlines()[0],
         lambda parser: parser.add_argument("--write-fixture", type=Path))
