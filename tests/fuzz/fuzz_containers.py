"""An atheris target for the readers of weights: `python tests/fuzz/fuzz_containers.py -max_total_time=900 [CORPUS]`.

atheris is no dependency of zoo (pip install atheris). The first byte of an input says what the rest of it is: a whole
file, or the part of one that its reader has to understand, around which a sound file is put. Otherwise the checksum of
an archive would hide from the fuzzer whatever it changes inside.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import atheris

# Modules that are imported before are not instrumented, and the fuzzer would be blind; torch is left as it is.
with atheris.instrument_imports(include=["zoo.checkpoints.containers", "zoo_core.checkpoints", "pickletools"]):
    import zoo.checkpoints.containers.npz
    import zoo.checkpoints.containers.torch_files  # noqa: F401 - as above

sys.path.insert(0, str(Path(__file__).parent.parent))
from support.checkpoints import container_files

FOLDER = Path(tempfile.mkdtemp())
STORAGE = bytes(range(64))


def as_is(part: bytes) -> None:
    """Read a whole file."""
    (FOLDER / "x").write_bytes(part)


def pickled(part: bytes) -> None:
    """Read the pickle of an archive of torch."""
    with zipfile.ZipFile(FOLDER / "x", "w") as archive:
        archive.writestr("archive/data.pkl", part)
        for number in range(3):
            archive.writestr(f"archive/data/{number}", STORAGE)


def legacy(part: bytes) -> None:
    """Read the pickles behind the magic number of torch before 1.6."""
    (FOLDER / "x").write_bytes(LEGACY_START + part)


def array(part: bytes) -> None:
    """Read the array of an npz archive."""
    with zipfile.ZipFile(FOLDER / "x", "w") as archive:
        archive.writestr("a/b.npy", part)


def header(part: bytes) -> None:
    """Read the header of a safetensors file."""
    (FOLDER / "x").write_bytes(len(part).to_bytes(8, "little") + part + STORAGE)


def index(part: bytes) -> None:
    """Read an index of several files."""
    (FOLDER / INDEX).write_bytes(part)


INDEX = "x.index.json"
LEGACY = container_files.SEEDS["before 1.6"]
LEGACY_START = LEGACY[: LEGACY.index(b".") + 1]
KINDS = (as_is, pickled, legacy, array, header, index)


def one_input(data: bytes) -> None:
    """Read one file; whatever is no ZooError ends the run."""
    kind = KINDS[data[0] % len(KINDS)] if data else as_is
    kind(data[1:])
    container_files.read_all(FOLDER / (INDEX if kind is index else "x"))


def seeds() -> list[bytes]:
    """Return a sound input of each kind, and one of each container as it is."""
    files = container_files.SEEDS
    with zipfile.ZipFile(io.BytesIO(files["torch"])) as archive:
        tree = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    with zipfile.ZipFile(io.BytesIO(files["npz"])) as archive:
        member = archive.read("b.npy")
    span = int.from_bytes(files["safetensors"][:8], "little")
    parts = {
        pickled: tree,
        legacy: LEGACY[len(LEGACY_START) :],
        array: member,
        header: files["safetensors"][8 : 8 + span],
        index: json.dumps({"weight_map": dict.fromkeys(container_files.TENSORS, "shard")}).encode(),
    }
    whole = [bytes([KINDS.index(as_is)]) + content for content in files.values()]
    return whole + [bytes([KINDS.index(kind)]) + part for kind, part in parts.items()]


def main() -> None:
    """Start from the seeds; findings of a corpus on the command line are kept there."""
    folder = Path(tempfile.mkdtemp())
    for number, content in enumerate(seeds()):
        (folder / str(number)).write_bytes(content)
    (FOLDER / "shard").write_bytes(container_files.SEEDS["safetensors"])
    atheris.Setup([*sys.argv, str(folder)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
