#!/usr/bin/env python3
"""sfumato sweep with real training: a plan of four runs by two launchers, status, report and its page in a
browser; a private selection of which the winner alone leaves; tuning on a part of a store; settings as --section.setting=value.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from browser import Browser
from sfumato_cli import PRIVACY, USAGE, check, main, prepare_small_store, smoke_arguments
from sweep_files import check_done, runs_of, write_sweep

STEPS = 6
SELECTION = """\
  purpose: private_selection
  vary: {optimizer.learning_rate: [1.0e-3, 2.0e-3]}
  score: [sh, -c, 'ls {release} >/dev/null && echo 1']
  score_is_public: true
  selection: {mean_runs: 1.5, agree_up_to: 20}
"""


def sweep(sfumato, work: Path, verb: str, file: Path, *arguments, expect: int = 0) -> str:
    """Sweeps lie in the folder from which they are called."""
    done = subprocess.run([str(sfumato.binary), "sweep", verb, str(file), *arguments], cwd=work, text=True,
                          capture_output=True, timeout=600)
    check(done.returncode == expect, f"sweep {verb} {file.name} ended with {done.returncode}, expected {expect}\n"
          f"{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout + done.stderr


def check_tuning(sfumato, store: Path, work: Path) -> None:
    body = ("  purpose: ablation\n  vary: {optimizer.learning_rate: [1.0e-3, 2.0e-3]}\n  repeat: 2\n  samples: 4\n"
            "  score: [sh, -c, 'wc -l <{corpus}/metadata.csv']\n  score_is_public: true\n")
    file = write_sweep(work, store, "grid", body, STEPS)
    planned = json.loads(sweep(sfumato, work, "plan", file, "--json"))
    check(len(planned["runs"]) == 4 and planned["epsilon"] > planned["runs"][0]["epsilon"], f"planned {planned}")
    two = [subprocess.Popen([sfumato.binary, "sweep", "run", file, "--jobs", "2"], cwd=work,
                            stdout=subprocess.DEVNULL) for _ in range(2)]
    check([each.wait(600) for each in two] == [0, 0], "a launcher failed")
    runs = runs_of(work, "grid")
    check_done(runs, 4, STEPS)
    for run in runs:
        sfumato.run("ledger", "verify", run)
        sfumato.run("ledger", "show", run)
        for place in ("release", "corpus"):
            said = json.loads((run / place / "privacy_card.json").read_text()).get("sweep")
            check(said is not None and said["runs"] == 4 and abs(said["epsilon"] - planned["epsilon"]) < 1e-6,
                  f"the card in {run / place} says {said} of its sweep, planned {planned['epsilon']}")
    card = runs[0] / "release/privacy_card.json"
    text = card.read_text()
    card.write_text(text.replace('"runs": 4', '"runs": 3'))
    sfumato.run("ledger", "verify", runs[0], expect=PRIVACY)
    card.write_text(text)
    check(sweep(sfumato, work, "status", file).rstrip().endswith("4 done, 0 running, 0 failed, 0 open"), "status")
    together = sfumato.json("ledger", "show", store)
    check(abs(together["together"]["epsilon"] - planned["epsilon"]) < 1e-3 * planned["epsilon"],
          f"the store counts {together['together']}, planned {planned['epsilon']}")
    sweep(sfumato, work, "report", file)
    check_page(work / "sweeps/grid/report/report.html", work)


def check_page(page: Path, work: Path) -> None:
    text = page.read_text()
    check(text.count("<figure><img") == 4 and "Learning curves" not in text, "what the page shows")
    browser = Browser.found(work)
    if not browser:
        return
    # A click on the heading of the settings must turn the rows: the page's own script did it.
    clicked = work / "clicked.html"
    clicked.write_text(re.sub(r"; script-src '[^']*'", "; script-src 'unsafe-inline'", text).replace(
        "</body>", "<script>const h=document.querySelectorAll('table.runs th');h[2].click();h[2].click();</script>"
        "</body>"))
    rows = re.findall(r"<tr><td>(\d+)-", browser.document(clicked))
    check(len(rows) == 4 and set(rows[:2]) == {"002", "003"}, f"rows after two clicks: {rows}")
    # Under its own policy the page's script, and no other, is let in.
    for policy, refused in ((text, False), (text.replace("'sha256-", "'sha256-A"), True)):
        clicked.write_text(policy)
        said = browser.complaints(clicked)
        check(("Content Security Policy" in said) == refused, f"the page's policy: {said[-500:]}")
    picture = work / "page.png"
    browser.picture(page, picture)
    check(picture.stat().st_size > 10_000, "the page is empty in the browser")


def check_selection(sfumato, store: Path, work: Path) -> None:
    file = write_sweep(work, store, "chosen", SELECTION.replace("20", "1"), STEPS)
    check("never cut" in sweep(sfumato, work, "plan", file, expect=USAGE), "the law is not shown")
    file = write_sweep(work, store, "chosen", SELECTION, STEPS)
    check("99 % at most" in sweep(sfumato, work, "plan", file), "the law is not shown")
    said = sweep(sfumato, work, "run", file)
    check("the best run is released" in said and not re.search(r"\d{3}-[0-9a-f]{8}", said), f"said {said}")
    card = json.loads((work / "sweeps/chosen/release/privacy_card.json").read_text())
    check(card["status"] == "private", f"the winner's card: {card['status']}")
    runs = runs_of(work, "chosen", "private/runs")
    winners = [run for run in runs if (run / "private/selection.json").exists()]
    check(len(winners) == 1, f"{len(winners)} winners of {len(runs)}")
    sfumato.run("ledger", "verify", winners[0])
    for run in runs:
        if run != winners[0]:
            check(not (run / "release/privacy_card.json").exists(), f"{run} released")
            sfumato.run("sample", run, "--out", work / "leak", "--count", "1", expect=PRIVACY)
            sfumato.run("sample", run / "private/candidate", "--out", work / "leak", "--count", "1", expect=PRIVACY)
            sfumato.run("release", run, "--step", str(STEPS), "--out", work / "leak", expect=PRIVACY)
            sfumato.run("probe", run / "private/candidate", "--inputs", run / "ledger.jsonl", "--out", work / "leak",
                        expect=PRIVACY)
            check(not list((run / "private").glob("previews/*")), f"{run} drew previews")
    # Neither how many runs there were nor which, but what they cost: beside the one run of check_sweep.
    used = sfumato.json("ledger", "show", store)
    check(len(used["runs"]) == 1 and [each["kind"] for each in used["sweeps"]] == ["private selection"],
          f"the store lists {used}")
    shown = sfumato.run("ledger", "show", store).stdout
    check("1 private run and 1 sweep" in shown and "private selection" in shown and
          not any(run.name in shown for run in runs), f"the store says {shown}")
    check(used["together"]["epsilon"] >= used["sweeps"][0]["epsilon"], f"together {used['together']}")
    sweep(sfumato, work, "report", file, expect=PRIVACY)
    check("nothing else of a private selection" in sweep(sfumato, work, "status", file) or
          "over" in sweep(sfumato, work, "status", file), "status of a selection")


def epsilon_of_store(sfumato, store: Path) -> float:
    together = sfumato.json("ledger", "show", store)["together"]
    check(together is not None, f"{store} has no sum")
    return together["epsilon"]


def check_split(sfumato, store: Path, work: Path) -> None:
    """Tuning on one part of a store and the final runs on the other: a record pays the larger of both."""
    file = write_sweep(work, store, "split", "  purpose: disjoint_split\n  tuning_share: 0.5\n"
                       "  vary: {optimizer.learning_rate: [1.0e-3, 2.0e-3]}\n", STEPS)
    planned = json.loads(sweep(sfumato, work, "plan", file, "--json"))
    said = sweep(sfumato, work, "plan", file)
    final_part = Path(f"{store}-final-0.5")
    check(f"train the final run on '{final_part}' alone" in said, f"the plan says {said}")
    command = re.search(r"for one run: (sfumato plan --config \S+)", said)
    check(command is not None and "all runs: 2 such times" in said, f"no time, and no way to it: {said}")
    sfumato.run(*command[1].split()[1:], "--no-measure")
    sweep(sfumato, work, "run", file)
    runs = runs_of(work, "split")
    check_done(runs, 2, STEPS)
    for run in runs:
        sfumato.run("ledger", "verify", run)
        check(f"{store}-tuning-0.5" in (run / "config.yaml").read_text(), f"{run} is not of the tuning part")
    tuning = epsilon_of_store(sfumato, store)
    check(abs(tuning - planned["epsilon"]) < 1e-3 * tuning, f"the store counts {tuning}, planned {planned}")
    # Less than the sweep, then more: the whole store shows the larger, never the sum.
    for target, is_larger in ((5, False), (20, True)):
        run = work / f"final-{target}"
        sfumato.run("train", *smoke_arguments(final_part, run, f"mechanism.steps={STEPS}",
                                              f"mechanism.target_epsilon={target}"))
        sfumato.run("ledger", "verify", run)
        final, whole = epsilon_of_store(sfumato, final_part), epsilon_of_store(sfumato, store)
        check((final > tuning) == is_larger and abs(whole - max(tuning, final)) < 1e-3 * whole,
              f"tuning {tuning}, final part {final}, whole {whole}")
    listed = sfumato.json("ledger", "show", store)
    check(len(listed["runs"]) == 2 and [each["kind"] for each in listed["sweeps"]] == ["tuning on a part"],
          f"the store lists {listed}")


def check_sweep(sfumato, work: Path, _):
    store = prepare_small_store(sfumato, work)
    sfumato.run("train", *smoke_arguments(store, work / "agent"), "--mechanism.steps=2", "--run.seed=3")
    misspelt = sfumato.run("train", *smoke_arguments(store, work / "other"), "--mechanism.step=2", expect=USAGE)
    check("did you mean 'steps'?" in misspelt.stderr, f"said {misspelt.stderr}")
    check_selection(sfumato, store, work)
    own = work / "own"
    own.mkdir()
    check_tuning(sfumato, prepare_small_store(sfumato, own), work)
    split = work / "parts"
    split.mkdir()
    check_split(sfumato, prepare_small_store(sfumato, split, "data.deduplicate=false"), work)


if __name__ == "__main__":
    main(check_sweep, __doc__.splitlines()[0])
