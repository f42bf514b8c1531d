#!/usr/bin/env bash
# datasets 5.2.0: imagefolder takes the rows of metadata.csv for the data set, not the pictures.
#
# Expected: a picture that metadata.csv does not name is an error, or a row without a label; two rows of one picture are an
# error; class names are the text in the file.
# Seen: the picture without a row is missing without a word. Two rows of one picture give it twice, with both labels. The
# class names NA and None come out as null: they mean "no value" to the reader of tables.
# shellcheck source=common.sh
source "$(dirname -- "$0")/common.sh"
install datasets==5.2.0 pillow==13.0.0

export HF_HUB_OFFLINE=1 HF_HOME=$folder/home
environment/bin/python -W ignore - <<'PYTHON'
from pathlib import Path

import datasets
from datasets import load_dataset
from PIL import Image

datasets.disable_progress_bars()


def rows(name, table, pictures):
    folder = Path(name)
    folder.mkdir()
    for number in range(1, pictures + 1):
        Image.new("L", (4, 4), 10 * number).save(folder / f"{number}.png")
    (folder / "metadata.csv").write_text("file_name,label\n" + table)
    loaded = load_dataset("imagefolder", data_dir=name, split="train")
    return [(row["image"].getpixel((0, 0)) // 10, row["label"]) for row in loaded]


print(f"datasets {datasets.__version__}")
missing = rows("missing", "1.png,1\n2.png,0\n", 3)
twice = rows("twice", "1.png,1\n1.png,0\n", 2)
names = rows("names", "1.png,NA\n2.png,None\n3.png,cat\n", 3)
print(f"three pictures, rows for two:       {missing}")
print(f"two pictures, two rows for one:     {twice}")
print(f"classes NA, None and cat:           {names}")
same = (missing == [(1, 1), (2, 0)] and sorted(twice) == [(1, 0), (1, 1)] and
        [label for _, label in names] == [None, None, "cat"])
raise SystemExit(0 if same else 1)
PYTHON
