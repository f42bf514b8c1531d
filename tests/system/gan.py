#!/usr/bin/env python3
"""A generator and its discriminator, from images to a corpus: configs/gan-smoke.yaml on small data,
the card, the ledger, the release's sample.py in PyTorch, an attack, a generator that breaks, a kill,
and what is refused."""
import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import (DATA, USAGE, check, complete_checkpoints, ledger_charges, main, steps_taken,
                         write_idx)

CONFIG = ("--config", "configs/gan-smoke.yaml")


def prepared(sfumato, folder: Path, per_class: int) -> Path:
    folder.mkdir()
    images, labels = write_idx(folder, per_class, size=28)
    store = folder / "store"
    sfumato.run("prepare", *CONFIG, f"data.source={images}", f"data.labels={labels}",
                f"data.store={store}")
    return store


def arguments(store: Path, run: Path, *overrides: str) -> list[str]:
    return [*CONFIG, f"data.store={store}", f"run.dir={run}", "mechanism.sample_rate=0.08",
            "mechanism.steps=20", "performance.threads=1", *overrides]


def check_run(sfumato, store: Path, run: Path) -> None:
    sfumato.run("train", *arguments(store, run))
    check(len(ledger_charges(run)) == 20, "the discriminator's steps are not those that are charged")
    sfumato.run("ledger", "verify", run)
    card = json.loads((run / "release/privacy_card.json").read_text())
    check(0.99 * 10 < card["epsilon"] <= 10, f"epsilon is {card['epsilon']}, the target 10")
    check("discriminator" in card["networks"]["private"], "the card does not say what was private")
    released = sorted(path.name for path in (run / "release").iterdir())
    check(released == ["README.md", "generator", "privacy_card.json", "privacy_card.md",
                       "report.html", "sample.py"], f"released: {released}")


def check_inspect(sfumato, run: Path) -> None:
    """A finished run, its release and the generator in it, by sight."""
    whole = sfumato.json("inspect", run)
    check(whole["kind"] == "run" and whole["release"] is not None, f"no release in {whole}")
    for found in (whole["release"], sfumato.json("inspect", run / "release")):
        check((found["family"], found["class_name"]) == ("gan", "DCGANGenerator"), str(found))
        check((found["image_size"], found["channels"]) == ([28, 28], 1), str(found))
        check(found["privacy_card"]["epsilon"] <= 10 and "beside" not in found, str(found))
    said = sfumato.run("inspect", run).stdout
    check("DCGANGenerator" in said and "no release" not in said and "epsilon" in said, said)
    alone = sfumato.json("inspect", run / "release/generator")
    check(alone["weights"] == whole["release"]["weights"], str(alone))


def check_corpus(sfumato, run: Path, work: Path) -> None:
    for name, batch in (("corpus", 64), ("again", 3)):
        sfumato.run("sample", run, "--out", work / name, "--count", "30", f"sample.batch={batch}")
    images = sorted((work / "corpus/images").rglob("*.png"))
    check(len(images) == 30, f"{len(images)} images")
    check((work / "corpus/privacy_card.json").exists(), "the corpus has no card")
    said = sfumato.run("sample", run, "--out", work / "guided", "--count", "3", "sample.steps=7",
                       expect=USAGE).stderr
    check("sample.steps" in said, said)


def check_script(run: Path, work: Path) -> None:
    """The release's sample.py draws the program's images of the same names, to one grey level."""
    from PIL import Image
    script = run / "release/sample.py"
    subprocess.run([sys.executable, script, "--count", "30", "--out", work / "by_script"],
                   check=True, stdout=subprocess.DEVNULL)
    ours = sorted((work / "corpus/images").rglob("*.png"))
    theirs = sorted((work / "by_script").rglob("*.png"))
    check(len(ours) == len(theirs) == 30, f"{len(ours)} images, {len(theirs)} by sample.py")
    levels = set()
    for one, other in zip(ours, theirs):
        with Image.open(one) as a, Image.open(other) as b:
            check((a.size, a.mode) == (b.size, b.mode), f"{one}: {a.mode} {a.size}, {b.mode} {b.size}")
            pairs = list(zip(a.tobytes(), b.tobytes()))
        worst = max(abs(x - y) for x, y in pairs)
        check(worst <= 1, f"{other} differs from {one} by {worst} grey levels")
        levels |= {x for x, _ in pairs}
    check(len(levels) > 3, f"the images have {sorted(levels)} alone, by which none is told apart")


