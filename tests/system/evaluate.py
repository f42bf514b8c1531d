#!/usr/bin/env python3
"""`sfumato evaluate` as a user calls it: where private numbers may lie, what is printed, what is refused."""
import json
import os
import stat
import struct
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import (DATA, PRIVACY, USAGE, check, main, prepare_small_store, smoke_arguments,
                         write_idx)

KEYS = ("frechet_distance", "kid_mean", "kid_std", "precision", "recall", "density", "coverage",
        "class_frechet_distance", "accuracy", "real_accuracy", "label_fidelity")


def write_npz(path: Path, count: int, classes: int, size: int) -> Path:
    """x float32 [N, 1, H, W] in [0, 1] and y int64 [N], as generators of other programs write them."""
    def npy(descr: str, shape: str, data: bytes) -> bytes:
        header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data

    pixels, labels = bytearray(), bytearray()
    for i in range(count):
        label = i % classes
        labels += struct.pack("<q", label)
        for y in range(size):
            for x in range(size):
                bar = abs((y if label % 2 else x) - (label * size) // classes) < 2
                pixels += struct.pack("<f", (.8 if bar else .1) + ((7 * i + 3 * x + y) % 13) / 100)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy("<f4", f"({count}, 1, {size}, {size})", pixels))
        archive.writestr("y.npy", npy("<i8", f"({count},)", labels))
    return path


def check_private(sfumato, corpus: Path, store: Path, work: Path) -> None:
    """Numbers of a private reference go to a closed folder and nowhere else."""
    said = sfumato.json("evaluate", corpus, "--reference", store, "--features", "pixels", timeout=900)
    for key in KEYS:
        check(isinstance(said.get(key), float), f"{key}: {said.get(key)}")
    check(said["accuracy"] > .5, f"accuracy {said['accuracy']}")
    check(said["reference_privacy"]["status"] == "private", f"{said['reference_privacy']}")
    check("privacy_alarm" not in said["corpus"] and "Nothing is claimed" in said["corpus"]["privacy"],
          f"{said['corpus']}")
    for one in said["measurements"]:
        for fact in ("split", "preprocessing", "weights_sha256", "network"):
            check(one.get(fact) or one.get("reference_" + fact), f"{fact} missing: {one}")
        check(one["reference_images"] > 0, f"{one}")
    folder = store.parent / (store.name + "-evaluation")
    check(stat.S_IMODE(os.stat(folder).st_mode) == 0o700, "the folder is open to others")
    for name in ("evaluation.html", "evaluation.md", "evaluation.json"):
        check(stat.S_IMODE(os.stat(folder / name).st_mode) == 0o600, f"{name} is open to others")
        check("PRIVATE: these numbers tell" in (folder / name).read_text(), f"{name} does not say it")
    check("Nearest pairs" in (folder / "evaluation.html").read_text(), "no pairs for the holder")
    check(json.loads((folder / "evaluation.json").read_text())["kid_mean"] == said["kid_mean"], "json")

    shared = work / "released"
    shared.mkdir()
    (shared / "privacy_card.json").write_text("{}")
    quick = ("evaluate", corpus, "--reference", store, "--metrics", "frechet_distance")
    refused = sfumato.run(*quick, "--out", shared / "numbers", expect=USAGE).stderr
    check("a released model" in refused and not (shared / "numbers").exists(), refused)
    (work / "open").mkdir(mode=0o755)
    sfumato.run(*quick, "--out", work / "open", expect=USAGE)


def check_public(sfumato, corpus: Path, images: Path, labels: Path, work: Path) -> None:
    pages = work / "pages"
    call = ("evaluate", corpus, "--reference", images, "--reference-labels", labels,
            "--metrics", "frechet_distance,kid,precision_recall", "--split", "test")
    said = sfumato.json(*call, "--reference-is-public", "--out", pages, "--count", "50")
    check(said["reference_privacy"]["status"] == "declared_public", f"{said['reference_privacy']}")
    check(said["measurements"][0]["reference_split"] == "test", "split")
    check(said["measurements"][0]["corpus_images"] == 50, "count")
    page = (pages / "evaluation.html").read_text()
    check("declared public" in page and "Nearest pairs" not in page, "page of a public reference")
    # Only printed.
    text = sfumato.run(*call, "--reference-is-public").stdout
    check("declared public" in text and "pages:" not in text, text)


def check_refusals(sfumato, corpus: Path, store: Path, work: Path) -> None:
    quick = ("--reference", store, "--metrics", "frechet_distance", "--out", work / "numbers")
    sfumato.run("evaluate", corpus, expect=USAGE)
    sfumato.run("evaluate", work / "nothing", *quick, expect=DATA)
    said = sfumato.run("evaluate", write_npz(work / "large.npz", 20, 10, 24), *quick, expect=USAGE)
    check("24x24" in said.stderr, said.stderr)
    said = sfumato.run("evaluate", corpus, *quick, "--features", "pixel", expect=USAGE)
    check("did you mean" in said.stderr, said.stderr)
    for seed in ("-1", str(2**32)):
        sfumato.run("evaluate", corpus, *quick, "--seed", seed, expect=USAGE)
    # The store that the corpus says it comes from is not public.
    made = work / "made"
    (made / "images/0").mkdir(parents=True)
    manifest = json.loads((store / "manifest.json").read_text())["manifest_hash"]
    card = {"schema_version": 2, "status": "void", "reasons": ["made for a test"],
            "data_manifest_hash": manifest}
    (made / "privacy_card.json").write_text(json.dumps(card))
    import_pictures(sfumato, store, made)
    said = sfumato.run("evaluate", made, "--no-classes", *quick, "--reference-is-public",
                       expect=PRIVACY).stderr
    check("not public" in said, said)


