#!/usr/bin/env python3
"""First days: init asks for what becomes public, plan says what train will do, and the commands of
docs/first-day-*.md run as they stand, but for steps and stores that would take long; a users' file, right
and wrong, and patients that are held out."""
import json
import random
import re
import shlex
import struct
import subprocess
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import DATA, PRIVACY, ROOT, USAGE, check, main, prepare_small_store, write_idx

PAGES = ("data-scientist", "researcher", "cloud-engineer")


def write_png(path: Path, size: int, rng: random.Random) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + rng.randbytes(size) for _ in range(size))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def make_scans(work: Path, count: int = 60) -> None:
    (work / "scans").mkdir()
    rng = random.Random(1)
    for i in range(count):
        write_png(work / f"scans/{i:03}.png", 40, rng)
    lines = ["file,user", *(f"{i:03}.png,patient{i // 3}" for i in range(count))]
    (work / "users.csv").write_text("\n".join(lines) + "\n")


def check_init(sfumato, work: Path) -> None:
    (work / "empty").mkdir()
    said = sfumato.run("init", work / "empty", "--out", work / "e.yaml", expect=DATA,
                       stdin=subprocess.DEVNULL).stderr
    check("no images in" in said, said)
    said = sfumato.run("init", work / "scans", "--out", work / "s.yaml", expect=USAGE,
                       stdin=subprocess.DEVNULL).stderr
    for flag in ("--image-size 32", "--channels 1", "--no-classes", "--records 60", "--one-image"):
        check(flag in said, f"{flag} is not asked for:\n{said}")
    check(not (work / "s.yaml").exists(), "written without a word of anybody")
    said = sfumato.run("init", work / "scans", "--out", work / "s.yaml", "--image-size", 32,
                       "--channels", 1, "--no-classes", "--one-image", expect=USAGE,
                       stdin=subprocess.DEVNULL).stderr
    check("--records 60" in said and "--channels" not in said, said)


def check_one_plan(sfumato, config: Path) -> None:
    """plan, doctor and train make the same plan, of users and not of images."""
    plan = sfumato.json("plan", "--config", config, "--no-measure")
    doctor = sfumato.json("doctor", "--config", config)["network"]["plan"]
    check(plan["plan"] == doctor, f"plan says {plan['plan']}\ndoctor says {doctor}")
    check(plan["plan"]["records_per_unit"] == 4, f"for {plan['plan']['unit']}")
    run = config.parent / "runs/scans"
    frozen = json.loads((run / "ledger.jsonl").read_text().split("\n")[0])["plan"]
    same = sfumato.json("plan", "--config", config, "--no-measure", "mechanism.steps=2")["plan"]
    check(frozen == same, f"the run froze {frozen}\nplan says {same}")
    said = sfumato.run("plan", "--config", config, "--no-measure")
    check("the pictures will be noise" in said.stderr, said.stderr)
    check(plan["planned_s"] < 30, f"planned for {plan['planned_s']} s")
    said = sfumato.run("plan", "--config", config, "--no-measure", "mechanism.declared=gaussian:1:0.1",
                       expect=PRIVACY).stderr
    check("this plan cannot be met" in said and "mechanism.target_epsilon" in said, said)


def commands_of(page: str) -> list[str]:
    text = (ROOT / f"docs/first-day-{page}.md").read_text().replace("\\\n", " ")
    return re.findall(r"^    sfumato (.*)$", text, re.M)


def run_page(sfumato, work: Path, page: str, store: Path) -> None:
    for command in commands_of(page):
        words = shlex.split(command)
        # Without answers or a terminal init refuses; and a run of 500 steps is none for a test.
        expect = USAGE if words[0] == "init" and "--image-size" not in words else 0
        if words[0] == "train":
            words += ["mechanism.steps=2", "performance.threads=1"]
        if words[0] == "prepare" and "configs/smoke.yaml" in words:  # Debian's images are not everywhere
            (work / "idx").mkdir(exist_ok=True)
            images, labels = write_idx(work / "idx", 6)
            words += [f"data.source={images}", f"data.labels={labels}", f"data.store={work}/stores/prepared"]
        if words[0] == "train" and "configs/smoke.yaml" in words:
            words += [f"data.store={store}", "mechanism.sample_rate=0.08"]
        if words[0] == "sample":
            words = [*words[:words.index("--count")], "--count", "4", "sample.steps=1"]
        done = subprocess.run([sfumato.binary, *words], cwd=work, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=300)
        check(done.returncode == expect, f"{page}: `sfumato {' '.join(words)}` ended with "
              f"{done.returncode}, expected {expect}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")


