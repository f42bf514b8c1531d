"""SongUNet and DhariwalUNet of EDM, by their names `enc.`, `dec.` and `map_`."""
import math
import re

import torch

from import_checkpoint.tensors import Refused, config_of, groups_of

BLOCK = re.compile(r"enc\.(\d+)x(\d+)_block(\d+)\.norm0\.weight")


def edm_defects(tensors, facts):
    """Properties that UNet2DModel does not have."""
    names, defects = tensors.left, []
    precond = facts.get("precond", "EDMPrecond")
    if precond != "EDMPrecond" or "u" in names:
        defects.append(f"the preconditioning of {'iDDPMPrecond' if 'u' in names else precond}, where EDM's "
                       "alone is known")
    if "map_noise.freqs" in names:
        defects.append("embedding_type=fourier (NCSN++), frequencies of ln sigma of its own")
    for part, kind in (("residual", "residual"), ("skip", "skip")):
        if any(f"_aux_{part}." in name for name in names):
            defects.append(f"encoder_type={kind} (NCSN++), which reads the image again at every level")
    if sum(name.endswith("_aux_norm.weight") for name in names) > 1:
        defects.append("decoder_type=skip (NCSN++), which draws the image at every level")
    box = torch.full((1, 1, 2, 2), 0.25)
    filters = [name for name in names if name.endswith("resample_filter")]
    if any(names[name].shape != box.shape or not torch.equal(names[name].float(), box) for name in filters):
        defects.append("resample_filter other than [1, 1], as NCSN++ has it")
    return defects


