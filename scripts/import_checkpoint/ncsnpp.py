"""NCSNpp of DPDM and DPImageBench, by the numbers of its `all_modules`."""
import math
import re

from import_checkpoint.tensors import Refused, config_of

MODULE = re.compile(r"all_modules\.(\d+)\.(.+)")
RESIDUAL = {f"{part}.{kind}" for part in ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1")
            for kind in ("weight", "bias")}
SHORTCUT = {"Conv_2.weight", "Conv_2.bias"}
ATTENTION = {"GroupNorm_0.weight", "GroupNorm_0.bias"} | {f"NIN_{i}.{kind}" for i in range(4) for kind in "Wb"}


def kind_of(number, parts):
    """What a module of the list is; `parts`: its tensors by name."""
    names = set(parts)
    if names in (RESIDUAL, RESIDUAL | SHORTCUT):
        return "residual"
    if names == ATTENTION:
        return "attention"
    if names == {"weight"} and parts["weight"].dim() == 2:
        return "embedding"
    if names == {"weight", "bias"}:
        return {1: "norm", 2: "linear", 4: "conv"}.get(parts["weight"].dim(), "")
    if names == {"W"}:
        why = "embedding_type=fourier, frequencies of ln sigma of its own"
    elif any(name.startswith("Conv2d_0") for name in names):
        why = "fir=true, FIR filters"
    elif {"NIN_0.W", "Conv_0.weight"} <= names or names == {"Conv_0.weight", "Conv_0.bias"}:
        why = "resblock_type=ddpm, or progressive input or output"
    else:
        raise Refused(f"all_modules.{number} holds {', '.join(sorted(names)[:4])}, of no module that is known")
    raise Refused(f"has what UNet2DModel does not have here: {why} (all_modules.{number})")


class ModuleList:
    """all_modules in order."""

    def __init__(self, tensors):
        self.t, found = tensors, {}
        for name in tensors.left:
            if match := MODULE.fullmatch(name):
                found.setdefault(int(match[1]), {})[match[2]] = tensors.left[name]
        if sorted(found) != list(range(len(found))):
            gap = next(number for number in range(len(found)) if number not in found)
            raise Refused(f"all_modules.{gap} is missing")
        self.kinds = [kind_of(number, found[number]) for number in range(len(found))]
        self.next = 0

    def peek(self):
        return self.kinds[self.next] if self.next < len(self.kinds) else "the end"

    def step(self, kind):
        """The prefix of the next module, which is of this kind."""
        if self.peek() != kind:
            raise Refused(f"all_modules.{self.next} is {self.peek()}, and {kind} is what the modules before it "
                          "lead to: progressive input or output, or not this family")
        self.next += 1
        return f"all_modules.{self.next - 1}"

    def resamples(self, number):
        """A shortcut has a convolution where the width changes, or where the block resamples."""
        name = f"all_modules.{number}.Conv_2.weight"
        return self.t.has(name) and self.t.shape(name)[0] == self.t.shape(name)[1]

    def residual(self, to, width_in, width, time, resample=False):
        name = self.step("residual")
        parts = [f"{name}.{part}" for part in ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1",
                                               "Conv_2")]
        self.t.residual(parts, to, width_in, width, (time, width), resample or width_in != width)

    def attention(self, to, width):
        name = self.step("attention")
        self.t.move(f"{name}.GroupNorm_0", f"{to}.group_norm", width)
        for i, part in enumerate(("to_q", "to_k", "to_v", "to_out.0")):
            self.t.made[f"{to}.{part}.weight"] = self.t.take(f"{name}.NIN_{i}.W", width, width).t()
            self.t.made[f"{to}.{part}.bias"] = self.t.take(f"{name}.NIN_{i}.b", width)