def check_people(sfumato, work: Path) -> None:
    """Some patients are held out, and what is compared with images that training never saw takes theirs;
    one command trains; a checkpoint is drawn from; runs lie side by side."""
    def run(*words, expect: int = 0) -> str:
        done = subprocess.run([sfumato.binary, *map(str, words)], cwd=work, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=300)
        check(done.returncode == expect, f"`sfumato {' '.join(map(str, words))}` ended with {done.returncode}, "
              f"expected {expect}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
        return done.stdout + done.stderr
    run("init", "scans", "--out", "people.yaml", "--image-size", 32, "--channels", 1, "--no-classes",
        "--records", 60, "--users", "users.csv", "--records-per-user", 3)
    config = ("--config", "people.yaml", "data.store=stores/people", "run.dir=runs/people", "performance.threads=1",
              "mechanism.steps=2")
    lines = [line.split(",") for line in (work / "users.csv").read_text().split()]
    for name, text, remedy in (
            ("swapped", [f"{user},{file}" for file, user in lines[1:]], "name them 'user,file' in the first line"),
            ("semicolons", [";".join(line) for line in lines], "save it as CSV with commas"),
            ("far", [f"all/scans/{file},{user}" for file, user in lines[1:]], "write '000.png' here"),
            ("empty", [], "write 'file,user' in the first line")):
        (work / f"{name}.csv").write_text("".join(line + "\n" for line in text))
        said = run("prepare", *config, f"data.users={name}.csv", expect=DATA)
        check(remedy in said and f"{name}.csv:" in said, f"{name}: {said}")
    (work / "capital.csv").write_text("\n".join(["File,USER", *(",".join(line) for line in lines[1:])]))
    run("prepare", *config, "data.users=capital.csv", "data.holdout=0.5")
    said = run("inspect", "stores/people-holdout")
    held = int(re.search(r"records +(\d+) of", said)[1])
    check(20 <= held <= 40 and held % 3 == 0 and f"held_out (here)  {held}" in said, f"{held} held out:\n{said}")
    run("train", *config, "data.image_size=16", "run.dir=runs/refused", expect=DATA)
    check(not (work / "runs/refused").exists(), "a refused start left a folder")
    said = run("train", *config, "data.store=nothing", expect=DATA)
    check(f"`sfumato prepare {' '.join(config)} data.store=nothing`" in said, said)
    run("plan", *config, "--no-measure")
    trained = run("train", *config, "--resume=auto", "run.checkpoint_every=1", "run.keep_last=9")
    check("nothing left" in run("train", *config, "--resume=auto"), "a finished run goes on")
    run("sample", "runs/people@1", "--out", "corpus/at1", "--count", 4, "sample.steps=1")
    card = json.loads((work / "corpus/at1/privacy_card.json").read_text())
    check(card["checkpoint_step"] == 1, f"the corpus is of {card.get('checkpoint_step')}")
    epsilon = re.search(r"ε = ([0-9.]+)", card["statement"])[1]
    check(f"({epsilon}, " in trained, f"the card says {epsilon}, and train: {trained[-300:]}")
    said = run("audit", "membership", "runs/people", "--members", "stores/people", "--scores", "loss",
               "--draws", 1, "--count", 20)
    check("non-members: 'stores/people-holdout'" in said, said)
    said = run("audit", "replication", "corpus/at1", "--store", "stores/people", "--features", "pixels")
    check("null: 'stores/people-holdout'" in said and "near duplicates" not in said, said)
    said = run("audit", "replication", "corpus/at1", "--store", "stores/people", "--features", "pixels",
               "--holdout", "none", "--out", "other")
    check("stores/people-holdout" not in said and "near duplicates" in said, said)
    run("compare", "runs/people", "runs/scans")


def check_words(sfumato, work: Path) -> None:
    said = sfumato.run("train", "--config", "configs/smoke.yaml", "--recieve", expect=USAGE).stderr
    check("error: not understood: --recieve; see sfumato train --help" in said, said)
    check("  optimizer.learning_rate=" not in sfumato.run("sample", "--help").stdout, "not read")
    check("  optimizer.learning_rate=" in sfumato.run("sample", "--help-all").stdout, "all")
    release = work / "runs/scans/release"
    said = sfumato.run("ledger", "verify", release, expect=USAGE).stderr
    check(str(work / "runs/scans") + "`" in said, said)
    check("The claim holds." in sfumato.run("account", "--card", work / "runs/scans").stdout, "card")
    text = sfumato.run("inspect", work / "stores/scans").stdout
    check("{" not in text and '"' not in text, text)
    said = sfumato.run("doctor", "optimizer.lr=fast", expect=USAGE,
                       env={"LOCAL_RANK": "1", "PATH": "/usr/bin"}).stderr
    check(said == "", f"the second process repeats: {said}")


def run_check(sfumato, work: Path, arguments) -> None:
    make_scans(work)
    for name in ("configs", "models"):
        (work / name).symlink_to(ROOT / name)
    store = prepare_small_store(sfumato, work)
    check_init(sfumato, work)
    for page in PAGES:
        run_page(sfumato, work, page, store)
    check_one_plan(sfumato, work / "scans.yaml")
    check_people(sfumato, work)
    check_words(sfumato, work)


if __name__ == "__main__":
    main(run_check, __doc__)
