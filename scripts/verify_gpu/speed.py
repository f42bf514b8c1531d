"""The steps of `verify-gpu speed`: how fast is it, beside what, and does a whole private run work?"""
import hashlib
import json
import math
import re

from call import ROOT
from common_steps import (FIRST_STEPS, HERE, bench_step, ended_well, judge_bench_step, parsed, positive,
                          stopped_at_values)
from runner import Finished, Step, Unmet

# Profiled: where a private step spends what a plain one does not.
PROFILED = ("warpgroup_weight_grad_kernel", "weight_grad_kernel", "gram_pair_kernel",
            "clip_accumulate_kernel", "private_update_kernel")
IMAGES, QUICK_IMAGES = 1797, 200
EPSILON = 10
SAMPLES = 64


def judge_kernels(call, done: Finished) -> str:
    report = parsed(done)
    call.write("kernels.json", report)
    lacking = [row["kernel"] for row in report["rows"] if not row["measured"]]
    if lacking or not report["rows"]:
        raise Unmet(f"not measured: {', '.join(lacking) or 'any kernel'}")
    said = [f"{each['element']} weight gradients {each['library_summed_s'] / each['seconds']:.2f} of "
            "the library's rate" for each in report["totals"]]
    return f"{len(report['rows'])} rows; {', '.join(said)}"


def opacus_case(call) -> str:
    """A processor that pretends takes minutes for the larger one."""
    return "small" if call.dry_run else "cifar10"


def opacus(call) -> list:
    peers = call.bundle / "peers"
    if not peers.is_dir():
        raise Unmet("the bundle holds no peers/; make it with scripts/bundle --with-peers")
    # On the pretended device everything of cuDNN but convolutions is missing, and norms are of nothing.
    return [call.python, ROOT / "tests/compare/opacus_step.py", "--device", "cuda", "--threads", 8,
            "--packages", peers, "--sfumato", call.bundle / "sfumato", "--case", opacus_case(call),
            "--steps", call.few(10, 1), "--warmup", call.few(3, 1),
            "--folder", call.work / "opacus", "--json", call.work / "opacus.json",
            *(["--without-cudnn-attention", "--without-check"] if call.dry_run else [])]


def judge_opacus(call, done: Finished) -> str:
    ended_well(done)
    rows = json.loads((call.work / "opacus.json").read_text())[opacus_case(call)]
    call.write("opacus.json", rows)
    fastest = {name: positive(rows[name]["fastest"], f"seconds of {name}")
               for name in ("PyTorch", "Opacus", "sfumato, not private", "sfumato, private")}
    private = fastest["sfumato, private"]
    return (f"private {private * 1e3:.2f} ms: {private / fastest['PyTorch']:.2f} of PyTorch's plain "
            f"step ({rows['PyTorch']['variant']}), {fastest['Opacus'] / private:.2f} times as fast as "
            "Opacus")


def judge_noise(call, done: Finished) -> str:
    report = parsed(done)
    call.put("step.json", "noise", report)
    rate = positive(report["chacha_normals_per_s"], "normals per second")
    return f"{rate * 1e-9:.2f} G normals/s, {report['ratio']:.2f} times torch's rate"


AT_VALUES = "drew images, and stopped at the check of their values"


def judge_bench_sample(call, done: Finished) -> str:
    if stopped_at_values(call, done):
        return AT_VALUES
    report = parsed(done)
    call.put("step.json", "sample", report)
    return f"{positive(report['images_per_s'], 'images per second'):,.0f} images/s"


def ncu(call) -> list:
    """In the process with which bench step measures memory: a few steps, eager and recorded."""
    call.kept["ncu.csv"] = call.work / "ncu.csv"
    kernels = f"::regex:^({'|'.join(PROFILED)})$:^[1-3]$"
    return [call.bundle / "run", "--", "ncu", "--clock-control", "none", "--csv", "--log-file",
            call.work / "ncu.csv", "--kernel-id", kernels, call.bundle / "bin/sfumato-lab", "bench",
            "step", "--only", "private", "--case", "cifar10", "--examples", 16, "--draws", 8, "--device", "cuda",
            "--precision", "bf16"]


def judge_ncu(call, done: Finished) -> str:
    ended_well(done)
    text = (call.work / "ncu.csv").read_text(errors="replace")
    if '"Kernel Name"' not in text:
        raise Unmet("no table of kernels")
    seen = [name for name in PROFILED if re.search(rf"\b{name}\b", text)]
    if not seen and not call.dry_run:
        raise Unmet("none of the kernels was profiled")
    return f"profiled: {', '.join(seen) or 'none'}"


# A real run ----------------------------------------------------------------------------------------


def images(call) -> list:
    return [call.python, HERE / "digits.py", call.work / "run/images", "--count",
            call.few(IMAGES, QUICK_IMAGES)]


def judge_images(call, done: Finished) -> str:
    ended_well(done)
    return done.output.strip()