class EdmNetwork:
    """SongUNet or DhariwalUNet, block by block."""

    def __init__(self, tensors, adm):
        self.t, self.adm = tensors, adm
        self.sides = sorted({int(m[1]) for m in map(BLOCK.fullmatch, tensors.left) if m}, reverse=True)
        if not self.sides or self.sides != [self.sides[0] >> i for i in range(len(self.sides))]:
            raise Refused(f"levels of the sides {self.sides}, which do not halve")
        self.base, self.colours = tensors.shape(f"{self.at('enc', 0)}_conv.weight")[:2]
        self.time, self.told = tensors.shape("map_layer0.weight")
        self.widths = [tensors.shape(f"{self.at('enc', i)}_block0.conv1.weight")[0]
                       for i in range(len(self.sides))]
        self.layers = sum(m[1] == str(self.sides[0]) for m in map(BLOCK.fullmatch, tensors.left) if m)
        self.attends = [tensors.has(f"{self.at('enc', i)}_block0.qkv.weight") for i in range(len(self.sides))]
        self.normed = set()

    def at(self, half, level):
        return f"{half}.{self.sides[level]}x{self.sides[level]}"

    def block(self, name, to, width_in, width, attention=None, resample=False):
        parts = [f"{name}.{part}" for part in ("norm0", "conv0", "affine", "norm1", "conv1", "skip")]
        shortcut = width_in != width or (resample and not self.adm)
        self.t.residual(parts, to, width_in, width, (self.time, width * (2 if self.adm else 1)), shortcut)
        self.normed |= {width_in, width}
        if resample:
            for part in ("conv0", "skip"):
                self.t.take(f"{name}.{part}.resample_filter", 1, 1, 2, 2)
        if attention is None:
            return
        if self.adm and width % 64 != 0:
            raise Refused(f"attention of {width} channels, which heads of 64 do not divide")
        self.t.move(f"{name}.norm2", f"{attention}.group_norm", width)
        # Channel c of query, key and value lie beside each other.
        weight = self.t.take(f"{name}.qkv.weight", 3 * width, width, 1, 1).view(width, 3, width)
        bias = self.t.take(f"{name}.qkv.bias", 3 * width).view(width, 3)
        for i, part in enumerate(("to_q", "to_k", "to_v")):
            self.t.made |= {f"{attention}.{part}.weight": weight[:, i], f"{attention}.{part}.bias": bias[:, i]}
        self.t.made[f"{attention}.to_out.0.weight"] = self.t.take(f"{name}.proj.weight", width, width, 1,
                                                                  1).view(width, width)
        self.t.made[f"{attention}.to_out.0.bias"] = self.t.take(f"{name}.proj.bias", width)

    def encoder(self):
        """Widths of what the way down leaves for the way up."""
        self.t.move(f"{self.at('enc', 0)}_conv", "conv_in", self.base, self.colours, 3, 3)
        before, kept = self.base, [self.base]
        for i, width in enumerate(self.widths):
            to = f"down_blocks.{i}"
            for j in range(self.layers):
                self.block(f"{self.at('enc', i)}_block{j}", f"{to}.resnets.{j}", before, width,
                           f"{to}.attentions.{j}" if self.attends[i] else None)
                before = width
                kept.append(width)
            if i + 1 < len(self.widths):
                self.block(f"{self.at('enc', i + 1)}_down", f"{to}.downsamplers.0", width, width, resample=True)
                kept.append(width)
        return kept

    def decoder(self, kept):
        before, deepest = self.widths[-1], len(self.widths) - 1
        self.middle = self.t.has(f"{self.at('dec', deepest)}_in0.qkv.weight")
        for j in (0, 1):
            self.block(f"{self.at('dec', deepest)}_in{j}", f"mid_block.resnets.{j}", before, before,
                       "mid_block.attentions.0" if j == 0 and self.middle else None)
        for i in range(deepest, -1, -1):
            to = f"up_blocks.{deepest - i}"
            for j in range(self.layers + 1):
                attention = None
                if self.attends[i] and (self.adm or j == self.layers):
                    attention = f"{to}.attentions.{j if self.adm else 0}"
                self.block(f"{self.at('dec', i)}_block{j}", f"{to}.resnets.{j}", before + kept.pop(),
                           self.widths[i], attention)
                before = self.widths[i]
            if i > 0:
                self.block(f"{self.at('dec', i - 1)}_up", f"{to}.upsamplers.0", before, before, resample=True)
        norm, conv = ("out_norm", "out_conv") if self.adm else [f"{self.at('dec', 0)}_aux_{part}"
                                                                for part in ("norm", "conv")]
        self.colours_out = self.t.shape(f"{conv}.weight")[0]
        self.t.move(norm, "conv_norm_out", before)
        self.t.move(conv, "conv_out", self.colours_out, before, 3, 3)

    def labels(self):
        """Rows of the class table, the last for no class; None without classes."""
        if not self.t.has("map_label.weight"):
            return None
        classes = self.t.shape("map_label.weight")[1]
        width = self.time if self.adm else self.told
        rows = self.t.take("map_label.weight", width, classes).t()
        none = torch.zeros(1, width)
        if not self.adm:
            bias = self.t.take("map_label.bias", width)
            rows, none = rows * math.sqrt(classes) + bias, none + bias
        self.t.made["class_embedding.weight"] = torch.cat([rows, none])
        return classes + 1

    def config(self, rows):
        if self.told != self.base:
            raise Refused(f"{self.told} features of the noise level beside {self.base} channels of the first "
                          "convolution (channel_mult_noise, or a first channel_mult other than 1 in ADM)")
        config = config_of(self.base, self.widths, self.layers, (self.colours, self.colours_out), self.attends,
                           self.time, rows)
        config |= {"sample_size": self.sides[0], "add_attention": self.middle}
        if not self.adm:
            return config
        groups = {groups_of(width) for width in self.normed}
        if len(groups) > 1:
            raise Refused(f"norms of min(C / 4, 32) groups, which are {sorted(groups)} here; blocks of ADM "
                          "have one number for all")
        for key in ("model_channels", "class_embed_in_time_features", "mid_block_scale_factor"):
            del config[key]
        down = ["AttnDownBlock2D" if attended else "ResnetDownsampleBlock2D" for attended in self.attends]
        up = ["AttnUpBlock2D" if attended else "ResnetUpsampleBlock2D" for attended in self.attends[::-1]]
        return config | {"down_block_types": down, "up_block_types": up, "downsample_type": "resnet",
                         "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift",
                         "attention_head_dim": 64, "norm_num_groups": groups.pop(),
                         "attn_norm_num_groups": groups_of(self.widths[-1]), "norm_eps": 1e-5,
                         "freq_shift": 0, "flip_sin_to_cos": True}


def converted(tensors, facts):
    defects = edm_defects(tensors, facts)
    if defects:
        raise Refused("has what UNet2DModel does not have here: " + "; ".join(defects))
    network = EdmNetwork(tensors, adm=tensors.has("out_norm.weight"))
    tensors.move("map_layer0", "time_embedding.linear_1", network.time, network.told)
    tensors.move("map_layer1", "time_embedding.linear_2", network.time, network.time)
    notes = []
    if tensors.has("map_augment.weight"):
        tensors.take("map_augment.weight", network.told, tensors.shape("map_augment.weight")[1])
        notes.append("without map_augment, which EDM leaves out where images are drawn")
    network.decoder(network.encoder())
    config = network.config(network.labels())
    kind = "DhariwalUNet (ADM)" if network.adm else "SongUNet (DDPM++)"
    if "precond" not in facts:
        notes.append("taken to be preconditioned as EDM, which a state dict does not say")
    return config, kind, 0.5, notes
