"""Networks of the EDM family as UNet2DModel, by the names of their tensors: what both families share.

Two families of names: `enc.`, `dec.` and `map_` are of EDM (SongUNet as DDPM++, DhariwalUNet as ADM);
`all_modules.N.` are of score-SDE's NCSNpp, as DPDM and DPImageBench train it. What their forward passes
are is known from the papers and the published code (Karras et al. 2022, arXiv 2206.00364; Song et al. 2021,
arXiv 2011.13456; Dockhorn et al. 2023, arXiv 2210.09929). A network that UNet2DModel does not express
exactly is refused, with the property that it lacks; so is a tensor too many or too few.
"""
import math
import re

import torch

SQRT2 = math.sqrt(2)


class Refused(Exception):
    """Why a network is not taken; the message names tensors or properties."""


def plain_name(name):
    """Without what wrappers put before it: DataParallel's and Opacus' module, the denoiser's model."""
    return re.sub(r"^((_?module|model)\.)+", "", name)


def plain_names(state):
    plain = {}
    for name, tensor in state.items():
        short = plain_name(name)
        if short in plain:
            raise Refused(f"'{name}' stands there twice under different prefixes")
        plain[short] = tensor
    return plain


class Tensors:
    """Those of a file: each is taken once, in the shape that its place asks for."""

    def __init__(self, state):
        self.left, self.made = dict(state), {}

    def has(self, name):
        return name in self.left

    def shape(self, name):
        if name not in self.left:
            raise Refused(f"'{name}' is missing")
        return tuple(self.left[name].shape)

    def take(self, name, *shape):
        if self.shape(name) != shape:
            raise Refused(f"'{name}' has the shape {list(self.shape(name))}, and its place asks for "
                          f"{list(shape)}")
        tensor = self.left.pop(name)
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise Refused(f"'{name}' holds NaN, infinite or other than floating-point values")
        return tensor.float()

    def move(self, name, to, *shape):
        """`name`.weight of this shape and `name`.bias."""
        self.made[f"{to}.weight"] = self.take(f"{name}.weight", *shape)
        self.made[f"{to}.bias"] = self.take(f"{name}.bias", shape[0])

    def residual(self, parts, to, width_in, width, time, shortcut):
        """`parts`: names of norm1, conv1, time_emb_proj, norm2, conv2, conv_shortcut; `time`: (in, out)."""
        norm1, conv1, projection, norm2, conv2, skip = parts
        self.move(norm1, f"{to}.norm1", width_in)
        self.move(conv1, f"{to}.conv1", width, width_in, 3, 3)
        self.move(projection, f"{to}.time_emb_proj", time[1], time[0])
        self.move(norm2, f"{to}.norm2", width)
        self.move(conv2, f"{to}.conv2", width, width, 3, 3)
        if shortcut:
            self.move(skip, f"{to}.conv_shortcut", width, width_in, 1, 1)

    def finish(self):
        if self.left:
            first = ", ".join(f"'{name}'" for name in sorted(self.left)[:5])
            raise Refused(f"{len(self.left)} tensors have no place in the network that the others make: {first}")
        return self.made


def groups_of(channels):
    return min(channels // 4, 32)


def config_of(base, widths, layers, channels, attends, time, rows):
    """What networks with blocks of DDPM++ have in common."""
    down = [f"{'Attn' * attended}DDPMppDownBlock2D" for attended in attends]
    return {"_class_name": "UNet2DModel", "in_channels": channels[0], "out_channels": channels[1],
            "block_out_channels": widths, "layers_per_block": layers, "model_channels": base,
            "down_block_types": down, "up_block_types": [kind.replace("Down", "Up") for kind in down[::-1]],
            "mid_block_scale_factor": SQRT2, "attention_head_dim": None, "norm_num_groups": None,
            "norm_eps": 1e-6, "freq_shift": 1, "flip_sin_to_cos": False, "time_embedding_dim": time,
            "num_class_embeds": rows, "class_embed_in_time_features": rows is not None}
