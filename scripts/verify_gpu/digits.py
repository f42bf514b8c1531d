"""Writes handwritten digits as 32x32 PNG files, a folder per digit: images for a real private run.

    digits.py FOLDER [--count N]

They come with scikit-learn (1,797 of 8x8 pixels, from UCI), which is looked for and not imported. Where it is
not installed, digits are drawn as on a display of seven segments, each a little different.
"""
import argparse
import gzip
import importlib.util
import random
import struct
import sys
import zlib
from pathlib import Path

SIDE, SMALL = 32, 8
# Lit segments of 0 to 9: top, upper left and right, middle, lower left and right, bottom.
SEGMENTS = ("1110111", "0010010", "1011101", "1011011", "0111010",
            "1101011", "1101111", "1010010", "1111111", "1111011")


def png(rows: list[bytes]) -> bytes:
    """A grey picture of 8 bits."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (struct.pack(">I", len(content)) + kind + content +
                struct.pack(">I", zlib.crc32(kind + content)))

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    pixels = b"".join(b"\0" + row for row in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels, 1)) +
            chunk(b"IEND", b""))


def weights() -> list[tuple[int, int, float]]:
    """For each place of the larger side: its two neighbours of the smaller one, and the second's share."""
    places = []
    for i in range(SIDE):
        x = min(max((i + 0.5) * SMALL / SIDE - 0.5, 0.0), SMALL - 1.0)
        left = min(int(x), SMALL - 2)
        places.append((left, left + 1, x - left))
    return places


def enlarged(values: list[int]) -> list[bytes]:
    """Linear interpolation of 8x8 values of 0 to 16."""
    places = weights()
    rows = [values[SMALL * y:SMALL * (y + 1)] for y in range(SMALL)]
    picture = []
    for a, b, share in places:
        mixed = [(1 - share) * p + share * q for p, q in zip(rows[a], rows[b])]
        picture.append(bytes(min(255, int(255 / 16 * ((1 - t) * mixed[l] + t * mixed[r]) + 0.5))
                             for l, r, t in places))
    return picture


def file_of_digits() -> Path | None:
    package = importlib.util.find_spec("sklearn")
    for folder in package.submodule_search_locations or () if package else ():
        path = Path(folder) / "datasets/data/digits.csv.gz"
        if path.is_file():
            return path
    return None


def handwritten(path: Path) -> list[tuple[int, list[bytes]]]:
    with gzip.open(path, "rt") as file:
        lines = [[int(float(word)) for word in line.split(",")] for line in file if line.strip()]
    return [(values[64], enlarged(values[:64])) for values in lines]


def drawn(digit: int, draw: random.Random) -> list[bytes]:
    left, top = draw.randrange(4, 12), draw.randrange(2, 6)
    width, height, thick = draw.randrange(10, 15), draw.randrange(20, 25), draw.randrange(2, 5)
    middle = top + height // 2
    boxes = ((left, top, width, thick), (left, top, thick, height // 2),
             (left + width - thick, top, thick, height // 2), (left, middle, width, thick),
             (left, middle, thick, height // 2), (left + width - thick, middle, thick, height // 2),
             (left, top + height - thick, width, thick))
    picture = [bytearray(draw.randrange(20) for _ in range(SIDE)) for _ in range(SIDE)]
    light = draw.randrange(160, 256)
    for lit, (x0, y0, w, h) in zip(SEGMENTS[digit], boxes):
        for y in range(y0, min(y0 + h, SIDE)) if lit == "1" else ():
            for x in range(x0, min(x0 + w, SIDE)):
                picture[y][x] = light
    return [bytes(row) for row in picture]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1797)
    arguments = parser.parse_args()
    path = file_of_digits()
    if path:
        pictures = handwritten(path)[:arguments.count]
    else:
        draw = random.Random(1797)
        pictures = [(i % 10, drawn(i % 10, draw)) for i in range(arguments.count)]
    for i, (label, rows) in enumerate(pictures):
        folder = arguments.folder / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:04}.png").write_bytes(png(rows))
    print(f"{len(pictures)} {'handwritten digits of scikit-learn' if path else 'drawn digits'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
