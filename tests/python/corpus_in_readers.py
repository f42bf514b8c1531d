#!/usr/bin/env python3
"""Class names and numbers go through store, run, card and corpus, and every reader finds them again.

The readers of a corpus are torchvision's ImageFolder, Hugging Face `datasets`, webdataset and our own
`prepare`. A picture is recognised by its pixels, so that order does not matter; what each reader calls
its label must be what was asked of the network.
"""
import csv
import json
import os
import shutil
import sys
import tarfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import USAGE, DATA, check, main, smoke_arguments, write_idx

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1",
                  HF_DATASETS_DISABLE_PROGRESS_BARS="1")
try:
    import datasets
    import numpy
    import pandas
    import torch
    import webdataset
    from diffusers import DDPMScheduler, UNet2DModel
    from PIL import Image
    from torchvision.datasets import ImageFolder
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
warnings.filterwarnings("ignore")

# Text order, number order and label order differ; three would be splits to `datasets`.
NAMES = ["zebra", "10", "train", "Test set", "validation-2", "9", "ant", "a,b", "caf\u00e9", "2",
         "T-shirt/top", "dev"]
SIZE = 8
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ico", ".pdf")


def pixels(image) -> bytes:
    return numpy.asarray(image.convert("L")).tobytes()


def make_network(folder: Path) -> None:
    torch.manual_seed(1)
    network = UNet2DModel(sample_size=SIZE, in_channels=1, out_channels=1, layers_per_block=1,
                          block_out_channels=(8, 8), down_block_types=("DownBlock2D",) * 2,
                          up_block_types=("UpBlock2D",) * 2, norm_num_groups=4,
                          num_class_embeds=len(NAMES))
    network.save_pretrained(folder / "unet")
    DDPMScheduler().save_pretrained(folder / "scheduler")


def sample(sfumato, model: Path, out: Path, counts: list[int], *overrides: str) -> None:
    names = json.dumps(NAMES, ensure_ascii=False)
    sfumato.run("sample", model, "--out", out, "--per-class", ",".join(map(str, counts)),
                "sample.steps=2", f"data.class_names={names}", *overrides)


