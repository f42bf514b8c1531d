#!/usr/bin/env python3
"""scripts/import-checkpoint converts networks of EDM, DPDM and DPImageBench: `sfumato probe` then computes
what tests/support/edm_networks.py computes, outputs and norms of per-example gradients, and so does the
network.py of releases. A run starts from one, its card says on whose word, and its release draws the same
images by sample.py. What a network or a file has that is not expressed is refused by name.
"""
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests/support", "src/generate/diffusion", "scripts")]
from sfumato_cli import DATA, check, main, run_import, write_idx

try:
    import torch
    from diffusers import UNet2DModel
    from PIL import Image
    from safetensors.torch import load_file, save_file
    from torchvision.transforms.functional import pil_to_tensor
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
import edm_networks
from import_checkpoint import diffusion
import network as released_network

TOLERANCE = 1e-5


def song(seed=1, **changes):
    kind = dict(adm=False, side=8, colours=3, base=16, factors=(1, 2), layers=2, attends=(8,), classes=3,
                augment=9)
    return edm_networks.with_random_weights(edm_networks.EdmUNet(**kind | changes), seed)


def adm(seed=2, **changes):
    return song(seed, **dict(adm=True, base=128, factors=(1, 1), layers=1, attends=(4,), augment=0) | changes)


def ncsnpp(seed=3, **changes):
    kind = dict(side=8, colours=1, base=16, factors=(2, 4), layers=2, attends=(4,), classes=5)
    return edm_networks.with_random_weights(edm_networks.SongNcsnpp(**kind | changes), seed)


NETWORKS = {
    "song": song(), "song_wide_unconditional": song(base=32, factors=(2, 1, 1), layers=1, attends=(4, 2),
                                                    classes=0, augment=0, colours=1),
    "song_one_level": song(factors=(1,), layers=1, attends=()),
    "adm": adm(), "adm_unconditional": adm(factors=(1,), attends=(8,), classes=0),
    "ncsnpp": ncsnpp(), "ncsnpp_unconditional": ncsnpp(factors=(1, 1, 2), attends=(8,), classes=0, colours=3),
    "ncsnpp_one_level": ncsnpp(factors=(1,), layers=1, attends=(8,))}


def inputs_of(network, examples=3, draws=2):
    draw = torch.Generator().manual_seed(9)
    shape = (examples, draws, 3 if network_colours(network) == 3 else 1, 8, 8)
    inputs = {"sample": torch.randn(shape, generator=draw), "target": torch.randn(shape, generator=draw),
              "timestep": torch.randn(examples, draws, generator=draw)}
    if network.classes:
        inputs["class_labels"] = torch.tensor([0, network.classes - 1, network.classes])  # the last is none
    return inputs


def network_colours(network):
    first = network.enc["8x8_conv"] if hasattr(network, "enc") else next(
        module for module in network.all_modules if isinstance(module, torch.nn.Conv2d))
    return first.weight.shape[1]


def expected(network, inputs):
    """Outputs, and norms of the gradients of each example by autograd."""
    outs, norms = [], []
    for i in range(len(inputs["sample"])):
        labels = inputs["class_labels"][i].repeat(inputs["sample"].shape[1]) if network.classes else None
        out = network(inputs["sample"][i], inputs["timestep"][i], labels)
        loss = (out - inputs["target"][i]).square().mean()
        gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        norms.append(math.sqrt(sum(g.double().square().sum().item() for g in gradients if g is not None)))
        outs.append(out.detach())
    return torch.stack(outs), torch.tensor(norms, dtype=torch.float64)


def relative(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


@torch.no_grad()
def by_python(folder, inputs):
    """The converted network: diffusers' own where it has the blocks, network.py elsewhere."""
    config = json.loads((folder / "config.json").read_text())
    if any("DDPMpp" in kind for kind in config["down_block_types"]):
        network = released_network.load(folder)
        try:
            UNet2DModel.from_pretrained(folder)
        except ValueError as error:
            check("DDPMpp" in str(error), f"diffusers refuses by another name: {error}")
        else:
            check(False, "diffusers takes blocks that it does not have")
    else:
        network = UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False).eval()
    labels = inputs["class_labels"].repeat_interleave(2) if "class_labels" in inputs else None
    sample = inputs["sample"]
    return network(sample.flatten(0, 1), inputs["timestep"].flatten(), class_labels=labels).sample.view_as(sample)


