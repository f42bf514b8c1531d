#!/usr/bin/env python3
"""Pictures of every kind that is read come out of `prepare` as Pillow shows them, upright and in
RGB; what is not read is refused by name."""
import io
import struct
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import DATA, SKIPPED, check, main

try:
    import numpy as np
    from PIL import Image, ImageOps, TiffImagePlugin
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(SKIPPED)

SIDE = 32
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE]


def color_picture() -> Image.Image:
    pixels = np.stack([COLUMNS * 7, ROWS * 8, COLUMNS * 3 + ROWS * 4], -1).astype(np.uint8)
    pixels[2:9, 3:14] = (250, 20, 30)  # without symmetry
    return Image.fromarray(pixels)


COLOR = color_picture()
GREY = COLOR.convert("L")
ALPHA = Image.fromarray(((COLUMNS * 11) % 256).astype(np.uint8))
RGBA = Image.merge("RGBA", [*COLOR.split(), ALPHA])
INKS = Image.merge("CMYK", [*COLOR.convert("CMYK").split()[:3],
                            Image.fromarray((COLUMNS * 6).astype(np.uint8))])
DEEP = Image.fromarray(((ROWS * SIDE + COLUMNS) * 64).astype(np.uint16))
BITS = GREY.point(lambda value: 255 * (value > 90)).convert("1")
MODES = {"rgb": COLOR, "grey": GREY, "palette": COLOR.quantize(64), "rgba": RGBA, "bits": BITS}


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def turned(form: str, orientation: int) -> bytes:
    """COLOR, stored so that it is upright once the orientation has been applied."""
    move = Image.Transpose
    inverse = [None, move.FLIP_LEFT_RIGHT, move.ROTATE_180, move.FLIP_TOP_BOTTOM, move.TRANSPOSE,
               move.ROTATE_90, move.TRANSVERSE, move.ROTATE_270][orientation - 1]
    image = COLOR if inverse is None else COLOR.transpose(inverse)
    if form == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[274] = orientation
        return encoded(image, form, tiffinfo=tags)
    exif = Image.Exif()
    exif[274] = orientation
    lossless = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    return encoded(image, form, exif=exif, **lossless)


def deep_color_png() -> bytes:
    def chunk(kind, content):
        code = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", code)
    rows = (np.asarray(COLOR).astype(">u2") * 257 - np.asarray(COLOR) // 3).astype(">u2")
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


def pictures() -> dict[str, bytes]:
    files = {}
    for name, image in MODES.items():
        files[f"png_{name}.png"] = encoded(image, "PNG")
        files[f"bmp_{name}.bmp"] = encoded(image, "BMP")
        files[f"tiff_{name}.tif"] = encoded(image, "TIFF")
    for name, image in {"rgb": COLOR, "rgba": RGBA, "grey": GREY}.items():
        files[f"webp_{name}.webp"] = encoded(image, "WEBP", lossless=True, exact=True)
        files[f"webp_lossy_{name}.webp"] = encoded(image, "WEBP", quality=70)
    for packing in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files[f"tiff_{packing}.tiff"] = encoded(COLOR, "TIFF", compression=packing)
    files["tiff_group4.tif"] = encoded(BITS, "TIFF", compression="group4")
    files["tiff_big.tif"] = encoded(COLOR, "TIFF", big_tiff=True)
    files["tiff_inks.tif"] = encoded(INKS, "TIFF")
    files["tiff_grey_alpha.tif"] = encoded(Image.merge("LA", [GREY, ALPHA]), "TIFF")
    for form, name in (("TIFF", "tif"), ("PNG", "png"), ("PPM", "pgm")):
        files[f"deep_{name}.{name}"] = encoded(DEEP, form)
    files["deep_color.png"] = deep_color_png()
    for name in ("rgb", "grey", "bits"):
        files[f"pnm_{name}.pnm"] = encoded(MODES[name], "PPM")
    for sampling in (0, 1, 2):
        for progressive in (False, True):
            files[f"jpeg_{sampling}_{progressive}.jpg"] = encoded(
                COLOR, "JPEG", subsampling=sampling, progressive=progressive)
    files["jpeg_grey.jpe"] = encoded(GREY, "JPEG")
    files["jpeg_inks.jpeg"] = encoded(INKS, "JPEG", quality=95, subsampling=0)
    files["jpeg_restart.jfif"] = encoded(COLOR, "JPEG", restart_marker_blocks=2)
    files["apng.png"] = encoded(COLOR, "PNG", save_all=True, append_images=[GREY.convert("RGB")])
    files["webp_named.jpg"] = files["webp_rgb.webp"]
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        for orientation in range(1, 9):
            files[f"turned_{form}_{orientation}.{form.lower()}"] = turned(form, orientation)
    return files


def as_pillow(content: bytes) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if image.mode.startswith("I"):  # 16 bits: the upper 8
        grey = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)
    return np.asarray(image.convert("RGB"))


def check_pictures(sfumato, work: Path) -> None:
    source = work / "pictures"
    source.mkdir()
    files = pictures()
    for name, content in files.items():
        (source / name).write_bytes(content)
    report = sfumato.json("prepare", f"data.source={source}", f"data.store={work / 'store'}",
                          f"data.image_size={SIDE}", "data.channels=3", "data.deduplicate=false")
    check(report["kept"] == len(files), f"{report['kept']} of {len(files)} pictures were kept")
    records = (work / "store" / "records.bin").read_bytes()
    records = np.frombuffer(records[-len(files) * SIDE * SIDE * 3:], np.uint8)
    for name, ours in zip(sorted(files), records.reshape(-1, SIDE, SIDE, 3)):
        furthest = np.abs(ours.astype(int) - as_pillow(files[name]).astype(int)).max()
        # Inks are converted with other roundings.
        check(furthest <= (2 if "inks" in name else 0), f"{name} differs by {furthest} from Pillow")


def check_refused(sfumato, work: Path) -> None:
    lab = COLOR.convert("LAB")
    refused = {
        "animated.webp": (encoded(COLOR, "WEBP", save_all=True, append_images=[GREY.convert("RGB")]),
                          "animated WebP"),
        "pages.tif": (encoded(COLOR, "TIFF", save_all=True, append_images=[GREY.copy()]), "several pages"),
        "lab.tif": (encoded(lab, "TIFF"), "colour space 8"),
        "real.tif": (encoded(GREY.convert("F"), "TIFF"), "32-bit samples"),
        "gif.jpg": (encoded(COLOR.quantize(64), "GIF"), "is a GIF"),
    }
    for name, (content, said) in refused.items():
        source = work / f"refused_{name}"
        source.mkdir()
        (source / name).write_bytes(content)
        message = sfumato.run("prepare", f"data.source={source}", f"data.store={work / 'none'}",
                              expect=DATA).stderr
        check(said in message and name in message, f"{name}: {message}")


def check_large(sfumato, work: Path) -> None:
    source = work / "large"
    source.mkdir()
    Image.new("1", (9000, 7500), 1).save(source / "large.png")
    command = ["prepare", f"data.source={source}", f"data.store={work / 'large_store'}"]
    check("data.max_megapixels" in sfumato.run(*command, expect=DATA).stderr,
          "the setting that lets a large picture in is not named")
    report = sfumato.json(*command, "data.max_megapixels=68")
    check(report["kept"] == 1, f"{report}")


def check_all(sfumato, work: Path, _) -> None:
    check_pictures(sfumato, work)
    check_refused(sfumato, work)
    check_large(sfumato, work)


if __name__ == "__main__":
    main(check_all, __doc__.splitlines()[0])
