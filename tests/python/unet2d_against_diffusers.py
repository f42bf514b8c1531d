#!/usr/bin/env python3
"""`sfumato probe` computes what diffusers and autograd compute: outputs, losses, norms of per-example
gradients and clipped sums, for every kind of block and for random configurations of UNet2DModel; for
blocks of DDPM++, which diffusers does not have, what the network.py of releases computes.

--write-fixture FILE writes tests/models/unet2d_variants.json instead: what the C++ tests check against.
"""
import json
import math
import random
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support"),
                str(Path(__file__).resolve().parents[2] / "src/generate/diffusion")]
from sfumato_cli import check, main

try:
    import torch
    from diffusers import UNet2DModel
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
from network import DDPMppUNet

torch.set_num_threads(2)
TOLERANCE_OUT, TOLERANCE = 1e-5, 1e-4

BASE = dict(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"), layers_per_block=1, norm_num_groups=4,
            attention_head_dim=4)
SKIP = dict(block_out_channels=(32, 32), norm_num_groups=8,
            down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"),
            up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"))

# As DPDM has it.
DDPMPP = dict(down_block_types=("DDPMppDownBlock2D", "AttnDDPMppDownBlock2D"),
              up_block_types=("AttnDDPMppUpBlock2D", "DDPMppUpBlock2D"), norm_num_groups=None,
              attention_head_dim=None, norm_eps=1e-6, mid_block_scale_factor=math.sqrt(2), freq_shift=1,
              flip_sin_to_cos=False)

# Every block type, resampler, embedding and special rule at least once.
NAMED = {
    "plain": {},
    "attention_padding_0": dict(
        down_block_types=("AttnDownBlock2D", "DownBlock2D"), downsample_padding=0,
        up_block_types=("UpBlock2D", "AttnUpBlock2D"), flip_sin_to_cos=False, freq_shift=1),
    "attention_resnet_resamplers": dict(
        down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"), downsample_type="resnet",
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"), upsample_type="resnet"),
    "conv_blocks_ignore_resampler_type": dict(downsample_type="resnet", upsample_type="resnet"),
    "resnet_blocks_scale_shift": dict(
        down_block_types=("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
        resnet_time_scale_shift="scale_shift", layers_per_block=2),
    "scale_shift_mid_norm": dict(
        resnet_time_scale_shift="scale_shift", attn_norm_num_groups=2, mid_block_scale_factor=1.5),
    "unetres_prefix": dict(
        down_block_types=("UNetResDownBlock2D", "UNetResAttnDownBlock2D"),
        up_block_types=("UNetResAttnUpBlock2D", "UNetResUpBlock2D")),
    "ncsnpp": dict(SKIP, time_embedding_type="fourier", mid_block_scale_factor=math.sqrt(2),
                   norm_eps=1e-6),
    "skip_unbracketed_groups": dict(
        SKIP, block_out_channels=(32, 64),
        up_block_types=("AttnSkipUpBlock2D", "AttnSkipUpBlock2D"),
        down_block_types=("AttnSkipDownBlock2D", "SkipDownBlock2D")),
    "skip_after_others": dict(
        SKIP, block_out_channels=(8, 16, 16), norm_num_groups=4,
        down_block_types=("SkipDownBlock2D", "DownBlock2D", "SkipDownBlock2D"),
        up_block_types=("UpBlock2D", "SkipUpBlock2D", "SkipUpBlock2D")),
    "norm_groups_null": dict(
        block_out_channels=(8, 16), norm_num_groups=None,
        down_block_types=("SkipDownBlock2D", "SkipDownBlock2D"),
        up_block_types=("SkipUpBlock2D", "SkipUpBlock2D")),
    "learned_time_classes": dict(
        time_embedding_type="learned", num_train_timesteps=50, num_class_embeds=5),
    "class_timestep": dict(class_embed_type="timestep", time_embedding_dim=20),
    "class_identity": dict(class_embed_type="identity", act_fn="gelu"),
    "class_table_centered_gray": dict(
        num_class_embeds=3, in_channels=1, out_channels=2, center_input_sample=True,
        act_fn="mish", sample_size=(8, 12)),
    "no_mid_block": dict(mid_block_type=None, act_fn="relu"),
    "no_mid_attention": dict(add_attention=False, block_out_channels=(9, 18), norm_num_groups=3),
    "head_dim_does_not_divide": dict(
        attention_head_dim=6, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D")),
    "one_head_deep": dict(
        attention_head_dim=None, block_out_channels=(8, 8, 16), layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D")),
    "one_level": dict(block_out_channels=(8,), down_block_types=("AttnDownBlock2D",),
                      up_block_types=("AttnUpBlock2D",)),
    "ddpmpp": dict(DDPMPP, layers_per_block=2, model_channels=12, num_class_embeds=4,
                   class_embed_in_time_features=True),
    "ddpmpp_plain_classes": dict(
        DDPMPP, num_class_embeds=3, block_out_channels=(8, 8, 16), resnet_time_scale_shift="scale_shift",
        down_block_types=("AttnDDPMppDownBlock2D", "DDPMppDownBlock2D", "DDPMppDownBlock2D"),
        up_block_types=("DDPMppUpBlock2D", "DDPMppUpBlock2D", "AttnDDPMppUpBlock2D")),
}


def has_own_blocks(config):
    return any("DDPMpp" in kind for kind in config["down_block_types"])


def make_model(config):
    return DDPMppUNet(config) if has_own_blocks(config) else UNet2DModel(**config)


def save_model(model, config, folder):
    if not has_own_blocks(config):
        return model.save_pretrained(folder)
    folder.mkdir(parents=True, exist_ok=True)  # as save_pretrained: a network is tried three times
    save_file(model.state_dict(), folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def random_config(rng):
    """A configuration that diffusers can run."""
    levels = rng.randint(1, 3)
    groups = rng.choice([1, 2, 4])
    channels = [groups * rng.choice([4, 6, 8]) for _ in range(levels)]
    scale_shift = rng.random() < 0.4
    classes = rng.choice([None, None, "table", "timestep", "identity"])
    time = rng.choice(["positional", "positional", "positional", "fourier", "learned"])
    if time == "learned" and classes == "timestep":
        classes = None  # would tie the table
    size = 2 ** (levels - 1)
    config = dict(
        sample_size=[size * rng.randint(2, 4), size * rng.randint(2, 4)],
        in_channels=rng.randint(1, 4), out_channels=rng.randint(1, 4),
        center_input_sample=rng.random() < 0.3, time_embedding_type=time,
        time_embedding_dim=rng.choice([None, None, 12]), freq_shift=rng.choice([0, 1]),
        flip_sin_to_cos=rng.random() < 0.5,
        down_block_types=[rng.choice(["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"])
                          for _ in range(levels)],
        up_block_types=[rng.choice(["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"])
                        for _ in range(levels)],
        mid_block_type=rng.choice(["UNetMidBlock2D", "UNetMidBlock2D", None]),
        block_out_channels=channels, layers_per_block=rng.randint(1, 2),
        mid_block_scale_factor=rng.choice([1, 1.3]), downsample_padding=rng.choice([0, 1]),
        downsample_type=rng.choice(["conv", "resnet"]), upsample_type=rng.choice(["conv", "resnet"]),
        act_fn=rng.choice(["silu", "swish", "mish", "gelu", "relu"]),
        attention_head_dim=rng.choice([None, 2, 3, 4]), norm_num_groups=groups,
        attn_norm_num_groups=rng.choice([None, 1, 2]) if groups != 1 else None,
        norm_eps=rng.choice([1e-5, 1e-6]),
        resnet_time_scale_shift="scale_shift" if scale_shift else "default",
        add_attention=rng.random() < 0.8,
        class_embed_type=classes if classes in ("timestep", "identity") else None,
        num_class_embeds=rng.randint(2, 5) if classes == "table" else None,
        num_train_timesteps=40 if time == "learned" else None)
    return config


def pattern(shape, start, scale, offset=0.0):
    """Values that any language reproduces exactly: a permutation of the integers below a prime."""
    count = math.prod(shape)
    index = torch.arange(count, dtype=torch.int64)
    values = (index * 7919 + start * 104729 + 12345) % 10007
    return ((values.double() / 10007 - 0.5) * (2 * scale) + offset).float().reshape(shape)


def time_embedding_of(model):
    return getattr(model.config, "time_embedding_type", "positional")


def set_weights(model):
    for i, (name, parameter) in enumerate(sorted(model.named_parameters())):
        if name == "time_proj.weight" and time_embedding_of(model) == "fourier":
            value = pattern(parameter.shape, i, 0.5)
        elif parameter.dim() == 1:
            value = pattern(parameter.shape, i, 0.3, 1.0 if name.endswith(".weight") else 0.0)
        else:
            value = pattern(parameter.shape, i, 2 / math.sqrt(parameter[0].numel()))
        parameter.data.copy_(value)


def make_inputs(model, examples, draws):
    c = model.config
    height, width = (c.sample_size, c.sample_size) if isinstance(c.sample_size, int) else c.sample_size
    lead = [examples, draws]
    inputs = {"sample": pattern(lead + [c.in_channels, height, width], 1, 2.0),
              "target": pattern(lead + [c.out_channels, height, width], 2, 2.0)}
    step = torch.arange(examples * draws).reshape(lead)
    if time_embedding_of(model) == "fourier":
        inputs["timestep"] = (0.3 + 0.4 * step.double()).float()
    elif time_embedding_of(model) == "learned":
        inputs["timestep"] = step * 3
    else:
        inputs["timestep"] = step * 37 + 1
    class_type = getattr(c, "class_embed_type", None)
    if class_type == "identity":
        inputs["class_labels"] = pattern([examples, c.time_embedding_dim or 4 * c.block_out_channels[0]],
                                         3, 1.0)
    elif class_type == "timestep":
        inputs["class_labels"] = torch.arange(examples) * 5 + 1
    elif c.num_class_embeds is not None:
        inputs["class_labels"] = (torch.arange(examples) * 2 + 1) % c.num_class_embeds
    return inputs


def reference(model, inputs, clip_norm):
    """By autograd, one example at a time."""
    model.eval()
    trainable = {n: p for n, p in model.named_parameters()
                 if p.requires_grad and not (n == "time_proj.weight"
                                             and time_embedding_of(model) == "fourier")}
    outs, losses, norms = [], [], []
    total = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in trainable.items()}
    for i in range(inputs["sample"].shape[0]):
        sample, timestep = inputs["sample"][i], inputs["timestep"][i]
        labels = inputs.get("class_labels")
        if labels is not None:
            labels = labels[i].unsqueeze(0).expand(sample.shape[0], *labels.shape[1:])
        out = model(sample, timestep, class_labels=labels).sample
        loss = (out - inputs["target"][i]).square().mean()
        grads = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True)
        grads = [torch.zeros(p.shape) if g is None else g
                 for g, p in zip(grads, trainable.values())]
        norm = math.sqrt(sum(g.double().square().sum().item() for g in grads))
        for name, g in zip(trainable, grads):
            total[name] += min(1.0, clip_norm / norm) * g.double()
        outs.append(out.detach())
        losses.append(loss.item())
        norms.append(norm)
    return (torch.stack(outs), torch.tensor(losses), torch.tensor(norms),
            {name: t.norm().item() for name, t in total.items()})


def relative(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-12)).item()


def differences(sfumato, name, config, work, algorithm):
    """Relative differences of what the program and diffusers compute."""
    model = make_model(config)
    set_weights(model)
    inputs = make_inputs(model, 3, 2)
    _, _, norms, _ = reference(model, inputs, 1.0)
    clip_norm = norms.median().item()
    out, loss, norm, sums = reference(model, inputs, clip_norm)
    save_model(model, config, work / name)
    save_file({k: v.contiguous() for k, v in inputs.items()}, work / "in.safetensors")
    sfumato.run("probe", work / name, "--inputs", work / "in.safetensors", "--out",
                work / "out.safetensors", "--clip-norm", repr(clip_norm), "--layer-algorithm",
                algorithm, "--threads", 2)
    got = load_file(work / "out.safetensors")
    prefix = "clipped_sum_norm/"
    got_sums = {k[len(prefix):]: v.item() for k, v in got.items() if k.startswith(prefix)}
    check(set(got_sums) == set(sums), f"keys differ: {sorted(set(got_sums) ^ set(sums))}")
    # Gradients that cancel to rounding (a bias before a norm of one channel) count against the whole.
    floor = 1e-3 * math.sqrt(sum(v * v for v in sums.values()))
    return {"out": relative(got["out"], out), "loss": relative(got["loss_per_sample"], loss),
            "norm": relative(got["grad_norm_per_sample"], norm),
            "sum": max(abs(got_sums[k] - sums[k]) / (abs(sums[k]) + floor) for k in sums)}


def rounded(value):
    return float(f"{value:.6g}")


def write_fixture(path):
    cases = []
    for name, changes in NAMED.items():
        model = make_model({**BASE, **changes})
        set_weights(model)
        inputs = make_inputs(model, 2, 2)
        _, _, norms, _ = reference(model, inputs, 1.0)
        clip_norm = rounded(norms.mean().item())
        out, loss, norm, sums = reference(model, inputs, clip_norm)
        flat = out.flatten()
        config = {**BASE, **changes}
        cases.append({
            "name": name, "config": config,
            "input_shapes": {k: list(v.shape) for k, v in inputs.items()},
            "clip_norm": clip_norm, "out_stride": 17,
            "out": [rounded(v) for v in flat[::17].tolist()],
            "loss": [rounded(v) for v in loss.tolist()],
            "norm": [rounded(v) for v in norm.tolist()],
            # key: [norm of the clipped sum (null: not trainable), shape...]
            "tensors": {k: [rounded(sums[k]) if k in sums else None, *v.shape]
                        for k, v in sorted(model.state_dict().items())}})
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")


def run_check(sfumato, work, arguments):
    if arguments.write_fixture:
        write_fixture(arguments.write_fixture)
        return
    configs = {name: {**BASE, **changes} for name, changes in NAMED.items()}
    rng = random.Random(arguments.seed)
    for i in range(arguments.random):
        configs[f"random_{i}"] = random_config(rng)
    for name, config in configs.items():
        for algorithm in ("keep", "gram", "auto"):
            found = differences(sfumato, name, config, work, algorithm)
            line = f"{name} ({algorithm}): " + ", ".join(f"{k} {v:.1e}" for k, v in found.items())
            print(line)
            check(found["out"] < TOLERANCE_OUT and max(found.values()) < TOLERANCE,
                  f"{line}\n{json.dumps(config)}")


def extra_arguments(parser):
    parser.add_argument("--random", type=int, default=15, help="number of random configurations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write-fixture", type=Path)


if __name__ == "__main__":
    main(run_check, __doc__.splitlines()[0], extra_arguments)
