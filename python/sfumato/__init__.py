"""sfumato trains image generators under differential privacy and draws corpora that may be shared.

The command `sfumato` and `python -m sfumato` run the program; here are its results for Python.
"""
import csv
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

__all__ = ["Corpus", "load_corpus", "privacy_card", "share"]
try:
    __version__ = version("sfumato")
except PackageNotFoundError:  # imported from a checkout
    __version__ = "0"

# Holds configs/ and models/public/, which configurations name relative to it.
share = Path(__file__).resolve().parent


class Corpus(NamedTuple):
    """A synthetic corpus in a folder; paths[i] is an image of class labels[i]."""

    paths: list[Path]
    labels: list[int]
    class_names: list[str]  # class_names[label], empty where a class has no image or no name
    card: dict  # what privacy_card() returns


def load_corpus(path) -> Corpus:
    """The images of the corpus in folder `path`, in the order of its metadata.csv.

    FileNotFoundError if there is none, or one that is not finished; ValueError if it is in shards or
    its files do not agree.
    """
    folder = Path(path)
    table = folder / "metadata.csv"
    if not table.is_file():
        if (folder / ".sampling.json").is_file():
            raise FileNotFoundError(f"the corpus in '{folder}' is not finished: run `sfumato sample` again")
        if any(folder.glob("shard-*.tar")):
            raise ValueError(f"the corpus in '{folder}' is in shards, which webdataset and datasets read "
                             f"(see its README.md); sample it with sample.format=folder for paths")
        raise FileNotFoundError(f"no corpus in '{folder}': no metadata.csv")
    paths, labels, names = [], [], {}
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            label = int(row["label"])
            paths.append(folder / row["file_name"])
            labels.append(label)
            if row.get("class_name") and names.setdefault(label, row["class_name"]) != row["class_name"]:
                raise ValueError(f"{table}: class {label} is called '{names[label]}' and '{row['class_name']}'")
    missing = next((image for image in paths if not image.is_file()), None)
    if missing:
        raise ValueError(f"{table} lists {missing}, which is not there")
    class_names = [names.get(label, "") for label in range(max(names, default=-1) + 1)]
    return Corpus(paths, labels, class_names, privacy_card(folder))


def privacy_card(path) -> dict:
    """The privacy card of a run, a release or a corpus (`path` is its folder), or in a file, as a dict.

    FileNotFoundError if there is none: a run has its card when training has ended.
    """
    path = Path(path)
    for file in (path, path / "privacy_card.json", path / "release" / "privacy_card.json"):
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
    raise FileNotFoundError(f"no privacy card in '{path}': name a corpus, a release, or a run whose training "
                            f"has ended")
