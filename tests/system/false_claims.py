#!/usr/bin/env python3
"""A card that its ledger does not prove, names that must not leave, and how epsilon is printed."""
import json
import re
import shutil
import sys
from pathlib import Path

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


def edit_card(run: Path, **fields) -> None:
    path = run / "release/privacy_card.json"
    card = json.loads(path.read_text())
    card.update(fields)
    path.write_text(json.dumps({key: value for key, value in card.items() if value is not ...}))


def check_corpus(sfumato, run: Path, corpus: Path, status: str) -> dict:
    sfumato.run("sample", run, "--out", corpus, "--count", "10", "sample.steps=2")
    card = json.loads((corpus / "privacy_card.json").read_text())
    check(card["status"] == status, f"{corpus} says {card['status']}, expected {status}")
    check((card["epsilon"] is None) == (status != "private"), f"{corpus} has epsilon {card['epsilon']}")
    return card


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
    # A release by itself whose card does not say of which weights it speaks.
    loose = copied("loose")
    edit_card(loose, weights_sha256=...)
    check_corpus(sfumato, loose / "release", work / "corpus_loose", "void")
    # One whose card says less than its own stages cost.
    lied = copied("lied")
    edit_card(lied, epsilon=0.01)
    check_corpus(sfumato, lied / "release", work / "corpus_lied", "void")
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


if __name__ == "__main__":
    main(false_claims, __doc__.splitlines()[0])
