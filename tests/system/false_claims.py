#!/usr/bin/env python3
"""A card that its ledger does not prove, names that must not leave, and how epsilon is printed."""
import json
import re
import shutil
import sys
from pathlib import Path

from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import PRIVACY, check, main, prepare_small_store, smoke_arguments

SECRET = "hospital_of_jane"


def printed_epsilons(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?:ε |epsilon |under \()([0-9.e+-]+)", text)]


def check_names(folder: Path, work: Path) -> None:
    """No file, and no name of one, says where the private images, the run or the store were."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    check(len(files) > 5, f"only {len(files)} files in {folder}")
    for path in files:
        content = path.read_bytes()
        for word in (SECRET, str(work)):
            check(word.encode() not in content and word not in path.name,
                  f"{path} tells of {word}")


def edit_card(run: Path, folder: str = "release", **fields) -> None:
    path = run / folder / "privacy_card.json"
    card = json.loads(path.read_text())
    card.update(fields)
    path.write_text(json.dumps({key: value for key, value in card.items() if value is not ...}))


def check_corpus(sfumato, run: Path, corpus: Path, status: str) -> dict:
    sfumato.run("sample", run, "--out", corpus, "--count", "10", "sample.steps=2")
    card = json.loads((corpus / "privacy_card.json").read_text())
    check(card["status"] == status, f"{corpus} says {card['status']}, expected {status}")
    check((card["epsilon"] is None) == (status != "private"), f"{corpus} has epsilon {card['epsilon']}")
    return card


def check_loose_releases(sfumato, run: Path, work: Path, card: dict) -> None:
    """A release by itself: nothing that its card says without grounds gets into a corpus."""
    lies = {
        "of_no_weights": {"weights_sha256": ...},
        "cheap": {"epsilon": 0.01},
        "sentence": {"statement": "ε = 0.01: nobody can be recognised."},
        "attackers": {"largest_true_positive_rate": [
            {**bound, "true_positive_rate": bound["false_positive_rate"]}
            for bound in card["largest_true_positive_rate"]]},
        "covered": {"not_covered": []},
        "adjacency": {"adjacency": "add_remove"},
        "extra": {"summary": "ε = 0.01"},
        "facts": {"public_facts": {**card["public_facts"], "epsilon": 0.01}},
        "void": {"status": "void", "statement": "ε = 0.01"},
        "not_private": {"status": "not_private", "reasons": ["ε = 0.01"]},
    }
    drawn = {"of_no_weights": "void", "cheap": "void", "sentence": "void", "facts": "void",
             "void": "void", "not_private": "not_private"}
    for name, fields in lies.items():
        loose = work / f"loose_{name}" / "model"
        shutil.copytree(run / "release", loose)
        edit_card(loose.parent, "model", **fields)
        if name != "of_no_weights":
            sfumato.run("account", "--card", loose / "privacy_card.json", expect=PRIVACY)
        if name not in drawn:
            continue
        corpus = work / f"corpus_loose_{name}"
        check_corpus(sfumato, loose, corpus, drawn[name])
        for page in ("privacy_card.json", "README.md", "report.html"):
            text = (corpus / page).read_text()
            check("ε = " not in text and "recognised" not in text,
                  f"{page} of {corpus} repeats what the card says without grounds")
    shutil.copytree(run / "release", work / "lent")
    check_corpus(sfumato, work / "lent", work / "corpus_lent", "private")


def check_what_a_release_holds(sfumato, copied) -> None:
    """Pages that are gone, files that are not the release's, facts that are others."""
    def refused(name: str, word: str, change) -> None:
        run = copied(name)
        change(run)
        said = sfumato.run("ledger", "verify", run, expect=PRIVACY).stderr
        check(word in said, f"{name}: {said}")

    for page in ("privacy_card.md", "report.html", "README.md", "privacy_card.json"):
        refused(f"without_{page}", page, lambda run: (run / "release" / page).unlink())
    refused("counts", "counts.json",
            lambda run: (run / "release/counts.json").write_text('{"counts": [1]}'))
    refused("index", "model_index.json",
            lambda run: (run / "release/model_index.json").write_text("{}"))

    def rename_classes(run: Path) -> None:
        card = json.loads((run / "release/privacy_card.json").read_text())
        edit_card(run, public_facts={**card["public_facts"], "num_classes": 9})
    refused("facts", "public_facts", rename_classes)


def copy_network(checkpoint: Path, place: Path) -> None:
    """Without the count that stands beside an average."""
    tensors = load_file(checkpoint)
    tensors.pop("updates", None)
    save_file(tensors, place)


def link(checkpoint: Path, place: Path) -> None:
    place.symlink_to(checkpoint)


def check_checkpoints(sfumato, run: Path, store: Path, work: Path) -> None:
    """Checkpoints of runs, private or not, are no public weights for the next run on the store."""
    weights = "diffusion_pytorch_model.safetensors"
    open_run = work / "open"
    sfumato.run("train", *smoke_arguments(store, open_run, "mechanism.steps=4",
                                          "privacy.enabled=false"))
    for owner in (run, open_run):
        checkpoint = sorted((owner / "private/checkpoints").glob("step_*"))[-1]
        for name in ("model", "ema"):
            for how in (copy_network, link) if name == "model" else (copy_network,):
                model = work / "init"
                shutil.rmtree(model, ignore_errors=True)
                model.mkdir()
                shutil.copy(owner / "release/unet/config.json", model)
                how(checkpoint / f"{name}.safetensors", model / weights)
                shutil.rmtree(work / "third", ignore_errors=True)
                sfumato.run("train", *smoke_arguments(store, work / "third", "mechanism.steps=1",
                                                      "model.config=", f"model.init={model}"),
                            expect=PRIVACY)


def false_claims(sfumato, work: Path, _):
    secret = work / SECRET
    secret.mkdir()
    store = prepare_small_store(sfumato, secret)
    run = secret / f"run_of_{SECRET}"
    done = sfumato.run("train", *smoke_arguments(store, run, "mechanism.steps=4"))
    card = json.loads((run / "release/privacy_card.json").read_text())
    last = printed_epsilons(done.stdout)
    check(last and all(card["epsilon"] <= value < card["epsilon"] * 1.001 for value in last),
          f"train prints {last} for {card['epsilon']}")
    lines = printed_epsilons(done.stderr)
    metrics = [json.loads(line) for line in (run / "private/metrics.jsonl").read_text().splitlines()]
    check(lines and lines[-1] >= metrics[-1]["epsilon"],
          f"progress lines say {lines}, the metrics {metrics[-1]}")
    shown = sfumato.run("ledger", "verify", run).stdout
    check(printed_epsilons(shown)[0] >= card["epsilon"], f"ledger verify prints {shown}")
    check_names(run / "release", work)
    check_corpus(sfumato, run, work / "corpus", "private")
    check_names(work / "corpus", work)

    def copied(name: str) -> Path:
        shutil.copytree(run, secret / name)
        return secret / name

    # An edited card: verify refuses it, and a corpus drawn under it claims nothing.
    cheap = copied("cheap")
    edit_card(cheap, epsilon=0.01)
    done = sfumato.run("ledger", "verify", cheap, expect=PRIVACY)
    check("what the ledger charges costs" in done.stderr, done.stderr)
    check_corpus(sfumato, cheap, work / "corpus_cheap", "void")
    old = copied("old")
    edit_card(old, schema_version=1, epsilon=0.01)
    done = sfumato.run("ledger", "verify", old, expect=PRIVACY)
    check("schema version 1" in done.stderr, done.stderr)
    # The release/ of a run is as private as the ledger beside it proves: noise that was not drawn.
    noisy = copied("noisy")
    stages = [{**stage, "noise_multiplier": 20.0} for stage in card["stages"]]
    edit_card(noisy, stages=stages)
    check_corpus(sfumato, noisy / "release", work / "corpus_noisy", "void")
    check_loose_releases(sfumato, run, work, card)
    check_what_a_release_holds(sfumato, copied)
    # What a run released is not public to the next, also after the images were prepared again.
    again = work / "again"
    again.mkdir()
    other = prepare_small_store(sfumato, again)
    arguments = smoke_arguments(other, work / "second", "mechanism.steps=4", "model.config=",
                                f"model.init={run / 'release'}")
    done = sfumato.run("train", *arguments, expect=PRIVACY)
    found = re.search(r"mechanism\.declared=(\[.*\])", done.stderr)
    check(found is not None, done.stderr)
    second = sfumato.json("train", *arguments, f"mechanism.declared={found.group(1)}",
                          "mechanism.target_epsilon=null", "mechanism.noise_multiplier=5")
    check(second["epsilon"] > card["epsilon"], f"{second['epsilon']} after {card['epsilon']}")
    sfumato.run("ledger", "verify", work / "second")
    check_checkpoints(sfumato, run, store, work)


if __name__ == "__main__":
    main(false_claims, __doc__.splitlines()[0])