def check_holdout(sfumato, corpus: Path, images: Path, labels: Path, work: Path) -> None:
    """Classifiers are tested on what prepare held out of the store, if nothing else is named."""
    store = work / "held"
    sfumato.run("prepare", "--config", "configs/smoke.yaml", f"data.source={images}", f"data.labels={labels}",
                f"data.store={store}", "data.holdout=0.25")
    call = ("evaluate", corpus, "--reference", store, "--features", "pixels", "--metrics", "accuracy")
    said = sfumato.run(*call, timeout=900)
    check(f"tested on held-out images: '{store}-holdout'" in said.stderr, said.stderr)
    said = sfumato.run(*call, "--test", images, "--test-labels", labels, timeout=900)
    check("held-out" not in said.stderr, said.stderr)


def check_noisy(sfumato, store: Path, work: Path) -> None:
    """An accuracy and a distance leave, which the run has planned; they are drawn once."""
    run, corpus, pages = work / "planned", work / "drawn", work / "noisy"
    stages = "mechanism.stages."
    sfumato.run("train", *smoke_arguments(store, run, f"{stages}accuracy.noise_multiplier=5",
                                          f"{stages}frechet_distance.noise_multiplier=2",
                                          f"{stages}frechet_distance.dimension=4"))
    sfumato.run("sample", run, "--out", corpus, "--count", "120", "sample.steps=1")
    epsilon = json.loads((run / "release/privacy_card.json").read_text())["epsilon"]
    call = ("evaluate", corpus, "--reference", store, "--release-with-noise", run)
    for other in (("--metrics", "kid"), ("--reference-is-public",), ("--test", store)):
        sfumato.run(*call, *other, expect=USAGE)
    said = sfumato.json(*call, "--out", pages, timeout=900)
    privacy = said["reference_privacy"]
    check(privacy["status"] == "released_with_noise", f"{privacy}")
    check([(one["stage"], one["noise_stddev"]) for one in privacy["stages"]]
          == [("accuracy", 5), ("frechet_distance", 2)], f"{privacy}")
    check(abs(privacy["epsilon"] - epsilon) < 1e-9, f"{privacy}, the card {epsilon}")
    released = json.loads((run / "release/accuracy.json").read_text())
    check(said["accuracy"] == released["classifiers"][0]["accuracy"], f"{said['accuracy']}, {released}")
    distance = json.loads((run / "release/frechet_distance.json").read_text())
    check(said["frechet_distance_noisy"] == distance["frechet_distance_noisy"]
          and said["frechet_distance_noise_alone"] == distance["noise_alone"]["mean"], f"{said}, {distance}")
    check("frechet_distance" not in said, "a noisy distance is called as an exact one")
    for name in ("evaluation.html", "evaluation.md", "evaluation.json"):
        check("Released with noise" in (pages / name).read_text(), f"{name} does not say it")
    lines = (run / "ledger.jsonl").read_text()
    for stage in ("accuracy", "frechet_distance"):
        check(lines.count(f'"stage":"{stage}"') == 2, f"not one charge and one result of {stage}")
    check(sfumato.json(*call)["accuracy"] == said["accuracy"], "a second request gave another number")
    check((run / "ledger.jsonl").read_text() == lines, "a second request was charged")
    sfumato.run("ledger", "verify", run)
    card = json.loads((run / "release/privacy_card.json").read_text())
    charged = {stage["name"]: stage["charged"] for stage in card["stages"]}
    check(card["epsilon"] == epsilon and charged["accuracy"] == charged["frechet_distance"] == 1,
          f"{card['epsilon']} and not {epsilon}, or {charged}")
    other = work / "unplanned"
    sfumato.run("train", *smoke_arguments(store, other))
    refused = sfumato.run(*call[:-1], other, expect=PRIVACY).stderr
    check("frozen without an evaluation" in refused, refused)


def import_pictures(sfumato, store: Path, made: Path) -> None:
    """Grey pictures of the store's size, as PNM: readable without a library."""
    layout = json.loads(sfumato.run("inspect", store, "--json").stdout)
    height, width = layout["height"], layout["width"]
    for i in range(8):
        pixels = bytes((31 * i + 5 * at) % 256 for at in range(height * width))
        (made / f"images/0/{i}.pgm").write_bytes(b"P5 %d %d 255\n" % (width, height) + pixels)


def run_check(sfumato, work: Path, _) -> None:
    store = prepare_small_store(sfumato, work)
    images, labels = write_idx(work, 20)
    corpus = write_npz(work / "gen.npz", 400, 10, 16)
    check_private(sfumato, corpus, store, work)
    check_public(sfumato, corpus, images, labels, work)
    check_refusals(sfumato, corpus, store, work)
    check_holdout(sfumato, corpus, images, labels, work)
    check_noisy(sfumato, store, work)


if __name__ == "__main__":
    main(run_check, __doc__)
