"""Write docs/behaviours.md from what the tests run on: `python docs/generate_behaviours.py`.

The suite compares the file with what this module returns, so that no cell can say what no test holds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

TARGET = Path(__file__).with_name("behaviours.md")
sys.path.insert(0, str(TARGET.parents[1] / "tests"))

from support.models.behaviours import BEHAVIOURS, SHARDED, label  # noqa: E402
from support.models.families import FAMILIES  # noqa: E402

INTRODUCTION = """# Behaviours

What every model does, whatever its towers. Each `yes` is a test of `tests/parity/test_behaviours.py` that passes, on a
tiny model of the family; each number is a reason below, and a test holds the model to that as well. This page is
generated: run `python docs/generate_behaviours.py` after changing `families.py` or `behaviours.py` in
`tests/support/models`.
"""

PRECISION = """
Numbers are compared with open_clip 3.3.0 elsewhere in the suite. In half precision features agree with float32 to a
cosine of 0.99. `fully_shard` runs on the CPU from torch 2.7 on; its tests take two gloo processes.
"""


def page() -> str:
    """Return the page."""
    reasons: dict[str, int] = {}
    rows = [_row(behaviour, reasons) for behaviour in (*BEHAVIOURS, *SHARDED)]
    head = [f"| | {' | '.join(FAMILIES)} |", "|---|" + "---|" * len(FAMILIES)]
    notes = [f"{number}. {reason[0].upper()}{reason[1:]}." for reason, number in reasons.items()]
    return "\n".join([INTRODUCTION, *head, *rows, "", *notes, PRECISION, *_parts()])


def _row(behaviour: str, reasons: dict[str, int]) -> str:
    cells = [family.reason(behaviour) for family in FAMILIES.values()]
    shown = ["yes" if cell is None else f"({reasons.setdefault(cell, len(reasons) + 1)})" for cell in cells]
    return f"| {label(behaviour)} | {' | '.join(shown)} |"


def _parts() -> Iterator[str]:
    """Yield what each family is made of."""
    yield "| family | model | vision tower | text tower |\n|---|---|---|---|"
    for name, family in FAMILIES.items():
        towers = (_tower(family.vision.config), _tower(family.text.config))
        yield f"| {name} | `{family.model}` | {towers[0]} | {towers[1]} |"
    yield ""


def _tower(config: dict[str, object]) -> str:
    """Return the tower's name, and what it is built from if it is another library's."""
    inner = config.get("config")
    of = config.get("name") or (inner.get("model_type") if isinstance(inner, dict) else None)
    return f"`{config['tower']}`" + (f" of `{of}`" if of else "")


if __name__ == "__main__":
    TARGET.write_text(page())