def check_network(sfumato, work, name, network):
    saved = {f"model.{key}": value for key, value in network.state_dict().items()}
    folder = work / name
    torch.save(saved, work / f"{name}.pth")
    said = run_import(work / f"{name}.pth", "--out", folder, *(["--image-size", 8] if "ncsnpp" in name else []))
    check("which a state dict does not say" in said, said)
    inputs = inputs_of(network)
    out, norms = expected(network, inputs)
    difference = relative(by_python(folder, inputs), out)
    check(difference < TOLERANCE, f"{name}: the converted network in Python differs by {difference:.1e}")
    save_file(inputs, work / "in.safetensors")
    for algorithm in ("keep", "gram"):
        sfumato.run("probe", folder, "--inputs", work / "in.safetensors", "--out", work / "out.safetensors",
                    "--clip-norm", "1", "--layer-algorithm", algorithm)
        got = load_file(work / "out.safetensors")
        difference = relative(got["out"], out)
        check(difference < TOLERANCE, f"{name}: sfumato's output differs by {difference:.1e}")
        # A table whose rows the file scales (map_label) has other gradients than ours.
        if name.startswith("ncsnpp") or not network.classes:
            difference = relative(got["grad_norm_per_sample"], norms)
            check(difference < 1e-4, f"{name} ({algorithm}): gradient norms differ by {difference:.1e}")


def check_forms(work):
    """What programs save: DPDM's average as a list, several dicts, prefixes, what unpickle-edm writes."""
    network, average = ncsnpp(), ncsnpp(seed=4)
    model = {f"module.model.{name}": value for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.int64)).sum().backward()
    optimizer.step()
    model = {name: value.clone() for name, value in model.items()}
    saved = {"model": model, "optimizer": optimizer.state_dict(), "step": 7,
             "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": [p.detach() for p in average.parameters()]}}
    torch.save(saved, work / "dpdm.pth")
    said = run_import(work / "dpdm.pth", "--out", work / "dpdm", "--image-size", 8)
    check("takes 'ema'" in said and "0.57735" in said, said)
    scheduler = json.loads((work / "dpdm/scheduler_config.json").read_text())
    check(scheduler["_class_name"].startswith("EDM") and abs(scheduler["sigma_data"] ** 2 - 1 / 3) < 1e-12,
          f"{scheduler}")

    def conv_in(folder):
        return load_file(work / folder / "diffusion_pytorch_model.safetensors")["conv_in.weight"]
    check(torch.equal(conv_in("dpdm"), average.all_modules[3].weight), "the average was not taken")
    run_import(work / "dpdm.pth", "--out", work / "raw", "--key", "model")
    check(torch.equal(conv_in("raw"), model["module.model.all_modules.3.weight"]), "--key model takes others")

    saved["ema"]["shadow_params"].pop()
    torch.save(saved, work / "short.pth")
    check("shadow_params" in run_import(work / "short.pth", "--out", work / "no", expect=3), "a short average")
    torch.save({"ema": model, "state_dict": {}, "epoch": 1}, work / "ema.pt")
    run_import(work / "ema.pt", "--out", work / "ema_of_dict")

    facts = {"precond": "EDMPrecond", "sigma_data": 0.4}
    torch.save({"state_dict": song().state_dict(), "facts": facts}, work / "edm.pt")
    said = run_import(work / "edm.pt", "--out", work / "edm")
    check("sigma_data 0.4" in said and "does not say" not in said, said)


