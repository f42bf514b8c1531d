"""The network beside this file, for PyTorch: blocks of DDPM++, which diffusers' UNet2DModel does not have.

    from network import load
    unet = load("FOLDER/unet")      # unet(x, t, class_labels=labels).sample, as networks of diffusers

It needs PyTorch and safetensors. What the blocks are: Song et al. 2021 (arXiv 2011.13456, appendix H),
without FIR filters, as DPDM and EDM train them.
"""
import json
import math
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional

ACTIVATIONS = {"silu": functional.silu, "swish": functional.silu, "mish": functional.mish,
               "gelu": functional.gelu, "relu": functional.relu}


def groups_of(channels):
    return min(channels // 4, 32)


class Residual(nn.Module):
    def __init__(self, c, width_in, width, scale, resample=None, groups=None):
        super().__init__()
        self.act, self.scale, self.resample = ACTIVATIONS[c.act_fn], scale, resample
        self.scale_shift = c.resnet_time_scale_shift == "scale_shift"
        self.norm1 = nn.GroupNorm(groups or groups_of(width_in), width_in, c.norm_eps)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(c.time_embedding_dim, width * (1 + self.scale_shift))
        self.norm2 = nn.GroupNorm(groups or groups_of(width), width, c.norm_eps)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(width_in, width, 1) if resample or width_in != width else None

    def resampled(self, x):
        if self.resample == "down":
            return functional.avg_pool2d(x, 2)
        return functional.interpolate(x, scale_factor=2.0, mode="nearest") if self.resample else x

    def forward(self, x, time):
        h = self.conv1(self.resampled(self.act(self.norm1(x))))
        told = self.time_emb_proj(time)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + told)
        x = self.resampled(x)
        return (self.conv2(self.act(h)) + (self.conv_shortcut(x) if self.conv_shortcut else x)) / self.scale


class Attention(nn.Module):
    def __init__(self, c, width, scale, groups):
        super().__init__()
        self.scale, self.head = scale, c.attention_head_dim or width
        inner = width // self.head * self.head
        self.group_norm = nn.GroupNorm(groups, width, c.norm_eps) if groups else None
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, inner) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(inner, width))

    def forward(self, x):
        n, width, rows, columns = x.shape
        h = (self.group_norm(x) if self.group_norm else x).flatten(2).transpose(1, 2)
        q, k, v = (to(h).view(n, rows * columns, -1, self.head).transpose(1, 2)
                   for to in (self.to_q, self.to_k, self.to_v))
        h = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return (x + self.to_out(h).transpose(1, 2).view_as(x)) / self.scale


class Level(nn.Module):
    """Residual blocks of one width, attention after each or after the last, and a resampling block."""

    def __init__(self, c, widths_in, width, kind, resample):
        super().__init__()
        self.up, scale = "Up" in kind, math.sqrt(2)
        self.resnets = nn.ModuleList(Residual(c, into, width, scale) for into in widths_in)
        count = kind.startswith("Attn") * (1 if self.up else len(widths_in))
        if count:
            self.attentions = nn.ModuleList(Attention(c, width, scale, groups_of(width))
                                            for _ in range(count))
        self.before = len(widths_in) - count
        self.last = "upsamplers" if self.up else "downsamplers"
        if resample:
            setattr(self, self.last, nn.ModuleList([Residual(c, width, width, scale,
                                                             "up" if self.up else "down")]))

    def forward(self, x, time, kept):
        for j, block in enumerate(self.resnets):
            x = block(torch.cat([x, kept.pop()], 1) if self.up else x, time)
            if j >= self.before:
                x = self.attentions[j - self.before](x)
            if not self.up:
                kept.append(x)
        if hasattr(self, self.last):
            x = getattr(self, self.last)[0](x, time)
            if not self.up:
                kept.append(x)
        return x


class Middle(nn.Module):
    def __init__(self, c, width):
        super().__init__()
        scale, groups = c.mid_block_scale_factor, c.norm_num_groups or groups_of(width)
        self.resnets = nn.ModuleList(Residual(c, width, width, scale, groups=groups) for _ in range(2))
        of_attention = c.attn_norm_num_groups or (groups if c.resnet_time_scale_shift == "default" else None)
        self.attentions = nn.ModuleList([Attention(c, width, scale, of_attention)] * c.add_attention)

    def forward(self, x, time):
        x = self.resnets[0](x, time)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x, time)


