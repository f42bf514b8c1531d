#!/usr/bin/env python3
"""scripts/feature-weights converts the file whose SHA-256 is known and no other.

It notes that of the original and of the tensors.
"""
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support")]
from sfumato_cli import check, main

try:
    import torch
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

SCRIPT = ROOT / "scripts/feature-weights"


def refused(*arguments):
    done = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    check(done.returncode == 3, f"feature-weights {arguments} ended with {done.returncode}: {done.stderr}")
    return done.stderr


def script():
    loader = importlib.machinery.SourceFileLoader("feature_weights_script", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def check_refusals(work):
    torch.save({"weight": torch.ones(2)}, work / "other.pth")
    for network in ("efficientnet-lite0", "inception"):
        said = refused(network, work / "other.pth", "--out", work / "no")
        check("another file, or damaged" in said, said)
    check("in no package" in refused("inception", "--out", work / "no"), "an Inception was found without a file")
    check("absent.pth" in refused("inception", work / "absent.pth", "--out", work / "no"), "no word of the file")
    with zipfile.ZipFile(work / "empty.whl", "w") as wheel:
        wheel.writestr("readme", "")
    said = refused("efficientnet-lite0", work / "empty.whl", "--out", work / "no")
    check("0 files .pth" in said, said)
    check(not (work / "no").exists(), "something was written")


def read(path):
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    return header.pop("__metadata__"), {name: raw[8 + size + entry["data_offsets"][0]:8 + size + entry["data_offsets"][1]]
                                        for name, entry in header.items()}


def check_conversion(work):
    state = {"b.weight": torch.randn(2, 3), "a.bias": torch.randn(3), "a.num_batches_tracked": torch.tensor(4),
             "b.transposed": torch.randn(4, 5).t()}
    torch.save(state, work / "known.pth", _use_new_zipfile_serialization=False)
    module = script()
    known = hashlib.sha256((work / "known.pth").read_bytes()).hexdigest()
    module.KNOWN["inception"] = (known, "known.safetensors")
    with contextlib.redirect_stdout(io.StringIO()):
        module.convert("inception", work / "known.pth", work / "out")
    metadata, tensors = read(work / "out/known.safetensors")
    check(sorted(tensors) == ["a.bias", "b.transposed", "b.weight"], f"tensors {sorted(tensors)}")
    for name, raw in tensors.items():
        check(raw == bytes(state[name].contiguous().untyped_storage()), f"'{name}' has other bytes")
    of_tensors = hashlib.sha256(b"".join(tensors[name] for name in sorted(tensors))).hexdigest()
    check(metadata == {"format": "pt", "source_sha256": known, "tensors_sha256": of_tensors}, f"notes {metadata}")


def check_known_of_program():
    """One SHA-256 in the script and in the program."""
    known, _ = script().KNOWN["inception"]
    text = (ROOT / "src/features/networks/inception.cpp").read_text()
    check(re.search(r'"([0-9a-f]{64})"', text)[1] == known, "script and program know another Inception")


def run_check(_, work, __):
    check_refusals(work)
    check_conversion(work)
    check_known_of_program()


if __name__ == "__main__":
    main(run_check, __doc__.splitlines()[0])
