#!/usr/bin/env bash
# Pillow 13.0.0: an uncompressed TIFF with an orientation that turns the picture, opened by its path.
#
# Expected: Image.open gives the same pixels for a path and for a file object.
# Seen: orientation 6 (turn by a quarter) of a 2 x 3 picture is right from a file object and scrambled from a path: the
# rows of the memory-mapped file are laid out by the width of the turned picture. No error, no warning; the size is that
# of the turned picture both times.
# shellcheck source=common.sh
source "$(dirname -- "$0")/common.sh"
install pillow==13.0.0

environment/bin/python - <<'PYTHON'
import io
from pathlib import Path

import PIL
from PIL import Image

stored = Image.new("L", (2, 3))
stored.putdata([0, 40, 80, 120, 160, 200])
path = Path("turned.tif")
stored.save(path, tiffinfo={274: 6})  # 274: Orientation


def rows(image):
    image.load()
    pixels = image.tobytes()
    return [list(pixels[y * image.width:(y + 1) * image.width]) for y in range(image.height)]


with Image.open(path) as image:
    by_path = rows(image)
with Image.open(io.BytesIO(path.read_bytes())) as image:
    by_object = rows(image)
turned = rows(stored.transpose(Image.Transpose.ROTATE_270))
print(f"Pillow {PIL.__version__}")
print(f"stored {rows(stored)}, orientation 6: {turned}")
print(f"from a file object {by_object}")
print(f"from a path        {by_path}")
raise SystemExit(0 if by_object == turned and by_path != turned else 1)
PYTHON
