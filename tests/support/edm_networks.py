"""Three networks with the names and forward passes of other programs, small: SongUNet (DDPM++) and
DhariwalUNet (ADM) of EDM, and NCSNpp of DPDM. Written from the papers and what is published of the names
(Karras et al. 2022; Song et al. 2021; Dhariwal and Nichol 2021; Dockhorn et al. 2023), to hold the
conversion of scripts/import-checkpoint against.
"""
import math

import torch
from torch import nn
from torch.nn import functional

silu = functional.silu


def norm(channels, eps):
    return nn.GroupNorm(min(32, channels // 4), channels, eps)


def sinusoids(noise, width, last):
    """[cos, sin] of width / 2 frequencies from 1 down to 1/10000, that included where `last`."""
    k = torch.arange(width // 2) / (width // 2 - last)
    angles = noise[:, None].float() * 1e-4 ** k
    return angles.cos(), angles.sin()


class Conv(nn.Module):
    """A convolution after a change of size by EDM's buffer resample_filter; without a kernel only that."""

    def __init__(self, into, out, kernel, change=None):
        super().__init__()
        self.change = change
        if kernel:
            like = nn.Conv2d(into, out, kernel)
            self.weight, self.bias = nn.Parameter(like.weight.data), nn.Parameter(like.bias.data)
        if change:
            self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))

    def forward(self, x):
        if self.change:
            weight = self.resample_filter.expand(x.shape[1], 1, 2, 2)
            x = (functional.conv2d(x, weight, stride=2, groups=x.shape[1]) if self.change == "down" else
                 functional.conv_transpose2d(x, 4 * weight, stride=2, groups=x.shape[1]))
        return functional.conv2d(x, self.weight, self.bias, padding="same") if hasattr(self, "weight") else x


class Block(nn.Module):
    def __init__(self, into, out, time, adm, heads=0, change=None):
        super().__init__()
        eps = 1e-5 if adm else 1e-6
        self.into, self.adm, self.heads = into, adm, heads
        self.factor = 1 if adm else math.sqrt(0.5)
        self.norm0, self.norm1 = norm(into, eps), norm(out, eps)
        self.conv0, self.conv1 = Conv(into, out, 3, change), Conv(out, out, 3)
        self.affine = nn.Linear(time, 2 * out if adm else out)
        if change or into != out:
            self.skip = Conv(into, out, 0 if adm and into == out else 1, change)
        if heads:
            self.norm2, self.qkv, self.proj = norm(out, eps), Conv(out, 3 * out, 1), Conv(out, out, 1)

    def forward(self, x, time):
        h, told = self.conv0(silu(self.norm0(x))), self.affine(time)[..., None, None]
        if self.adm:
            scale, shift = told.chunk(2, 1)
            h = silu(shift + self.norm1(h) * (scale + 1))
        else:
            h = silu(self.norm1(h + told))
        x = self.factor * (self.conv1(h) + (self.skip(x) if hasattr(self, "skip") else x))
        if not self.heads:
            return x
        n, c, rows, columns = x.shape
        q, k, v = self.qkv(self.norm2(x)).reshape(n * self.heads, c // self.heads, 3, -1).unbind(2)
        weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(c // self.heads), 2)
        return self.factor * (x + self.proj((v @ weights.transpose(1, 2)).reshape(n, c, rows, columns)))


class EdmUNet(nn.Module):
    def __init__(self, adm, side, colours, base, factors, layers, attends, classes=0, augment=0):
        super().__init__()
        self.adm, self.base, self.classes, time = adm, base, classes, 4 * base
        if classes:
            self.map_label = nn.Linear(classes, time if adm else base, bias=not adm)
        if augment:
            self.map_augment = nn.Linear(augment, base, bias=False)
        self.map_layer0, self.map_layer1 = nn.Linear(base, time), nn.Linear(time, time)

        def block(into, out, attended, change=None):
            heads = (out // 64 if adm else 1) if attended else 0
            return Block(into, out, time, adm, heads, change)

        self.enc, self.dec, width, kept = nn.ModuleDict(), nn.ModuleDict(), base, [base]
        sides = [side >> i for i in range(len(factors))]
        for i, (at, factor) in enumerate(zip(sides, factors)):
            if i == 0:
                self.enc[f"{at}x{at}_conv"] = Conv(colours, base, 3)
            else:
                self.enc[f"{at}x{at}_down"] = block(width, width, False, "down")
                kept.append(width)
            for j in range(layers):
                self.enc[f"{at}x{at}_block{j}"] = block(width, base * factor, at in attends)
                width = base * factor
                kept.append(width)
        for i, (at, factor) in reversed(list(enumerate(zip(sides, factors)))):
            if at == sides[-1]:
                self.dec[f"{at}x{at}_in0"] = block(width, width, True)
                self.dec[f"{at}x{at}_in1"] = block(width, width, False)
            else:
                self.dec[f"{at}x{at}_up"] = block(width, width, False, "up")
            for j in range(layers + 1):
                attended = at in attends and (adm or j == layers)
                self.dec[f"{at}x{at}_block{j}"] = block(width + kept.pop(), base * factor, attended)
                width = base * factor
        names = ("out_norm", "out_conv") if adm else (f"{side}x{side}_aux_norm", f"{side}x{side}_aux_conv")
        for name, part in zip(names, (norm(width, 1e-5 if adm else 1e-6), Conv(width, colours, 3))):
            self.add_module(name, part) if adm else self.dec.add_module(name, part)

    def forward(self, x, noise, labels=None):
        """`labels`: int64 [N]; a label of `classes` is none."""
        cos, sin = sinusoids(noise, self.base, last=not self.adm)
        time = torch.cat([cos, sin] if self.adm else [sin, cos], 1)
        hot = functional.one_hot(labels, self.classes + 1)[:, :-1].float() if self.classes else None
        if self.classes and not self.adm:
            time = time + self.map_label(hot * math.sqrt(self.classes))
        time = self.map_layer1(silu(self.map_layer0(time)))
        if self.classes and self.adm:
            time = time + self.map_label(hot)
        time, kept = silu(time), []
        for block in self.enc.values():
            x = block(x, time) if isinstance(block, Block) else block(x)
            kept.append(x)
        for block in self.dec.values():
            if isinstance(block, Block):
                x = block(x if x.shape[1] == block.into else torch.cat([x, kept.pop()], 1), time)
            else:
                x = silu(block(x)) if isinstance(block, nn.GroupNorm) else block(x)
        return self.out_conv(silu(self.out_norm(x))) if self.adm else x


class Nin(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.W, self.b = nn.Parameter(torch.randn(width, width) / width ** 0.5), nn.Parameter(torch.randn(width))

    def forward(self, x):
        return torch.einsum("nchw,cd->ndhw", x, self.W) + self.b[:, None, None]


class SongAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.GroupNorm_0 = norm(width, 1e-6)
        for i in range(4):
            self.add_module(f"NIN_{i}", Nin(width))

    def forward(self, x):
        h = self.GroupNorm_0(x)
        q, k, v = (nin(h).flatten(2) for nin in (self.NIN_0, self.NIN_1, self.NIN_2))
        weights = torch.softmax(torch.einsum("ncq,nck->nqk", q, k) / math.sqrt(x.shape[1]), 2)
        h = torch.einsum("nqk,nck->ncq", weights, v).view_as(x)
        return (x + self.NIN_3(h)) / math.sqrt(2)


class SongResidual(nn.Module):
    def __init__(self, into, out, time, change=None):
        super().__init__()
        self.into, self.change = into, change
        self.GroupNorm_0, self.GroupNorm_1 = norm(into, 1e-6), norm(out, 1e-6)
        self.Conv_0, self.Conv_1 = nn.Conv2d(into, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.Dense_0 = nn.Linear(time, out)
        if change or into != out:
            self.Conv_2 = nn.Conv2d(into, out, 1)

    def changed(self, x):
        if self.change == "up":
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return functional.avg_pool2d(x, 2) if self.change else x

    def forward(self, x, time):
        h = self.Conv_0(self.changed(silu(self.GroupNorm_0(x)))) + self.Dense_0(silu(time))[..., None, None]
        h, x = self.Conv_1(silu(self.GroupNorm_1(h))), self.changed(x)
        return (h + (self.Conv_2(x) if hasattr(self, "Conv_2") else x)) / math.sqrt(2)


class SongNcsnpp(nn.Module):
    def __init__(self, side, colours, base, factors, layers, attends, classes=0):
        super().__init__()
        self.base, self.classes, time = base, classes, 4 * base
        modules = [nn.Embedding(classes + 1, base)] if classes else []
        modules += [nn.Linear(base, time), nn.Linear(time, time), nn.Conv2d(colours, base, 3, padding=1)]
        self.plan = ["conv"]  # what becomes of each module after the first
        width, kept, sides = base, [base], [side >> i for i in range(len(factors))]

        def add(module, then):
            modules.append(module)
            self.plan.append(then)

        for i, (at, factor) in enumerate(zip(sides, factors)):
            for _ in range(layers):
                add(SongResidual(width, base * factor, time), "attended" if at in attends else "keep")
                width = base * factor
                if at in attends:
                    add(SongAttention(width), "keep")
                kept.append(width)
            if i + 1 < len(sides):
                add(SongResidual(width, width, time, "down"), "keep")
                kept.append(width)
        for module in (SongResidual(width, width, time), SongAttention(width), SongResidual(width, width, time)):
            add(module, "go on")
        for i, (at, factor) in reversed(list(enumerate(zip(sides, factors)))):
            for _ in range(layers + 1):
                add(SongResidual(width + kept.pop(), base * factor, time), "go on")
                width = base * factor
            if at in attends:
                add(SongAttention(width), "go on")
            if i:
                add(SongResidual(width, width, time, "up"), "go on")
        add(norm(width, 1e-6), "activate")
        add(nn.Conv2d(width, colours, 3, padding=1), "go on")
        self.all_modules = nn.ModuleList(modules)

    def forward(self, x, noise, labels=None):
        modules = list(self.all_modules)
        cos, sin = sinusoids(noise, self.base, last=True)
        time = torch.cat([sin, cos], 1)
        if self.classes:
            time = time + modules.pop(0)(labels)
        time = modules[1](silu(modules[0](time)))
        kept = []
        for module, then in zip(modules[2:], self.plan):
            if isinstance(module, SongResidual):
                x = module(x if x.shape[1] == module.into else torch.cat([x, kept.pop()], 1), time)
            else:
                x = module(x)
            if then in ("conv", "keep"):
                kept.append(x)
            elif then == "activate":
                x = silu(x)
        return x


def with_random_weights(network, seed):
    """Of a size that leaves no layer without effect."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in network.named_parameters():
        noise = torch.randn(value.shape, generator=draw)
        near = 1.0 if value.dim() == 1 and ("norm" in name.lower()) and name.endswith("weight") else 0.0
        value.data = near + noise * (0.2 if value.dim() == 1 else 0.8 / math.sqrt(value[0].numel()))
    return network.eval()