def write_configuration(call) -> None:
    folder, batch = call.work / "run", call.few(256, 32)
    network = {"_class_name": "UNet2DModel", "sample_size": 32, "in_channels": 1, "out_channels": 1,
               "block_out_channels": [32, 64, 64], "layers_per_block": 2, "norm_num_groups": 8,
               "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
               "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
               "attention_head_dim": 8, "num_class_embeds": 11}
    (folder / "network.json").write_text(json.dumps(network))
    # JSON is YAML. All numbers are public: these digits are.
    settings = {
        "run": {"dir": str(folder / "digits"), "log_every": 1},
        "data": {"source": str(folder / "images"), "store": str(folder / "store"), "image_size": 32,
                 "channels": 1, "class_names": [str(digit) for digit in range(10)]},
        "model": {"config": str(folder / "network.json")},
        "mechanism": {"sample_rate": batch / call.few(IMAGES, QUICK_IMAGES),
                      "expected_batch_size": batch, "steps": call.few(400, 4), "clip_norm_l2": 1.0,
                      "target_epsilon": EPSILON, "delta": 1e-5},
        "diffusion": {"prediction": "v_prediction", "schedule": "squaredcos_cap_v2",
                      "draws": call.few(8, 2), "label_dropout": 0.1, "horizontal_flip": False},
        "optimizer": {"learning_rate": 2e-3, "warmup_steps": 10, "ema_decay": 0.98},
        "performance": {"device": "cuda", "precision": "bf16"},
        "sample": {"steps": call.few(50, 2)}}
    (folder / "digits.yaml").write_text(json.dumps(settings, indent=1))


def prepare(call) -> list:
    write_configuration(call)
    return call.sfumato("prepare", "--config", call.work / "run/digits.yaml")


def judge_prepare(call, done: Finished) -> str:
    ended_well(done)
    if not (call.work / "run/store/manifest.json").is_file():
        raise Unmet("no record store")
    return f"{call.few(IMAGES, QUICK_IMAGES)} records"


def train(call) -> list:
    return call.sfumato("train", "--config", call.work / "run/digits.yaml")


def judge_train(call, done: Finished) -> str:
    run = call.work / "run/digits"
    call.kept.update({"train/metrics.jsonl": run / "private/metrics.jsonl",
                      "train/ledger.jsonl": run / "ledger.jsonl",
                      "train/privacy_card.json": run / "release/privacy_card.json"})
    ended_well(done)
    card = json.loads((run / "release/privacy_card.json").read_text())
    epsilon = positive(card["epsilon"], "epsilon")
    if epsilon > EPSILON:
        raise Unmet(f"epsilon is {epsilon}, above {EPSILON}")
    lines = [json.loads(line) for line in (run / "private/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines]
    if not losses or not all(map(math.isfinite, losses)):
        raise Unmet("losses are missing or not finite")
    part = max(1, len(losses) // 10)
    first, last = (sum(some) / part for some in (losses[:part], losses[-part:]))
    if last >= first and not (call.dry_run or call.quick):
        raise Unmet(f"the loss did not fall: {first:.3f} to {last:.3f}")
    return f"{len(losses)} steps, epsilon {epsilon}, loss {first:.3f} to {last:.3f}"


def judge_ledger(call, done: Finished) -> str:
    report = parsed(done)
    return f"{report['charged_steps']} steps charged, {report['verdict']}"


def sample(call) -> list:
    return call.sfumato("sample", call.work / "run/digits", "--out", call.work / "run/corpus",
                        "--count", SAMPLES, "--json", "performance.device=cuda",
                        "performance.precision=bf16")


def judge_sample(call, done: Finished) -> str:
    corpus = call.work / "run/corpus"
    call.kept.update({"corpus/contact_sheet.png": corpus / "__preview__/contact_sheet.png",
                      "corpus/privacy_card.json": corpus / "privacy_card.json"})
    if stopped_at_values(call, done):
        return AT_VALUES
    report = parsed(done)
    pictures = [hashlib.sha256(path.read_bytes()).digest()
                for path in corpus.glob("images/**/*.png")]
    if len(pictures) != SAMPLES or not (corpus / "__preview__/contact_sheet.png").is_file():
        raise Unmet(f"{len(pictures)} of {SAMPLES} images")
    if len(set(pictures)) < SAMPLES and not call.dry_run:
        raise Unmet(f"only {len(set(pictures))} of {SAMPLES} images differ")
    return f"{SAMPLES} images, {report['status']}, epsilon {report['epsilon']}"


def kernels(call) -> list:
    return call.sfumato("bench", "kernels", "--device", "cuda", "--repeat", call.few(10, 1), "--json")


def noise(call) -> list:
    return call.sfumato("bench", "noise", "--device", "cuda", "--repeat", call.few(7, 1), "--count",
                        call.few(100_000_000, 1_000_000), "--json")


def bench_sample(call) -> list:
    return call.sfumato("bench", "sample", "--device", "cuda", "--precision", "bf16", "--batch", 64,
                        "--repeat", call.few(3, 1), "--json")


def ledger(call) -> list:
    return call.sfumato("ledger", "verify", call.work / "run/digits", "--json")


def timed(name: str, case: str, precision: str) -> Step:
    return Step(f"step_{name}", 60, bench_step(case, precision), judge_bench_step(name), ("unpack",))


STEPS = FIRST_STEPS + (
    timed("cifar10_bf16", "cifar10", "bf16"),
    timed("cifar10_tf32", "cifar10", "tf32"),
    timed("dpdm_mnist_bf16", "dpdm-mnist", "bf16"),
    Step("kernels", 170, kernels, judge_kernels, ("unpack",)),
    Step("opacus", 110, opacus, judge_opacus, ("unpack", "doctor")),
    Step("noise", 20, noise, judge_noise, ("unpack",)),
    Step("sample", 30, bench_sample, judge_bench_sample, ("unpack", "doctor")),
    Step("ncu", 60, ncu, judge_ncu, ("unpack", "doctor")),
    Step("run_images", 15, images, judge_images),
    Step("run_prepare", 15, prepare, judge_prepare, ("unpack", "run_images")),
    Step("run_train", 90, train, judge_train, ("run_prepare", "doctor")),
    Step("run_ledger", 15, ledger, judge_ledger, ("run_train",)),
    Step("run_sample", 30, sample, judge_sample, ("run_train",)),
)