def check_pickle(work):
    """A pickle is refused, and unpickle-edm makes tensors of it where its modules are."""
    checkout = work / "checkout"
    checkout.mkdir()
    (checkout / "edm_networks.py").write_text((ROOT / "tests/support/edm_networks.py").read_text())
    (checkout / "edm_module.py").write_text("import torch\n\n\nclass EDMPrecond(torch.nn.Module):\n    pass\n")
    sys.path.append(str(checkout))
    from edm_module import EDMPrecond
    network = EDMPrecond()
    network.model, network.sigma_data, network.img_resolution = song(), 0.5, 8
    path = work / "network-snapshot-000001.pkl"
    path.write_bytes(pickle.dumps({"ema": network, "augment_pipe": None}))
    said = run_import(path, "--out", work / "no", expect=3)
    check("unpickle-edm" in said and "runs it where it is read" in said, said)
    subprocess.run([sys.executable, ROOT / "scripts/unpickle-edm", path, work / "tensors.pt"], check=True,
                   cwd=checkout, stdout=subprocess.DEVNULL)
    said = run_import(work / "tensors.pt", "--out", work / "of_pickle")
    check("SongUNet" in said and "does not say" not in said, said)
    written = load_file(work / "of_pickle/diffusion_pytorch_model.safetensors")
    check(torch.equal(written["conv_in.weight"], network.model.enc["8x8_conv"].weight), "other weights")


def refused(name, state, *words, facts=None):
    try:
        diffusion.convert(state, facts or {})
    except diffusion.Refused as error:
        check(all(word in str(error) for word in words), f"{name} is refused otherwise: {error}")
    else:
        check(False, f"{name} is taken")


def changed(network, **changes):
    return {name: value.clone() for name, value in network.state_dict().items()} | changes


def without(state, name):
    check(name in state, f"no {name} to leave out")
    return {key: value for key, value in state.items() if key != name}


def check_refusals(work):
    one, tensor = song(), torch.ones(4)
    state = changed(one)
    refused("fourier", state | {"map_noise.freqs": tensor}, "embedding_type=fourier", "NCSN++")
    refused("residual", state | {"enc.4x4_aux_residual.weight": tensor}, "encoder_type=residual")
    refused("skip", state | {"enc.4x4_aux_skip.weight": tensor}, "encoder_type=skip")
    refused("drawn", state | {"dec.4x4_aux_norm.weight": tensor}, "decoder_type=skip")
    name = "enc.4x4_down.conv0.resample_filter"
    outer = torch.tensor([1.0, 3, 3, 1])
    fir = {key: (torch.outer(outer, outer) / 64)[None, None] if key == name else value
           for key, value in state.items()}
    refused("fir", fir, "resample_filter")
    refused("iddpm", state | {"u": tensor}, "iDDPMPrecond")
    refused("vp", state, "VPPrecond", facts={"precond": "VPPrecond"})
    left = state | {"model.enc.8x8_block7.conv0.weight": tensor}
    refused("left", left, "enc.8x8_block7.conv0.weight")
    torch.save(left, work / "left.pt")
    said = run_import(work / "left.pt", "--out", work / "no", expect=3)
    check("left.pt" in said and "enc.8x8_block7" in said, said)
    check(not (work / "no").exists(), "something was written of what was refused")
    for kind, network, name in (("edm", one, "dec.4x4_block1.affine.bias"),
                                ("adm", adm(), "dec.4x4_in0.proj.weight"),
                                ("dpdm", ncsnpp(), "all_modules.9.Conv_1.bias")):
        state = changed(network)
        refused(f"missing_{kind}", without(state, name), name.split(".Conv")[0])
        refused(f"shape_{kind}", state | {name: torch.ones(3)}, name, "shape")
        state[name].view(-1)[0] = math.nan
        refused(f"nan_{kind}", state, name, "NaN")
    refused("noise_width", changed(one, **{
        "map_layer0.weight": torch.ones(64, 32), "map_label.weight": torch.ones(32, 3),
        "map_label.bias": torch.ones(32), "map_augment.weight": torch.ones(32, 9)}), "channel_mult_noise")
    refused("narrow_adm", adm(base=64, factors=(1, 2)).state_dict(), "groups")
    refused("deep", changed(adm(), **{"out_conv.weight": torch.ones(6, 128, 3, 3),
                                            "out_conv.bias": torch.ones(6)}), "learned variance")

    state = changed(ncsnpp())
    refused("score_sde", state | {"sigmas": tensor}, "score-SDE")
    refused("fourier_song", {f"all_modules.{int(name.split('.')[1]) + 1}.{name.split('.', 2)[2]}": value
                                   for name, value in state.items()} | {"all_modules.0.W": tensor},
            "embedding_type=fourier")
    block = "all_modules.5"
    ddpm = {name: value for name, value in state.items() if not name.startswith(f"{block}.")}
    refused("ddpm", ddpm | {f"{block}.Conv_0.weight": tensor, f"{block}.Conv_0.bias": tensor},
            "resblock_type=ddpm")
    refused("fir_song", ddpm | {f"{block}.Conv2d_0.weight": tensor}, "fir=true")
    refused("gap", ddpm, f"{block} is missing")
    refused("unknown", ddpm | {f"{block}.strange": tensor}, "strange")
    refused("late", state | {"all_modules.99.weight": tensor}, "missing")
    refused("twice", state | {"module.all_modules.0.weight": tensor}, "twice")


