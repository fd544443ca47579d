"""An atheris target for the readers of weights: `python tests/fuzz/fuzz_containers.py -max_total_time=300`.

atheris is no dependency of zoo (pip install atheris). Inputs begin from the files of `tests/test_container_fuzz.py`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["zoo_core.containers"]):
    pass

sys.path.insert(0, str(Path(__file__).parent.parent))
import test_container_fuzz

PATH = Path(tempfile.mkdtemp()) / "x"


def one_input(data: bytes) -> None:
    """Read one file; whatever is no ZooError ends the run."""
    PATH.write_bytes(data)
    test_container_fuzz.read_all(PATH)


def main() -> None:
    """Start from one file of each container."""
    seeds = Path(tempfile.mkdtemp())
    for number, content in enumerate(test_container_fuzz.SEEDS.values()):
        (seeds / str(number)).write_bytes(content)
    atheris.Setup([*sys.argv, str(seeds)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
