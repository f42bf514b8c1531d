#!/usr/bin/env python3
"""prepare reads what other programs pack: zipfile, numpy, tarfile and, where it is there, webdataset."""
import csv
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from sfumato_cli import DATA, USAGE, check, main

SIDE, CLASSES = 8, 3
RECORDS_BEGIN = 4096  # the page in front of records.bin
IMAGES = numpy.random.default_rng(1).integers(0, 256, (12, SIDE, SIDE), dtype=numpy.uint8)
LABELS = numpy.arange(12, dtype=numpy.int64) * 5 % CLASSES
NAMES = [f"part {i % 2}/{i}.png" for i in range(12)]


def png(image) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


PNGS = [png(image) for image in IMAGES]
METADATA = "file_name,caption,label\n" + "".join(
    f'"{name}","a, b",{label}\n' for name, label in zip(NAMES, LABELS))


class Prepared:
    def __init__(self, sfumato, work: Path):
        self.sfumato, self.work, self.count = sfumato, work, 0

    def __call__(self, source, *settings, classes: int = CLASSES, **options) -> dict:
        self.count += 1
        self.store = self.work / f"store{self.count}"
        arguments = ["prepare", f"data.source={source}", f"data.store={self.store}",
                     f"data.image_size={SIDE}", "data.channels=1", f"data.num_classes={classes}"]
        if options:
            done = self.sfumato.run(*arguments, *settings, **options)
            return {"stderr": done.stderr}
        return self.sfumato.json(*arguments, *settings)

    def same(self, what: str, source, *settings, images=IMAGES, labels=LABELS) -> dict:
        """Prepares, and compares the store with what went into the source, in any order."""
        report = self(source, *settings)
        pixels = numpy.frombuffer((self.store / "records.bin").read_bytes()[RECORDS_BEGIN:],
                                  numpy.uint8).reshape(-1, SIDE, SIDE)
        found = numpy.fromfile(self.store / "labels.bin", "<i4")
        key = lambda pairs: sorted((image.tobytes(), int(label)) for image, label in pairs)
        check(key(zip(pixels, found)) == key(zip(images, labels)), f"{what}: other records")
        return report


