#!/usr/bin/env python3
"""The classifier that judges a corpus is sound: trained on 640 real images it is well above 70 %,
and on the same images with shuffled labels it is near chance."""
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import check, main

import classifier_accuracy as classifier  # ends with "skipped" where torch is missing

PER_CLASS, STEPS = 64, 250


def write_corpus(folder: Path, shuffled: bool) -> None:
    images = classifier.read_idx(classifier.FASHION / "train-images-idx3-ubyte.gz")
    labels = classifier.read_idx(classifier.FASHION / "train-labels-idx1-ubyte.gz").tolist()
    of_class = [[i for i, label in enumerate(labels) if label == c] for c in range(10)]
    chosen = [i for members in of_class for i in members[:PER_CLASS]]
    names = [labels[i] for i in chosen]
    if shuffled:
        random.Random(1).shuffle(names)
    for i, name in zip(chosen, names):
        path = folder / "images" / str(name)
        path.mkdir(parents=True, exist_ok=True)
        classifier.Image.fromarray(images[i]).save(path / f"{i:06d}.png")


def accuracy(folder: Path) -> float:
    images, labels = (classifier.FASHION / f"t10k-{part}-ubyte.gz"
                      for part in ("images-idx3", "labels-idx1"))
    return classifier.measure(folder, images, labels, STEPS, 0)["accuracy"]


def check_classifier(_, work: Path, __):
    if not classifier.FASHION.exists():
        return f"no Fashion-MNIST in {classifier.FASHION}"
    classifier.torch.set_num_threads(2)
    for shuffled, low, high in ((False, 0.72, 0.9), (True, 0.0, 0.3)):
        folder = work / f"shuffled_{shuffled}"
        write_corpus(folder, shuffled)
        got = accuracy(folder)
        check(low <= got <= high,
              f"accuracy {got:.3f} with shuffled={shuffled}, expected {low} to {high}")


if __name__ == "__main__":
    main(check_classifier, __doc__.splitlines()[0])
