#!/usr/bin/env python3
"""`probe` reproduces stored values for [B, K, ...] inputs, takes labels per example or per draw, and
refuses inputs that do not fit the network, with the data error's exit status and a message that names
the tensor.
"""
import json
import math
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import DATA, ROOT, USAGE, check, main

VARIANTS = json.loads((ROOT / "tests/models/unet2d_variants.json").read_text())


def pattern(shape, start, scale, offset=0.0):
    """As in tests/python/unet2d_against_diffusers.py, where the stored values come from."""
    return [(((i * 7919 + start * 104729 + 12345) % 10007) / 10007 - 0.5) * 2 * scale + offset
            for i in range(math.prod(shape))]


def write_safetensors(path, tensors):
    """tensors: {name: (dtype, shape, values)}."""
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        bytes_ = struct.pack(f"<{len(values)}{'f' if dtype == 'F32' else 'q'}", *values)
        header[name] = {"dtype": dtype, "shape": list(shape),
                        "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_safetensors(path):
    """float32 tensors only."""
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8:8 + length])
    header.pop("__metadata__", None)
    return {name: list(struct.unpack_from(f"<{math.prod(entry['shape'])}f", raw,
                                          8 + length + entry["data_offsets"][0]))
            for name, entry in header.items()}


def write_model(folder, variant):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(variant["config"]))
    tensors = {}
    for i, (name, (_, *shape)) in enumerate(sorted(variant["tensors"].items())):
        if len(shape) == 1:
            values = pattern(shape, i, 0.3, 1.0 if name.endswith(".weight") else 0.0)
        else:
            values = pattern(shape, i, 2 / math.sqrt(math.prod(shape[1:])))
        tensors[name] = ("F32", shape, values)
    write_safetensors(folder / "diffusion_pytorch_model.safetensors", tensors)


def inputs_of(variant):
    shapes = variant["input_shapes"]
    examples, draws = shapes["sample"][:2]
    inputs = {"sample": ("F32", shapes["sample"], pattern(shapes["sample"], 1, 2.0)),
              "target": ("F32", shapes["target"], pattern(shapes["target"], 2, 2.0)),
              "timestep": ("I64", [examples, draws], [i * 37 + 1 for i in range(examples * draws)])}
    if variant["config"].get("num_class_embeds"):
        rows = variant["config"]["num_class_embeds"]
        inputs["class_labels"] = ("I64", [examples], [(i * 2 + 1) % rows for i in range(examples)])
    return inputs


def close(actual, expected):
    return len(actual) == len(expected) and all(
        abs(a - e) <= 1e-4 * abs(e) for a, e in zip(actual, expected))


def run_check(sfumato, work, _):
    variant = next(v for v in VARIANTS if v["name"] == "class_table_centered_gray")
    model, path, out = work / "model", work / "in.safetensors", work / "out.safetensors"
    write_model(model, variant)
    good = inputs_of(variant)

    def probe(inputs, expect=0, *more):
        out.unlink(missing_ok=True)
        write_safetensors(path, inputs)
        return sfumato.run("probe", model, "--inputs", path, "--out", out, *more, expect=expect)

    labels = [label for label in good["class_labels"][2] for _ in range(2)]
    for inputs in (good, {**good, "class_labels": ("I64", [2, 2], labels)}):
        for algorithm in ("auto", "keep", "gram"):
            probe(inputs, 0, "--clip-norm", variant["clip_norm"], "--layer-algorithm", algorithm)
            shown = read_safetensors(out)
            check(close(shown["loss_per_sample"], variant["loss"]), "other losses")
            check(close(shown["grad_norm_per_sample"], variant["norm"]), "other norms")
            check(close(shown["out"][::variant["out_stride"]], variant["out"]), "other outputs")
            check(sum(name.startswith("clipped_sum_norm/") for name in shown)
                  == len(variant["tensors"]), "not every parameter's clipped sum")

    sample, target, step = good["sample"], good["target"], good["timestep"]
    one_less = ("I64", [2, 1], step[2][:2])
    bad = {"sample": [None, ("F32", [2, 2, 1, 8, 11], sample[2][:352]), ("F32", [384], sample[2]),
                      ("F32", [2, 2, 2, 8, 6], sample[2])],
           "target": [None, ("F32", [2, 2, 2, 12, 8], target[2])],
           "timestep": [None, one_less, ("I64", [4], step[2])],
           "class_labels": [None, one_less, ("I64", [4], labels), ("F32", [2], [0, 1]),
                            ("I64", [2], [0, 3])]}
    for name, replacements in bad.items():
        for replacement in replacements:
            inputs = {**good, name: replacement}
            if replacement is None:
                del inputs[name]
            message = probe(inputs, DATA).stderr
            word = "class label 3" if replacement == ("I64", [2], [0, 3]) else f"'{name}'"
            check(word in message, f"the message about {name} is: {message}")
            check(not out.exists(), "an output was written in spite of the error")
    path.write_bytes(path.read_bytes()[:100])
    sfumato.run("probe", model, "--inputs", path, "--out", out, expect=DATA)
    probe(good, USAGE, "--layer-algorithm", "magic")
    probe(good, USAGE, "--clip-norm", "-1")


if __name__ == "__main__":
    main(run_check, __doc__.splitlines()[0])