def labels_in_metadata(corpus: Path) -> dict[bytes, int]:
    found = {}
    with (corpus / "metadata.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            label = int(row["label"])
            check(row["class_name"] == NAMES[label], f"{row} has another name than class {label}")
            found[pixels(Image.open(corpus / row["file_name"]))] = label
    return found


def compare(reader: str, found, expected: dict[bytes, int]) -> None:
    found = list(found)
    check(len(found) == len(expected), f"{reader}: {len(found)} images, not {len(expected)}")
    wrong = [(label, expected.get(image)) for image, label in found
             if expected.get(image) != label]
    check(not wrong, f"{reader}: (its label, the corpus's) {wrong}")


def read_torchvision(corpus: Path, some_empty: bool):
    images = ImageFolder(corpus / "images", allow_empty=some_empty)
    return [(pixels(image), label) for image, label in images]


def read_datasets(cache: Path, *arguments, column: str = "image", label=lambda row: row["label"],
                  **options):
    splits = datasets.load_dataset(*map(str, arguments), cache_dir=str(cache), **options)
    check(list(splits) == ["train"], f"datasets sees the splits {list(splits)}")
    return [(pixels(row[column]), label(row)) for row in splits["train"]]


def read_store(store: Path) -> list[tuple[bytes, int]]:
    """Records and labels as the format of a record store says, without the program."""
    manifest = json.loads((store / "manifest.json").read_text())
    check(manifest["class_names"] == NAMES, f"the store's names are {manifest['class_names']}")
    records = (store / "records.bin").read_bytes()[4096:]
    labels = numpy.frombuffer((store / "labels.bin").read_bytes(), "<i4").tolist()
    size = SIZE * SIZE
    return [(records[i * size:(i + 1) * size], label) for i, label in enumerate(labels)]


def prepare_again(sfumato, source: Path, store: Path) -> list[tuple[bytes, int]]:
    shutil.rmtree(store, ignore_errors=True)
    sfumato.run("prepare", f"data.source={source}", f"data.store={store}",
                f"data.image_size={SIZE}", "data.channels=1", f"data.num_classes={len(NAMES)}")
    return read_store(store)


def check_image_folder(sfumato, model: Path, work: Path, counts: list[int]) -> dict[bytes, int]:
    corpus = work / "corpus"
    shutil.rmtree(corpus, ignore_errors=True)
    sample(sfumato, model, corpus, counts)
    expected = labels_in_metadata(corpus)
    check(len(expected) == sum(counts), "images of the corpus are equal")
    some_empty = 0 in counts
    compare("ImageFolder", read_torchvision(corpus, some_empty), expected)
    for source in (corpus, corpus / "images"):
        compare(f"prepare {source.name}", prepare_again(sfumato, source, work / "again"), expected)
    cache = work / "cache" / str(sum(counts))
    compare("load_dataset(corpus)", read_datasets(cache / "a", corpus), expected)
    compare("data_dir", read_datasets(cache / "b", "imagefolder", data_dir=str(corpus)), expected)
    if not some_empty:  # it has nothing but folders with images to count
        compare("data_dir of images/", read_datasets(cache / "c", "imagefolder",
                                                     data_dir=str(corpus / "images")), expected)
    # Up to 3.2, datasets wants metadata for every picture that it finds outside __folders.
    stray = [path for path in corpus.rglob("*") if path.suffix.lower() in SUFFIXES
             and not any(part.startswith("__") for part in path.relative_to(corpus).parts)
             and corpus / "images" not in path.parents]
    check(not stray, f"pictures that datasets takes for data: {stray}")
    return expected


def check_shards(sfumato, model: Path, work: Path, counts: list[int], expected) -> None:
    corpus = work / "shards"
    shutil.rmtree(corpus, ignore_errors=True)
    sample(sfumato, model, corpus, counts, "sample.format=webdataset")
    shard = corpus / "shard-000000.tar"
    read = [(pixels(image), label, about) for image, label, about in
            webdataset.WebDataset(str(shard), shardshuffle=False).decode("pil").to_tuple(
                "png", "cls", "json")]
    compare("webdataset", [(image, label) for image, label, _ in read], expected)
    for _, label, about in read:
        check(about == {"label": label, "class_name": NAMES[label]}, f"{about} for {label}")
    keys = [name for name in tarfile.open(shard).getnames() if name.endswith(".cls")]
    check(keys == sorted(keys, key=lambda name: (name.split("-")[1], int(name.split("-")[0]))),
          "members do not sort as labels do")
    compare("load_dataset(shards)", read_datasets(work / "cache" / f"s{sum(counts)}", corpus,
                                                  column="png", label=lambda row: row["cls"]),
            expected)
    for source in (corpus, shard):
        compare(f"prepare {source.name}", prepare_again(sfumato, source, work / "again"), expected)


def check_names_through_a_run(sfumato, work: Path) -> None:
    """From a literal list to the corpus; a class that may be empty is drawn only if asked for."""
    images, labels = write_idx(work, 4)
    names = [f"bar {c}" for c in range(10)] + ["none"]
    (work / "names.txt").write_text("\n".join(names) + "\n")
    store, run, corpus = work / "store", work / "run", work / "drawn"
    classes = [f"data.class_names_file={work / 'names.txt'}", "data.num_classes=11"]
    arguments = ["prepare", "--config", "configs/smoke.yaml", f"data.source={images}",
                 f"data.labels={labels}", f"data.store={store}", *classes]
    said = sfumato.run(*arguments, expect=DATA).stderr
    check("no image for class 'none'" in said, f"an empty class is not named: {said}")
    sfumato.run(*arguments, "data.allow_empty_classes=none")
    sfumato.run("train", *smoke_arguments(store, run, "mechanism.steps=2", "data.num_classes=11"))
    check("bar 3" in (run / "config.yaml").read_text(), "the run's configuration has no names")
    card = json.loads((run / "release/privacy_card.json").read_text())
    check(card["public_facts"]["class_names"] == names, f"on the card: {card['public_facts']}")
    check(card["public_facts"]["class_names_from"] == "configuration", "the card's provenance")
    said = sfumato.run("sample", run, "--out", corpus, "--count", "12", "sample.steps=2").stderr
    check("left out" in said and "'none'" in said, f"nothing is said of the empty class: {said}")
    drawn = json.loads((corpus / "lineage.json").read_text())["classes"]
    check([entry["name"] for entry in drawn] == names and drawn[10]["images"] == 0, f"{drawn}")
    said = sfumato.run("sample", run, "--out", work / "asked", "--count", "1", "--class", "10",
                       "sample.steps=2").stderr
    check("seen no image" in said, f"an untrained class is drawn without a word: {said}")
    check("Perhaps never trained" in (work / "asked/README.md").read_text(), "README.md is silent")


def check_accepted_names(sfumato, work: Path) -> None:
    source, store, run = work / "private", work / "found", work / "accepted"
    for c in range(10):
        (source / str(c)).mkdir(parents=True)
        Image.new("L", (16, 16), 20 * c).save(source / str(c) / "a.png")
    arguments = ["prepare", "--config", "configs/smoke.yaml", f"data.source={source}",
                 f"data.store={store}", "data.labels="]
    said = sfumato.run(*arguments, expect=USAGE).stderr
    check('class_names: ["0", "1", "2"' in said and "only the private data knows" in said, said)
    sfumato.run(*arguments, "--accept-class-names")
    sfumato.run("train", *smoke_arguments(store, run, "mechanism.steps=1"))
    for name in ("privacy_card.md", "report.html"):
        check("accepted as public" in (run / "release" / name).read_text(), f"{name} is silent")
    os.mkdir(os.fsencode(source) + b"/caf\xe9")
    (source / "9/a.png").rename(os.fsdecode(os.fsencode(source) + b"/caf\xe9/a.png"))
    said = sfumato.run(*arguments, f"data.store={work}/x", "--accept-class-names", expect=DATA).stderr
    check("caf\\xe9" in said, f"a name that is no text is not named: {said}")


def check_names_read_as_missing(sfumato, model: Path, work: Path) -> None:
    """pandas and `datasets` lose the class names NA, None, ... of metadata.csv; we say so."""
    lost = ["NA", "None", "null", "nan", "N/A"]
    names = lost + ["cat"] + [f"class {i}" for i in range(len(NAMES) - len(lost) - 1)]
    corpus, store = work / "missing", work / "missing-store"
    said = sfumato.run("sample", model, "--out", corpus, "--per-class",
                       ",".join("1" * len(names)), "sample.steps=2",
                       f"data.class_names={json.dumps(names)}").stderr
    readme = (corpus / "README.md").read_text()
    for name in lost:
        check(f"'{name}'" in said and name in readme, f"nothing is said of {name}: {said}")
    check("'cat'" not in said and "keep_default_na=False" in readme, f"{said}")
    table = pandas.read_csv(corpus / "metadata.csv")
    check(table["class_name"].isna().sum() == len(lost), f"pandas reads {table['class_name']}")
    table = pandas.read_csv(corpus / "metadata.csv", keep_default_na=False,
                            dtype={"class_name": str})
    check([names[label] for label in table["label"]] == list(table["class_name"]),
          "README.md's way to read the names does not give them")
    splits = datasets.load_dataset(str(corpus), cache_dir=str(work / "cache/missing"))
    for row in splits["train"]:
        check(row["class_name"] in (None, names[row["label"]]), f"datasets: {row}")
    for format_, column in (("auto", "label"), ("folder", "class_name")):
        shutil.rmtree(store, ignore_errors=True)
        sfumato.run("prepare", f"data.source={corpus}", f"data.store={store}",
                    f"data.image_size={SIZE}", "data.channels=1",
                    f"data.num_classes={len(names)}", f"data.format={format_}",
                    f"data.label_column={column}")
        manifest = json.loads((store / "manifest.json").read_text())
        check(manifest["class_names"] == names, f"{manifest['class_names']}")


def check_patterns_of_shards(sfumato, work: Path, expected) -> None:
    """Some shards of a corpus, and one that has lost its lineage, keep their classes."""
    shards = work / "shards"
    for pattern in ("shard-*.tar", "shard-{000000..000000}.tar"):
        compare(f"prepare {pattern}", prepare_again(sfumato, shards / pattern, work / "again"),
                expected)
    alone = work / "alone"
    alone.mkdir(exist_ok=True)
    shutil.copy(shards / "shard-000000.tar", alone)
    names = f"data.class_names={json.dumps(NAMES, ensure_ascii=False)}"
    store = work / "again"
    for column, status in (("label", DATA), ("class_name", 0)):
        shutil.rmtree(store, ignore_errors=True)
        said = sfumato.run("prepare", f"data.source={alone / 'shard-000000.tar'}",
                           f"data.store={store}", f"data.image_size={SIZE}", "data.channels=1",
                           f"data.num_classes={len(NAMES)}", names,
                           f"data.label_column={column}", expect=status).stderr
        # The names hold numbers at other places, so that a number is a name and not a place.
        check(status == 0 or "data.label_column=class_name" in said, f"{said}")
    compare("prepare a lone shard by class_name", read_store(store), expected)


def check_readers(sfumato, work: Path, arguments):
    model = work / "model"
    make_network(model)
    for counts in ([2] * len(NAMES), [1, 0, 2, 1, 0, 0, 1, 1, 1, 0, 3, 0]):
        expected = check_image_folder(sfumato, model, work, counts)
        check_shards(sfumato, model, work, counts, expected)
        check_patterns_of_shards(sfumato, work, expected)
    check_names_read_as_missing(sfumato, model, work)
    check_names_through_a_run(sfumato, work)
    check_accepted_names(sfumato, work)


if __name__ == "__main__":
    main(check_readers, __doc__.splitlines()[0])
