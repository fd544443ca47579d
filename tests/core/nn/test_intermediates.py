"""Numbers of blocks that callers ask for."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from zoo_core.errors import InputError
from zoo_core.nn.intermediates import take_indices

CHOICES: list[tuple[Any, tuple[int, ...]]] = [
    (None, (0, 1, 2)),
    (1, (2,)),
    (numpy.int64(2), (1, 2)),
    ([], ()),
    ([2, 0, -1, 2], (0, 2)),
    (range(2), (0, 1)),
    ((numpy.int64(-3),), (0,)),
]


@pytest.mark.parametrize(("indices", "numbers"), CHOICES, ids=str)
def test_blocks_come_once_each_in_ascending_order(indices: Any, numbers: tuple[int, ...]) -> None:
    assert take_indices(indices, 3) == numbers


WRONG: list[tuple[Any, str]] = [
    (0, "indices: the last 0 of 3 blocks do not exist; allowed: 1 to 3"),
    (-1, "indices: the last -1 of 3 blocks do not exist; allowed: 1 to 3"),
    (4, "indices: the last 4 of 3 blocks do not exist; allowed: 1 to 3"),
    ([3], "indices: there is no block 3; allowed: -3 to 2"),
    ([-4], "indices: there is no block -4; allowed: -3 to 2"),
    (1.0, "indices must be a whole number, several of them in a list or a tuple, or None, found 1.0"),
    ([1.0], "or None, found [1.0]"),
    ("01", "or None, found '01'"),
    ({0}, "or None, found {0}"),
    (numpy.array([0, 1]), "or None, found array([0, 1])"),
]


@pytest.mark.parametrize(("indices", "message"), WRONG, ids=str)
def test_what_names_no_block_is_refused(indices: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        take_indices(indices, 3)
    assert message in str(raised.value)
