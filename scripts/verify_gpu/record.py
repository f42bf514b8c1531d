"""`scripts/record-gpu`: results of two calls into the documents, between their markers."""
import argparse
import sys
from pathlib import Path

import documents
from results import Refused, read_results
from runner import write_atomically

ROOT = Path(__file__).resolve().parents[2]
PAGE, README = "kernels/MEASURED.md", "README.md"
MEASURED, DRY_RUN = "gpu", "gpu dry run"


def replaced(page: str, text: str, name: str, section: str) -> str:
    """`text` with the section between the markers of `name` in place of what is there."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise Refused(f"{page} must hold the lines '{begin}' and '{end}' once, in this order: "
                      "put them back")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{section}\n{end}{rest.partition(end)[2]}"


def new_texts(results: dict, earlier: dict[str, str]) -> dict[str, str]:
    """Of the documents that a recording changes."""
    if not results["speed"]["dry_run"]:
        return {PAGE: replaced(PAGE, earlier[PAGE], MEASURED, documents.measured_section(results)),
                README: replaced(README, earlier[README], MEASURED, documents.readme_section(results))}
    red = [f"{call.path}: step {step['step']} {step['status']}"
           for call in results.values() for step in call.not_ok()]
    if red:
        raise Refused(f"a dry run is recorded where all is green; {'; '.join(red)}")
    return {PAGE: replaced(PAGE, earlier[PAGE], DRY_RUN, documents.dry_run_section(results))}


def refuse(reason) -> int:
    print(f"[record-gpu] error: {reason}", file=sys.stderr)
    return 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="record-gpu", usage="see scripts/record-gpu --help")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--documents", type=Path, default=ROOT)
    arguments = parser.parse_args()
    if len(arguments.folders) > 2:
        parser.error("at most two folders, one for each call")
    try:
        results = read_results(arguments.folders)
        earlier = {name: (arguments.documents / name).read_text() for name in (PAGE, README)}
        new = new_texts(results, earlier)
    except (Refused, OSError) as reason:
        return refuse(reason)
    except (KeyError, IndexError, TypeError, ValueError) as reason:
        return refuse(f"the results lack something ({type(reason).__name__}: {reason}): record with the "
                      "scripts of the commit that measured")
    for name, text in new.items():
        path = arguments.documents / name
        if text != earlier[name]:
            write_atomically(path, text)
        print(f"[record-gpu] {'recorded in' if text != earlier[name] else 'as it was:'} {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