class DDPMppUNet(nn.Module):
    """`config`: what config.json says."""

    def __init__(self, config):
        super().__init__()
        widths, down, up = (config[f"{name}"] for name in ("block_out_channels", "down_block_types",
                                                           "up_block_types"))
        if not all("DDPMpp" in kind for kind in (*down, *up)):
            raise SystemExit("blocks other than DDPMpp: take UNet2DModel of diffusers")
        if config.get("time_embedding_type", "positional") != "positional" or config.get("class_embed_type"):
            raise SystemExit("time_embedding_type and class_embed_type other than the usual are not known here")
        base = config.get("model_channels") or widths[0]
        known = dict(in_channels=3, out_channels=3, sample_size=None, norm_eps=1e-5, act_fn="silu",
                     norm_num_groups=32, attn_norm_num_groups=None, attention_head_dim=8, layers_per_block=2,
                     mid_block_scale_factor=1, mid_block_type="UNetMidBlock2D", add_attention=True,
                     resnet_time_scale_shift="default", num_class_embeds=None, freq_shift=0,
                     flip_sin_to_cos=True, center_input_sample=False, class_embed_in_time_features=False)
        self.config = c = SimpleNamespace(**known | config)
        c.model_channels, c.time_embedding_dim = base, config.get("time_embedding_dim") or 4 * base
        self.conv_in = nn.Conv2d(c.in_channels, base, 3, padding=1)
        self.time_embedding = nn.ModuleDict({"linear_1": nn.Linear(base, c.time_embedding_dim),
                                             "linear_2": nn.Linear(*[c.time_embedding_dim] * 2)})
        if c.num_class_embeds:
            self.class_embedding = nn.Embedding(
                c.num_class_embeds, base if c.class_embed_in_time_features else c.time_embedding_dim)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        before, kept = base, [base]
        for i, (width, kind) in enumerate(zip(widths, down)):
            deeper = i + 1 < len(widths)
            into = [before] + [width] * (c.layers_per_block - 1)
            self.down_blocks.append(Level(c, into, width, kind, deeper))
            kept += [width] * (c.layers_per_block + deeper)
            before = width
        self.mid_block = Middle(c, before) if c.mid_block_type else None
        for i, (width, kind) in enumerate(zip(widths[::-1], up)):
            into = [main + kept.pop() for main in [before] + [width] * c.layers_per_block]
            self.up_blocks.append(Level(c, into, width, kind, i + 1 < len(widths)))
            before = width
        self.conv_norm_out = nn.GroupNorm(c.norm_num_groups or groups_of(before), before, c.norm_eps)
        self.conv_out = nn.Conv2d(before, c.out_channels, 3, padding=1)

    def time_features(self, t):
        half = self.config.model_channels // 2
        steps = torch.arange(half, dtype=torch.float32, device=t.device)
        angles = t.float()[:, None] * torch.exp(steps * (-math.log(10000) / (half - self.config.freq_shift)))
        parts = [angles.cos(), angles.sin()] if self.config.flip_sin_to_cos else [angles.sin(), angles.cos()]
        return functional.pad(torch.cat(parts, 1), (0, self.config.model_channels % 2))

    def forward(self, x, t, class_labels=None):
        """x [N, C, H, W]; t a number or [N]; class_labels int64 [N] where the network has classes."""
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        features, of_class = self.time_features(t), 0
        if self.config.num_class_embeds:
            of_class = self.class_embedding(class_labels)
        if self.config.class_embed_in_time_features:
            features, of_class = features + of_class, 0
        hidden = functional.silu(self.time_embedding["linear_1"](features))
        time = ACTIVATIONS[self.config.act_fn](self.time_embedding["linear_2"](hidden) + of_class)
        x = self.conv_in(2 * x - 1 if self.config.center_input_sample else x)
        kept = [x]
        for level in self.down_blocks:
            x = level(x, time, kept)
        if self.mid_block:
            x = self.mid_block(x, time)
        for level in self.up_blocks:
            x = level(x, time, kept)
        return SimpleNamespace(sample=self.conv_out(functional.silu(self.conv_norm_out(x))))


def load(folder):
    """The network of a folder with config.json and diffusion_pytorch_model.safetensors."""
    from safetensors.torch import load_file

    network = DDPMppUNet(json.loads((Path(folder) / "config.json").read_text()))
    network.load_state_dict(load_file(Path(folder) / "diffusion_pytorch_model.safetensors"))
    return network.eval()