def check_named_files(sfumato, work):
    """model.init names a folder in diffusers' layout, and says how to make one of other files."""
    for name, words in (("dpdm.pth", ("import-checkpoint", "could run any code")),
                        ("network-snapshot-000001.pkl", ("unpickle-edm", "program code"))):
        alone = work / f"alone_{name}"
        alone.mkdir()
        (alone / name).write_bytes((work / name).read_bytes())
        for init in (work / name, alone):
            said = sfumato.run("train", "--config", "configs/edm-smoke.yaml", f"model.init={init}",
                               "model.config=", f"data.store={work / 'store'}", f"run.dir={work / 'no_run'}",
                               expect=DATA).stderr
            check(all(word in said for word in (name, *words)), f"model.init={init}: {said}")


def pictures(folder):
    return {path.relative_to(folder).as_posix(): pil_to_tensor(Image.open(path)).int()
            for path in sorted(folder.glob("*/*.png"))}


def check_run(sfumato, work):
    """From a converted network by private training to a corpus, and by sample.py of the release."""
    torch.save({"model": ncsnpp(classes=10).state_dict()}, work / "start.pth")
    run_import(work / "start.pth", "--out", work / "start", "--image-size", 8)
    images, labels = write_idx(work, 40, size=8)
    config = ("--config", "configs/edm-smoke.yaml")
    store, run = work / "store", work / "run"
    sfumato.run("prepare", *config, f"data.source={images}", f"data.labels={labels}", f"data.store={store}",
                "data.image_size=8")
    sfumato.run("train", *config, f"data.store={store}", f"run.dir={run}", f"model.init={work / 'start'}",
                "model.config=", "data.image_size=8", "mechanism.sample_rate=0.08", "mechanism.steps=3",
                "performance.threads=1", "preview.images=0", "sample.s_churn=4")
    sfumato.run("ledger", "verify", run)
    card = json.loads((run / "release/privacy_card.json").read_text())
    check(card["initial_weights"]["origin"] == "public", f"{card['initial_weights']}")
    release = run / "release"
    check((release / "network.py").read_text() == (ROOT / "src/generate/diffusion/network.py").read_text(),
          "network.py of the release is another")
    check("from network import load" in (release / "README.md").read_text(), "README does not say how to open it")
    sfumato.run("sample", run, "--out", work / "corpus", "--count", "10", "sample.seed=4")
    subprocess.run([sys.executable, release / "sample.py", "--count", "10", "--seed", "4", "--out",
                    work / "by_script"], check=True, stdout=subprocess.DEVNULL)
    ours = list(pictures(work / "corpus/images").values())
    theirs = list(pictures(work / "by_script").values())
    check(len(ours) == len(theirs) == 10, f"{len(ours)} and {len(theirs)} images")
    worst = max((a - b).abs().max().item() for a, b in zip(ours, theirs))
    check(worst <= 2, f"sample.py draws other images: {worst} grey levels")


def run_check(sfumato, work, _):
    for name, network in NETWORKS.items():
        check_network(sfumato, work, name, network)
    check_forms(work)
    check_pickle(work)
    check_refusals(work)
    check_run(sfumato, work)
    check_named_files(sfumato, work)


if __name__ == "__main__":
    main(run_check, __doc__.splitlines()[0])
