"""Finds LibTorch in the torch of this Python and becomes the program, which then has all signals."""
import importlib.util
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
USAGE = 2  # exit status of the program for what the caller must change


def fail(message: str):
    sys.stderr.write(f"[sfumato] error: {message}\n")
    sys.exit(USAGE)


def needed_torch() -> str:
    return re.search(r"^torch=(.+)$", (HERE / "bundle.txt").read_text(), re.M)[1]


def torch_folder() -> Path:
    """The folder of torch, found and not imported, which takes seconds."""
    wanted = needed_torch()
    remedy = f"pip install torch=={wanted}, or set SFUMATO_TORCH_DIR to a LibTorch {wanted} (holds lib/)"
    if os.environ.get("SFUMATO_TORCH_DIR"):
        folder = Path(os.environ["SFUMATO_TORCH_DIR"]).absolute()
    else:
        # A folder named torch where the caller happens to be is not the package.
        sys.path = [entry for entry in sys.path if entry not in ("", os.getcwd())]
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.origin is None:
            fail(f"{sys.executable} has no torch: {remedy}")
        folder = Path(spec.origin).parent
    if not (folder / "lib" / "libtorch_cpu.so").is_file():
        fail(f"no LibTorch in '{folder}': no lib/libtorch_cpu.so; {remedy}")
    found = "of unknown version"
    for file, pattern in (("version.py", r"__version__ *= *['\"]([^'\"+]+)"), ("build-version", r"([^+\s]+)")):
        if (folder / file).is_file():
            match = re.search(pattern, (folder / file).read_text())
            found = match[1] if match else found
            break
    if found != wanted:
        fail(f"torch in '{folder}' is {found}, and {wanted} is needed: {remedy}")
    return folder


def library_path(torch: Path) -> str:
    """For the loader: this package's libraries, LibTorch's, CUDA's beside it, then the caller's."""
    folders = [HERE / "lib", torch / "lib", *sorted(torch.parent.glob("nvidia/*/lib"))]
    for folder in folders[:2]:
        if re.search("[:;]", str(folder)):
            fail(f"the loader reads ':' and ';' as separators: '{folder}' must be in another place")
    before = os.environ.get("LD_LIBRARY_PATH")
    return ":".join(map(str, folders)) + (f":{before}" if before else "")


def main():
    os.environ["LD_LIBRARY_PATH"] = library_path(torch_folder())
    name = sys.argv[0]
    if name == str(HERE / "__main__.py"):
        name = "python -m sfumato"
    os.execv(HERE / "bin" / "sfumato", [name, *sys.argv[1:]])