def levels_of(modules):
    """(levels, residual blocks of each on the way down)."""
    blocks = [number for number, kind in enumerate(modules.kinds) if kind == "residual"]
    resampling = [modules.resamples(number) for number in blocks]
    levels = sum(resampling) // 2 + 1
    layers = resampling.index(True) if levels > 1 else (len(blocks) - 3) // 2
    if layers < 1 or len(blocks) != levels * (2 * layers + 1) + 2 + 2 * (levels - 1):
        raise Refused(f"{len(blocks)} residual blocks, {sum(resampling)} of which resample: those of no network "
                      "of this family")
    return levels, layers


class Network:
    """The modules in the order in which they are made."""

    def __init__(self, tensors):
        self.t, self.modules, self.rows = tensors, ModuleList(tensors), None
        if self.modules.peek() == "embedding":
            name = self.modules.step("embedding")
            self.rows, told = tensors.shape(f"{name}.weight")
            tensors.made["class_embedding.weight"] = tensors.take(f"{name}.weight", self.rows, told)
        first, second, conv = (self.modules.step(kind) for kind in ("linear", "linear", "conv"))
        self.time, told = tensors.shape(f"{first}.weight")
        self.base, self.colours = tensors.shape(f"{conv}.weight")[:2]
        if told != self.base or (self.rows and tensors.made["class_embedding.weight"].shape[1] != told):
            raise Refused(f"{told} features of the noise level beside {self.base} channels of '{conv}.weight'")
        tensors.move(first, "time_embedding.linear_1", self.time, told)
        tensors.move(second, "time_embedding.linear_2", self.time, self.time)
        tensors.move(conv, "conv_in", self.base, self.colours, 3, 3)
        self.levels, self.layers = levels_of(self.modules)
        self.widths, self.attends = [], []

    def down(self):
        """Widths of what the way down leaves for the way up."""
        before, kept = self.base, [self.base]
        for i in range(self.levels):
            to, width = f"down_blocks.{i}", self.t.shape(f"all_modules.{self.modules.next}.Conv_1.weight")[0]
            for j in range(self.layers):
                self.modules.residual(f"{to}.resnets.{j}", before, width, self.time)
                if j == 0:
                    self.attends.append(self.modules.peek() == "attention")
                if self.attends[i]:
                    self.modules.attention(f"{to}.attentions.{j}", width)
                before = width
                kept.append(width)
            if i + 1 < self.levels:
                self.modules.residual(f"{to}.downsamplers.0", width, width, self.time, resample=True)
                kept.append(width)
            self.widths.append(width)
        return kept

    def up(self, kept):
        before = self.widths[-1]
        self.modules.residual("mid_block.resnets.0", before, before, self.time)
        self.modules.attention("mid_block.attentions.0", before)
        self.modules.residual("mid_block.resnets.1", before, before, self.time)
        for i in range(self.levels - 1, -1, -1):
            to = f"up_blocks.{self.levels - 1 - i}"
            for j in range(self.layers + 1):
                self.modules.residual(f"{to}.resnets.{j}", before + kept.pop(), self.widths[i], self.time)
                before = self.widths[i]
            if self.attends[i]:
                self.modules.attention(f"{to}.attentions.0", before)
            if i > 0:
                self.modules.residual(f"{to}.upsamplers.0", before, before, self.time, resample=True)
        norm, conv = self.modules.step("norm"), self.modules.step("conv")
        self.colours_out = self.t.shape(f"{conv}.weight")[0]
        self.t.move(norm, "conv_norm_out", before)
        self.t.move(conv, "conv_out", self.colours_out, before, 3, 3)


def converted(tensors, facts):
    if tensors.has("sigmas"):
        raise Refused("holds 'sigmas', as checkpoints of score-SDE do: a VP or VE process and not EDM's "
                      "preconditioning, and FIR filters or none, of which no tensor tells")
    network = Network(tensors)
    network.up(network.down())
    config = config_of(network.base, network.widths, network.layers, (network.colours, network.colours_out),
                       network.attends, network.time, network.rows)
    notes = ["taken to be a network of DPDM's EDMDenoiser: swish, no FIR filters, sums divided by the square root "
             "of 2, as all its configurations have it, which a state dict does not say"]
    return config, "NCSNpp", math.sqrt(1 / 3), notes
