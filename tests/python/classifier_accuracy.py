#!/usr/bin/env python3
"""Accuracy on real test images of a small classifier that is trained on a synthetic corpus only.

    .venv-tests/bin/python tests/python/classifier_accuracy.py corpus/quickstart

The corpus is an image folder (images/<class>/*.png); the test set is a pair of IDX files, by
default Fashion-MNIST's. Everything is fixed beforehand: network, augmentation, number of steps and
seed; the test set is looked at once, at the end, and chooses nothing. One minute on two cores.
"""
import argparse
import gzip
import json
import sys
import time
from pathlib import Path

try:
    import numpy
    import torch
    from PIL import Image
    from torch import nn
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

FASHION = Path("/usr/share/datasets/fashion-mnist")
BATCH = 128


def read_corpus(folder: Path) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Images [N, 1, H, W] in [-1, 1], labels [N], number of classes. Class folders are named by
    their number, or their order is that of their names."""
    names = sorted(path.name for path in (folder / "images").iterdir() if path.is_dir())
    if not names:
        sys.exit(f"no class folders in {folder / 'images'}")
    number = {name: int(name) if all(n.isdigit() for n in names) else i
              for i, name in enumerate(names)}
    images, labels = [], []
    for name in names:
        for path in sorted((folder / "images" / name).glob("*.png")):
            images.append(numpy.asarray(Image.open(path).convert("L")))
            labels.append(number[name])
    return to_unit(numpy.stack(images)), torch.tensor(labels), max(number.values()) + 1


def read_idx(path: Path) -> numpy.ndarray:
    data = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
    shape = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(data[3])]
    return numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * data[3]).reshape(shape)


def to_unit(images: numpy.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.astype(numpy.float32)).unsqueeze(1) / 127.5 - 1


def deviation_within_classes(images: torch.Tensor, labels: torch.Tensor) -> float:
    """Of pixels in [-1, 1] around the mean image of their class: root mean square in each class, mean
    over classes. Near 0, a class has become one image."""
    parts = [images[labels == label] for label in labels.unique()]
    return torch.stack([(part - part.mean(0)).square().mean().sqrt() for part in parts]).mean().item()


def make_classifier(classes: int) -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.ReLU(),
                nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 32), *block(32, 64), *block(64, 64), nn.Flatten(),
                         nn.Dropout(0.3), nn.LazyLinear(128), nn.ReLU(), nn.Linear(128, classes))


def augment(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Shifts every image by up to two pixels and changes its contrast by up to a fifth."""
    size = images.shape[-1]
    padded = nn.functional.pad(images, (2, 2, 2, 2), value=-1)
    out = torch.empty_like(images)
    for i, (y, x) in enumerate(torch.randint(0, 5, (len(images), 2), generator=draw).tolist()):
        out[i] = padded[i, :, y:y + size, x:x + size]
    contrast = 0.8 + 0.4 * torch.rand(len(images), 1, 1, 1, generator=draw)
    return ((out + 1) * contrast - 1).clamp(-1, 1)


def train(images: torch.Tensor, labels: torch.Tensor, classes: int, steps: int, seed: int):
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    classifier = make_classifier(classes)
    classifier(images[:1])  # the lazy layer learns its size
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    for _ in range(steps):
        chosen = torch.randint(0, len(images), (BATCH,), generator=draw)
        optimizer.zero_grad()
        loss(classifier(augment(images[chosen], draw)), labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


@torch.no_grad()
def predict(classifier: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([classifier(part).argmax(1) for part in images.split(500)])


def measure(corpus: Path, images: Path, labels: Path, steps: int, seed: int) -> dict:
    """The accuracy in all and per class."""
    train_images, train_labels, classes = read_corpus(corpus)
    classifier = train(train_images, train_labels, classes, steps, seed)
    truth = torch.from_numpy(read_idx(labels).astype(numpy.int64))
    right = predict(classifier, to_unit(read_idx(images))) == truth
    per_class = [right[truth == c].float().mean().item() for c in range(classes)]
    return {"accuracy": right.float().mean().item(), "per_class": per_class,
            "deviation": deviation_within_classes(train_images, train_labels),
            "synthetic_images": len(train_images), "test_images": len(truth), "seed": seed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--images", type=Path, default=FASHION / "t10k-images-idx3-ubyte.gz")
    parser.add_argument("--labels", type=Path, default=FASHION / "t10k-labels-idx1-ubyte.gz")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    start = time.monotonic()
    result = measure(arguments.corpus, arguments.images, arguments.labels, arguments.steps,
                     arguments.seed)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"accuracy {100 * result['accuracy']:.1f} % on {result['test_images']} real test images, "
          f"trained on {result['synthetic_images']} synthetic ones "
          f"({time.monotonic() - start:.0f} s)")
    print(f"deviation of pixels within a class: {result['deviation']:.3f}")
    print("per class: " + " ".join(f"{100 * a:.0f}" for a in result["per_class"]))


if __name__ == "__main__":
    main()