def check_zip(prepared: Prepared, work: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(work / "a.zip", "w", method) as archive:
            for name, content in zip(NAMES, PNGS):
                archive.writestr(name, content)
            archive.writestr("metadata.csv", "\ufeff" + METADATA.replace("\n", "\r\n"))
            archive.writestr("__MACOSX/part 0/._0.png", b"fork")
        report = prepared.same(f"zip, method {method}", work / "a.zip")
        check(report["format"] == "zip" and not report["unread_files"], f"{report}")
    # Written as a stream: sizes follow the content, and zip64 fields are there.
    with open(work / "stream.zip", "wb") as file:
        class Pipe(io.RawIOBase):
            writable = lambda self: True
            write = lambda self, data: file.write(data)
        with zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in list(zip(NAMES, PNGS)) + [("metadata.csv", METADATA.encode())]:
                with archive.open(name, "w", force_zip64=True) as member:
                    member.write(content)
    prepared.same("streamed zip", work / "stream.zip")
    with zipfile.ZipFile(work / "b.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("0.png", PNGS[0] * 9)
    said = prepared(work / "b.zip", classes=0, expect=DATA)["stderr"]
    check("bzip2" in said, f"bzip2: {said}")


def check_numpy(prepared: Prepared, work: Path) -> None:
    column = LABELS.reshape(-1, 1).astype(numpy.uint8)
    parts = {"train": slice(0, 6), "val": slice(6, 9), "test": slice(9, 12)}
    for save in (numpy.savez, numpy.savez_compressed):
        save(work / "mnist.npz", **{f"{part}_images": IMAGES[s] for part, s in parts.items()},
             **{f"{part}_labels": column[s] for part, s in parts.items()})
        said = prepared(work / "mnist.npz", expect=DATA)["stderr"]
        check("mnist.npz/train" in said, f"the split is not asked about: {said}")
        for part, s in parts.items():
            prepared.same(part, work / "mnist.npz" / part, images=IMAGES[s], labels=LABELS[s])
        for kind in ("uint8", ">i2", "<i4", "int64", "uint64"):
            save(work / "own.npz", images=IMAGES[..., None], labels=LABELS.astype(kind))
            prepared.same(f"labels of type {kind}", work / "own.npz")
    numpy.save(work / "x.npy", IMAGES)
    numpy.save(work / "y.npy", LABELS)
    prepared.same("single arrays", work / "x.npy", f"data.labels={work / 'y.npy'}")
    numpy.savez(work / "several.npz", images=IMAGES, labels=numpy.eye(12, dtype=int))
    check("argmax" in prepared(work / "several.npz", expect=DATA)["stderr"], "one-hot labels")
    numpy.savez(work / "fortran.npz", images=numpy.asfortranarray(IMAGES), labels=LABELS)
    check("ascontiguousarray" in prepared(work / "fortran.npz", expect=DATA)["stderr"], "Fortran")
    numpy.savez(work / "object.npz", images=IMAGES, labels=LABELS.astype(object))
    check("Python objects" in prepared(work / "object.npz", expect=DATA)["stderr"], "objects")
    numpy.savez(work / "faces.npz", faces=IMAGES)
    prepared(work / "faces.npz/faces", expect=USAGE)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def check_shards(prepared: Prepared, work: Path) -> None:
    folder = work / "shards"
    folder.mkdir()
    for shard in range(3):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as archive:
            for i in range(4 * shard, 4 * shard + 4):
                add(archive, f"{i:06}.png", PNGS[i])
                add(archive, f"{i:06}.cls", str(LABELS[i]).encode())
    for source in (folder, folder / "{000..002}.tar", folder / "*.tar"):
        prepared.same(f"{source}", source)
    with tarfile.open(work / "json.tar.gz", "w:gz") as archive:
        for i, content in enumerate(PNGS):
            add(archive, f"a/{i}.json", json.dumps({"label": int(LABELS[i])}).encode())
            add(archive, f"a/{i}.png", content)
    prepared.same("labels in JSON", work / "json.tar.gz")
    joined = b"".join((folder / f"{shard:03}.tar").read_bytes() for shard in range(3))
    (work / "joined.tar").write_bytes(joined)
    prepared.same("tars one after the other", work / "joined.tar")
    said = prepared(work / "joined.tar", expect=0)["stderr"]
    check("3 archives" in said, f"nothing is said of several archives: {said}")
    try:
        import webdataset
    except ImportError:
        return
    with webdataset.TarWriter(str(work / "written.tar")) as writer:
        for i, image in enumerate(IMAGES):
            writer.write({"__key__": f"{i:05}", "png": Image.fromarray(image), "cls": int(LABELS[i]),
                          "json": {"caption": "x"}})
    prepared.same("written by webdataset", work / "written.tar")


def check_folder(prepared: Prepared, work: Path) -> None:
    folder = work / "folder"
    for name, content in zip(NAMES, PNGS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "metadata.csv").write_text(METADATA)
    prepared.same("metadata.csv", folder)
    (folder / "metadata.csv").unlink()
    (folder / "metadata.jsonl").write_text("".join(
        json.dumps({"file_name": row["file_name"], "kind": int(row["label"])}) + "\n"
        for row in csv.DictReader(io.StringIO(METADATA))))
    prepared.same("metadata.jsonl", folder, "data.label_column=kind")


def check_numbers_that_are_names(prepared: Prepared, work: Path) -> None:
    """With the public names 2, 0, 1 a label 2 is the class 2, the first, whatever says so."""
    names = ["2", "0", "1"]
    expected = [names.index(str(label)) for label in LABELS]
    settings = [f"data.class_names={json.dumps(names)}"]
    for source, *more in ((work / "a.zip",), (work / "own.npz",), (work / "shards",),
                          (work / "json.tar.gz",), (work / "folder", "data.label_column=kind"),
                          (work / "x.npy", f"data.labels={work / 'y.npy'}")):
        prepared.same(f"names that are numbers, {source.name}", source, *settings, *more,
                      labels=expected)
    said = prepared(work / "own.npz", 'data.class_names=["2", "0", "3"]', expect=DATA)["stderr"]
    check("numbers are names" in said, f"label 1 without a class '1': {said}")


def check_splits(prepared: Prepared, work: Path) -> None:
    for i, name in enumerate(("a/train", "a/test", "b/train", "b/test")):
        (work / "split" / name).mkdir(parents=True)
        (work / "split" / name / "1.png").write_bytes(PNGS[i])
    for classes, more in ((2, ["--accept-class-names"]), (0, [])):
        said = prepared(work / "split", *more, classes=classes, expect=DATA)["stderr"]
        check("test, train" in said and "'train/a'" in said, f"splits within classes: {said}")
    for name in ("train-0000", "val-0000"):
        (work / f"{name}.tar").write_bytes((work / "shards/000.tar").read_bytes())
    said = prepared(work / "*-0000.tar", expect=DATA)["stderr"]
    check("train-0000, val-0000" in said, f"a pattern over two splits: {said}")


def run_check(sfumato, work: Path, _arguments) -> None:
    prepared = Prepared(sfumato, work)
    for part in (check_zip, check_numpy, check_shards, check_folder,
                 check_numbers_that_are_names, check_splits):
        part(prepared, work)


if __name__ == "__main__":
    main(run_check, __doc__)
