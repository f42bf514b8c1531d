#!/usr/bin/env python3
"""Draws images from the generator beside this file. It needs PyTorch and nothing else.

    python sample.py --count 16 --out images            # equal shares of the classes
    python sample.py --count 16 --label 3 --seed 1      # of one class
    python sample.py --latents latents.safetensors      # tensors "latents" [N, L] and "labels" [N]

Class and number name an image: with the same seed it is the one that `sfumato sample` draws, which may
want other numbers of each class.

As a module: images(generator, latents, labels) of load("generator").
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
from torch import nn

HERE = Path(__file__).resolve().parent


# ------------------------------------------------------------------------------------- networks
class DCGANGenerator(nn.Module):
    def __init__(self, c):
        super().__init__()
        widths, classes = c["block_out_channels"], c.get("num_class_embeds")
        width_in = self.latent_size = c.get("latent_size", 100)
        if classes:
            embed = c.get("class_embed_size", width_in)
            self.class_embedding = nn.Embedding(classes, embed)
            width_in += embed
        sides = [c["sample_size"]]  # each half of the next, rounded up
        for _ in widths:
            sides.insert(0, (sides[0] + 1) // 2)
        layers, bias = [], c.get("bias", False)
        for i, (side, width) in enumerate(zip(sides, [*widths, c["out_channels"]])):
            kernel, stride, padding = (4 - side % 2, 2, 1) if i else (side, 1, 0)
            layers.append(nn.ConvTranspose2d(width_in, width, kernel, stride, padding, bias=bias))
            if i == len(widths):
                layers.append(nn.Tanh())
                break
            if c.get("norm", "batch") == "batch":
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU())
            width_in = width
        self.main = nn.Sequential(*layers)

    def forward(self, latents, labels=None):
        if hasattr(self, "class_embedding"):
            latents = torch.cat([latents, self.class_embedding(labels)], 1)
        return self.main(latents[:, :, None, None])


class ConditionalBatchNorm2d(nn.Module):
    def __init__(self, width, condition):
        super().__init__()
        self.bn = nn.BatchNorm2d(width, affine=False)
        self.gain = nn.Linear(condition, width, bias=False)
        self.shift = nn.Linear(condition, width, bias=False)

    def forward(self, x, condition):
        gain, shift = self.gain(condition), self.shift(condition)
        return self.bn(x) * (1 + gain[:, :, None, None]) + shift[:, :, None, None]


class GeneratorBlock(nn.Module):
    def __init__(self, width_in, width, condition, upsample):
        super().__init__()
        self.resample = nn.Upsample(scale_factor=2) if upsample else nn.Identity()
        self.bn1 = ConditionalBatchNorm2d(width_in, condition)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.bn2 = ConditionalBatchNorm2d(width, condition)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_sc = (nn.Conv2d(width_in, width, 1) if upsample or width != width_in
                        else nn.Identity())

    def forward(self, x, condition):
        h = self.conv1(self.resample(self.bn1(x, condition).relu()))
        h = self.conv2(self.bn2(h, condition).relu())
        return h + self.conv_sc(self.resample(x))


class SelfAttention2d(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.theta = nn.Conv2d(width, width // 8, 1, bias=False)
        self.phi = nn.Conv2d(width, width // 8, 1, bias=False)
        self.g = nn.Conv2d(width, width // 2, 1, bias=False)
        self.o = nn.Conv2d(width // 2, width, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        halved = nn.MaxPool2d(2)
        theta, phi, g = self.theta(x), halved(self.phi(x)), halved(self.g(x))
        weights = torch.bmm(theta.flatten(2).transpose(1, 2), phi.flatten(2)).softmax(-1)
        seen = torch.bmm(g.flatten(2), weights.transpose(1, 2))
        return x + self.gamma * self.o(seen.view(len(x), -1, *x.shape[2:]))


class ResnetGANGenerator(nn.Module):
    def __init__(self, c):
        super().__init__()
        widths, classes = c["block_out_channels"], c.get("num_class_embeds")
        self.latent_size = c["latent_size"]
        condition = self.chunk = self.latent_size // (len(widths) + 1)
        if classes:
            embed = c.get("class_embed_size", 128)
            self.class_embedding = nn.Embedding(classes, embed)
            condition += embed
        upsamples = c["upsample_blocks"]
        self.side = c["sample_size"] >> upsamples
        self.linear = nn.Linear(self.chunk, widths[0] * self.side ** 2)
        self.blocks = nn.ModuleList(
            GeneratorBlock(widths[max(i - 1, 0)], width, condition, i < upsamples)
            for i, width in enumerate(widths))
        self.attentions = nn.ModuleDict({str(after - 1): SelfAttention2d(widths[after - 1])
                                         for after in c.get("attention_after", [])})
        self.norm_out = nn.BatchNorm2d(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], c["out_channels"], 3, padding=1)

    def forward(self, latents, labels=None):
        first, *chunks = latents.split(self.chunk, 1)
        if hasattr(self, "class_embedding"):
            shared = self.class_embedding(labels)
            chunks = [torch.cat([shared, chunk], 1) for chunk in chunks]
        x = self.linear(first).view(len(first), -1, self.side, self.side)
        for i, (block, chunk) in enumerate(zip(self.blocks, chunks)):
            x = block(x, chunk)
            if str(i) in self.attentions:
                x = self.attentions[str(i)](x)
        return self.conv_out(self.norm_out(x).relu()).tanh()


# ----------------------------------------------------------------------------------------- files
def read_safetensors(path):
    data = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    types = {"F32": torch.float32, "F16": torch.float16, "I64": torch.int64}
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        count, dtype = math.prod(entry["shape"]), types[entry["dtype"]]
        flat = (torch.frombuffer(data, dtype=dtype, count=count,
                                 offset=start + entry["data_offsets"][0])
                if count else torch.empty(0, dtype=dtype))
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def load(folder):
    """The generator of a folder with config.json and diffusion_pytorch_model.safetensors."""
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        if not (Path(folder) / name).is_file():
            raise SystemExit(f"{folder}: holds no generator: {name} is not there")
    config = json.loads((Path(folder) / "config.json").read_text())
    kinds = {kind.__name__: kind for kind in (DCGANGenerator, ResnetGANGenerator)}
    if config["_class_name"] not in kinds:
        raise SystemExit(f"{folder}: {config['_class_name']} is none of {', '.join(kinds)}")
    generator = kinds[config["_class_name"]](config)
    weights = read_safetensors(Path(folder) / "diffusion_pytorch_model.safetensors")
    generator.load_state_dict(weights)
    generator.num_classes = config.get("num_class_embeds") or 0
    return generator.eval()


def write_png(path, pixels):
    """`pixels`: uint8 [height, width, channels]."""
    height, width, channels = pixels.shape
    rows = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), pixels.reshape(height, -1)], 1)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]  # grey, grey and alpha, RGB, RGBA
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)),
                           (b"IDAT", zlib.compress(bytes(rows.flatten().tolist()))), (b"IEND", b"")):
            check = zlib.crc32(name + data)
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", check))


def write_images(drawn, out):
    """`drawn`: ((label, index), pixels) of each image, which becomes OUT/LABEL/INDEX.png."""
    count = 0
    for (label, index), pixels in drawn:
        folder = out / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        write_png(folder / f"{index:06}.png", pixels)
        count += 1
    print(f"{count} images in {out}")


# ---------------------------------------------------------------------------------------- random
MASK = 0xFFFFFFFF


def chacha20(key, counters, nonce):
    """Blocks of RFC 8439: `counters` int64 [n] -> int64 [16, n]."""
    x = torch.tensor([0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *key, 0, *nonce])
    start = x[:, None].repeat(1, len(counters))
    start[12] = counters
    x = list(start)

    def quarter_round(a, b, c, d):
        for into, by, turned, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[into] = (x[into] + x[by]) & MASK
            mixed = x[turned] ^ x[into]
            x[turned] = ((mixed << bits) | (mixed >> (32 - bits))) & MASK

    for _ in range(10):
        for i in range(4):
            quarter_round(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter_round(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return (torch.stack(x) + start) & MASK


def normals(purpose, seed, step, stream, index, size):
    """float32 [size]: standard normals of a stream, which its names alone decide.

    By Box-Muller from ChaCha20; groups of 320 take one block for each of 32 lanes.
    """
    names = purpose + b"\0" + struct.pack("<QQ", seed, step)
    key = struct.unpack("<8I", hashlib.sha256(names).digest())
    blocks = chacha20(key, torch.arange(32 * -(-size // 320)), (stream, index & MASK, index >> 32))
    words = blocks[:15].double().view(5, 3, -1, 32)  # pair, word of the pair, group, lane
    high, low, angle = words[:, 0], words[:, 1], words[:, 2]
    radius = (-2 * ((high * 2.0 ** 32 + low + 0.5) * 2.0 ** -64).log()).sqrt()
    turn = (angle + 0.5) * (2 * math.pi * 2.0 ** -32)
    both = torch.stack([radius * turn.cos(), radius * turn.sin()], 1)  # pair, which, group, lane
    return both.permute(2, 0, 1, 3).reshape(-1)[:size].float()


# --------------------------------------------------------------------------------------- latents
def latents_of(seed, label, index, size):
    """float32 [size]: the latent of the index-th image of a class (0 without classes)."""
    return normals(b"latents of a generator", seed, label, 0, index, size)


# -------------------------------------------------------------------------------------- pictures
@torch.no_grad()
def images(generator, latents, labels=None, batch=64):
    """uint8 [N, height, width, channels]."""
    drawn = [generator(latents[at:at + batch], None if labels is None else labels[at:at + batch])
             for at in range(0, len(latents), batch)]
    levels = (torch.cat(drawn) / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous()


def wanted(generator, count, label):
    """(label, index) of `count` images: of one class, or equal shares, the first classes' larger."""
    classes = max(generator.num_classes, 1)
    if label is not None:
        if not 0 <= label < classes:
            raise SystemExit(f"--label {label} lies outside 0 to {classes - 1}")
        return [(label, index) for index in range(count)]
    return [(i % classes, i // classes) for i in range(count)]


def whole(least, most):
    """Of arguments: a whole number in this range."""
    def read(text):
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is no whole number from {least} to {most}")
        return value
    return read


# --------------------------------------------------------------------------------- given latents
def given_latents(path, generator):
    """Latents and labels of a file, or an error in one line."""
    if not path.is_file():
        raise SystemExit(f"--latents {path}: no such file")
    try:
        given = read_safetensors(path)
    except (AttributeError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise SystemExit(f"--latents {path}: no safetensors file that can be read here ({error})")
    latents = given.get("latents")
    if latents is None or latents.dim() != 2 or latents.shape[1] != generator.latent_size:
        raise SystemExit(f"--latents {path}: needs a tensor 'latents' [N, {generator.latent_size}]")
    labels = given.get("labels", torch.zeros(len(latents)))
    if labels.shape != (len(latents),):
        raise SystemExit(f"--latents {path}: 'labels' must be [{len(latents)}], one for each latent")
    if not ((0 <= labels) & (labels < max(generator.num_classes, 1))).all():
        raise SystemExit(f"--latents {path}: a label lies outside 0 to "
                         f"{max(generator.num_classes, 1) - 1}")
    return latents.float(), labels


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generator", type=Path, default=HERE / "generator", help="its folder")
    parser.add_argument("--out", type=Path, default=Path("images"), help="OUT/LABEL/INDEX.png")
    parser.add_argument("--count", type=whole(1, 10 ** 9), default=16)
    parser.add_argument("--label", type=int, help="one class; default: all alike")
    parser.add_argument("--seed", type=whole(0, 2 ** 63 - 1), default=0)
    parser.add_argument("--latents", type=Path, help="take these instead of drawing any")
    arguments = parser.parse_args()
    generator = load(arguments.generator)
    if arguments.latents:
        latents, labels = given_latents(arguments.latents, generator)
        ids = [(int(label), index) for index, label in enumerate(labels)]
    else:
        ids = wanted(generator, arguments.count, arguments.label)
        latents = torch.stack([latents_of(arguments.seed, label, index, generator.latent_size)
                               for label, index in ids])
    labels = torch.tensor([label for label, _ in ids])
    write_images(zip(ids, images(generator, latents, labels)), arguments.out)


if __name__ == "__main__":
    main()
