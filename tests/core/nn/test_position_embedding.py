"""Position embeddings: fixed ones against their formula, learned ones against torch's interpolation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from zoo_core.nn.position_embedding import PositionTable, grid_of, resample, sin_cos_2d


def test_a_cell_is_coded_by_sines_and_cosines_of_its_column_and_then_of_its_row() -> None:
    code = sin_cos_2d(3, 2, 8)
    assert code.shape == (6, 8)
    for row in range(3):
        for column in range(2):
            frequencies = (1.0, 10_000 ** -(1 / 2))
            expected = [
                wave(place * f) for place in (column, row) for wave in (math.sin, math.cos) for f in frequencies
            ]
            torch.testing.assert_close(code[2 * row + column], torch.tensor(expected))


GRIDS = {
    "square": (49, (224, 224), (7, 7)),
    "proportions of the image": (18, (100, 200), (3, 6)),
    "upright": (18, (200, 100), (6, 3)),
    "proportions that do not fit, but a square": (36, (100, 300), (6, 6)),
    "one cell": (1, (10, 10), (1, 1)),
    "nothing fits": (18, (100, 100), None),
    "no cells": (0, (100, 100), None),
    "two cells": (2, (3, 3), None),
}


@pytest.mark.parametrize(("count", "proportions", "grid"), GRIDS.values(), ids=GRIDS)
def test_a_grid_has_the_proportions_of_the_images_or_is_square(
    count: int, proportions: tuple[int, int], grid: tuple[int, int] | None
) -> None:
    assert grid_of(count, proportions) == grid


def test_a_table_counts_the_positions_that_belong_to_no_place() -> None:
    assert PositionTable((2, 3)).extra == 0
    assert PositionTable((2, 3), prefix=2, suffix=5).extra == 7


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("prefix", "suffix"), [(0, 0), (1, 0), (2, 3)])
def test_a_grid_of_positions_is_interpolated_between_its_prefix_and_its_suffix(
    prefix: int, suffix: int, batched: bool, mode: str
) -> None:
    table = torch.randn(prefix + 6 + suffix, 5, generator=torch.Generator().manual_seed(0))
    given = table[None] if batched else table
    old, new = PositionTable((2, 3), prefix, suffix), PositionTable((5, 4), prefix, suffix)
    found = resample(given.half(), old, new, mode)  # type: ignore[arg-type]
    grid = table.half().float()[prefix : prefix + 6].T.reshape(1, 5, 2, 3)
    grid = F.interpolate(grid, size=(5, 4), mode=mode, align_corners=False, antialias=True)
    expected = torch.cat([table[:prefix], grid[0].flatten(1).T, table[prefix + 6 :]]).half()
    assert found.dtype == torch.float16
    assert torch.equal(found, expected[None] if batched else expected)


def test_a_row_of_positions_is_interpolated_linearly() -> None:
    table = torch.tensor([[9.0], [0.0], [2.0], [4.0], [6.0]])
    found = resample(table, PositionTable((4,), prefix=1), PositionTable((8,), prefix=1), "bicubic")
    expected = F.interpolate(table[1:].T[None], size=8, mode="linear", align_corners=False)[0].T
    assert torch.equal(found, torch.cat([table[:1], expected]))


def test_positions_shrink_with_antialiasing() -> None:
    table = torch.eye(16)[:, :3]
    found = resample(table, PositionTable((4, 4)), PositionTable((2, 2)), "bilinear")
    grid = F.interpolate(table.T.reshape(1, 3, 4, 4), size=(2, 2), mode="bilinear", align_corners=False, antialias=True)
    assert torch.equal(found, grid[0].flatten(1).T)