def check_script_refuses(run: Path, work: Path) -> None:
    """What sample.py cannot draw from is told in words; where there is no NumPy, nothing is said."""
    script = run / "release/sample.py"
    (work / "latents.txt").write_text("none")
    for arguments, said in ((("--count", "0"), "--count: '0'"), (("--count", "-1"), "--count: '-1'"),
                            (("--seed", "-1"), "--seed: '-1'"), (("--label", "99"), "--label 99"),
                            (("--generator", work / "nowhere"), "holds no generator"),
                            (("--latents", work / "nothing"), "no such file"),
                            (("--latents", work / "latents.txt"), "latents.txt")):
        ended = subprocess.run([sys.executable, script, "--out", work / "refused", *arguments],
                               capture_output=True, text=True)
        check(ended.returncode != 0 and said in ended.stderr, f"{arguments}: {ended.stderr}")
        check("Traceback" not in ended.stderr, ended.stderr)
    check(not (work / "refused").exists(), "images were written all the same")
    ended = subprocess.run([sys.executable, script, "--count", "2", "--out", work / "two"],
                           capture_output=True, text=True)
    check(ended.returncode == 0 and ended.stderr == "", ended.stderr)


def check_attack(sfumato, run: Path, store: Path, others: Path) -> None:
    found = sfumato.json("audit", "membership", run, "--members", store, "--non-members", others,
                         "--count", "60")
    check([attack["score"] for attack in found["attacks"]] == ["discriminator"], str(found))


def check_broken(sfumato, store: Path, run: Path) -> None:
    """A generator that breaks loses no step that was charged."""
    said = sfumato.run("train", *arguments(store, run, "gan.generator_learning_rate=1e38"),
                       expect=DATA).stderr
    check("the generator broke" in said and "gan.generator_learning_rate" in said, said)
    charged = len(ledger_charges(run))
    check(complete_checkpoints(run) == [charged], f"{charged} charges: {complete_checkpoints(run)}")
    sfumato.run("train", *arguments(store, run), "--resume")
    check(len(ledger_charges(run)) == 20, "steps were charged twice")
    sfumato.run("ledger", "verify", run)


def check_killed(sfumato, store: Path, run: Path) -> None:
    """SIGKILL between two checkpoints: what was charged stays charged, and the run goes on."""
    given = arguments(store, run, "mechanism.steps=40", "run.checkpoint_every=3", "run.log_every=1")
    process = sfumato.start("train", *given, log=run.with_suffix(".log"))
    deadline = time.monotonic() + 300
    while (len(complete_checkpoints(run)) < 2 and process.poll() is None
           and time.monotonic() < deadline):
        time.sleep(0.005)
    killed = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    check(killed, f"training ended before it was killed; see {run.with_suffix('.log')}")
    charged, newest = len(ledger_charges(run)), complete_checkpoints(run)[-1]
    taken = max(steps_taken(run).values(), default=0)
    check(charged >= max(taken, newest) >= 6, f"{charged} charges, {taken} steps, checkpoint {newest}")
    sfumato.run("ledger", "verify", run)
    sfumato.run("train", *given, "--resume")
    sfumato.run("ledger", "verify", run)
    check(len(ledger_charges(run)) == 40, f"{len(ledger_charges(run))} charges of 40")
    # Steps that were charged after the checkpoint are lost, and none is taken for nothing.
    last = complete_checkpoints(run)[-1]
    check(last == newest + 40 - charged, f"ended at step {last}: {charged} charged at {newest}")
    check((run / "release/generator/config.json").exists(), "the finished run has no release")


def run_check(sfumato, work: Path, _):
    store, others = prepared(sfumato, work / "a", 40), prepared(sfumato, work / "b", 15)
    run = work / "run"
    check_run(sfumato, store, run)
    check_inspect(sfumato, run)
    check_corpus(sfumato, run, work)
    check_attack(sfumato, run, store, others)
    check_broken(sfumato, store, work / "broken")
    check_killed(sfumato, store, work / "killed")
    said = sfumato.run("train", *arguments(store, work / "average", "gan.loss=relativistic_average"),
                       expect=USAGE).stderr
    check("relativistic_average" in said and "depends on" in said, said)
    said = sfumato.run("train", *arguments(store, work / "foreign", "diffusion.draws=4"),
                       expect=USAGE).stderr
    check("diffusion.draws is 4" in said and "gan-smoke.yaml:" in said, said)
    if not all(importlib.util.find_spec(name) for name in ("torch", "PIL")):
        return "this Python has no PyTorch and Pillow to run sample.py with"
    check_script(run, work)
    check_script_refuses(run, work)
    return None


if __name__ == "__main__":
    main(run_check, __doc__.splitlines()[0])
