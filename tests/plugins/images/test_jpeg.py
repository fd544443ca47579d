"""JPEG files without Pillow's decoder: the same bits, the same refusals, and Pillow for whatever is unusual."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from support.images import picture
from zoo_core.errors import ImageFileError
from zoo_images import jpeg, reading
from zoo_images.reading import OpenOptions, open_image, open_pixels

pytestmark = pytest.mark.skipif(jpeg._decoder() is None, reason="this torchvision has no decoder")

SOF = b"\xff\xc0\x00\x11\x08"


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def with_components(data: bytes, names: bytes) -> bytes:
    """Rename the three components of a baseline file, in its frame and in its scan."""
    frame, scan = data.index(SOF) + 10, data.index(b"\xff\xda") + 5
    renamed = bytearray(data)
    for index, name in enumerate(names):
        renamed[frame + 3 * index] = renamed[scan + 2 * index] = name
    return bytes(renamed)


def without_jfif(data: bytes) -> bytes:
    """Leave out the marker that says YCbCr, so that the decoder goes by the names of the components."""
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]


def pillows(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(open_image(path))).permute(2, 0, 1)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Tells for every call of `decode` whether it gave pixels."""
    seen: list[bool] = []
    decoded = jpeg.decode

    def watched(*arguments: Any) -> torch.Tensor | None:
        pixels = decoded(*arguments)
        seen.append(pixels is not None)
        return pixels

    monkeypatch.setattr(jpeg, "decode", watched)
    return seen


@pytest.mark.parametrize("size", [(64, 48), (57, 43), (1, 1), (3, 130), (16, 8)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:4:4", "quality": 95},
        {"subsampling": "4:2:2", "quality": 30},
        {"subsampling": "4:2:0"},
        {"progressive": True},
        {"progressive": True, "subsampling": "4:4:4", "optimize": True},
        {"restart_marker_blocks": 3},
        {"restart_marker_rows": 1, "progressive": True},
        {"icc_profile": b"profile" * 20_000, "comment": b"made for a test"},
    ],
)
def test_the_bits_are_pillows(
    tmp_path: Path, taken: list[bool], size: tuple[int, int], mode: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(picture(*size, mode), **options))
    found = open_pixels(path)
    assert taken == [True]
    assert found.dtype == torch.uint8
    assert found.shape == (3, size[1], size[0])
    assert found.permute(1, 2, 0).is_contiguous()
    assert torch.equal(found, pillows(path))


@pytest.mark.parametrize("names", [b"\1\2\3", b"\0\1\2", b"RGB", b"\1\x22\x23", b"rgb"])
@pytest.mark.parametrize("keep_rgb", [False, True])
@pytest.mark.parametrize("jfif", [True, False])
def test_colours_are_taken_for_what_pillow_takes_them_for(
    tmp_path: Path, names: bytes, keep_rgb: bool, jfif: bool
) -> None:
    """Whether three components are RGB is guessed from markers and names; RGB files of Pillow carry Adobe's marker."""
    data = with_components(encoded(picture(40, 24), keep_rgb=keep_rgb, subsampling="4:4:4"), names)
    path = tmp_path / "a.jpg"
    path.write_bytes(data if jfif or data[2:4] != b"\xff\xe0" else without_jfif(data))
    assert torch.equal(open_pixels(path), pillows(path))


def test_cmyk_is_left_to_pillow(tmp_path: Path, taken: list[bool]) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(picture(40, 24).convert("CMYK")))
    assert torch.equal(open_pixels(path), pillows(path))
    assert taken == [False]


def test_a_turned_photograph_is_left_to_pillow_where_exif_counts(tmp_path: Path, taken: list[bool]) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    for orientation, direct in ((6, False), (1, True)):
        exif[0x0112] = orientation
        path.write_bytes(encoded(picture(40, 24), exif=exif))
        expected = torch.from_numpy(np.array(open_image(path, OpenOptions(exif=True)))).permute(2, 0, 1)
        taken.clear()
        assert torch.equal(open_pixels(path, OpenOptions(exif=True)), expected)
        assert bool(taken) == direct
        assert open_pixels(path).shape == (3, 24, 40)


def test_a_draft_is_left_to_pillow(tmp_path: Path, taken: list[bool]) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(picture(400, 240)))
    assert open_pixels(path, OpenOptions(draft=(30, 30))).shape == (3, 60, 100)
    assert taken == []
    assert torch.equal(open_pixels(path, OpenOptions(draft=(200, 200))), pillows(path))
    assert taken == [True]


def test_a_picture_that_claims_gigabytes_is_not_decoded(tmp_path: Path, taken: list[bool]) -> None:
    data = encoded(picture(40, 24))
    place = data.index(SOF) + len(SOF)
    path = tmp_path / "bomb.jpg"
    path.write_bytes(data[:place] + b"\xff\xff\xff\xff" + data[place + 4 :])
    with pytest.raises(ImageFileError, match=r"has 65535 x 65535 pixels, more than the limit of 64,000,000"):
        open_pixels(path)
    assert taken == []


def test_a_large_file_is_left_to_pillow(tmp_path: Path, taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(picture(40, 24)))
    monkeypatch.setattr(reading, "MAX_BYTES", path.stat().st_size - 1)
    assert torch.equal(open_pixels(path), pillows(path))
    assert taken == []


def outcome(opened: Callable[[Path], Any], path: Path) -> Any:
    try:
        return np.asarray(opened(path)).tobytes()
    except ImageFileError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged EXIF
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_damage_has_the_same_outcome(tmp_path: Path, options: dict[str, Any]) -> None:
    random = np.random.default_rng(3)
    whole = encoded(picture(40, 24), **options)
    path = tmp_path / "damaged.jpg"
    for trial in range(150):
        data = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            data[random.integers(2, len(data))] = random.integers(0, 256)
        path.write_bytes(data[: random.integers(2, len(data))] if trial % 3 == 0 else data)
        found = outcome(lambda path: open_pixels(path).permute(1, 2, 0), path)
        assert found == outcome(open_image, path)


# Without torchvision's decoder


def test_a_decoder_of_other_bits_is_not_used() -> None:
    right = jpeg._decoder()
    assert right is not None
    assert jpeg._agrees(right)
    assert not jpeg._agrees(lambda data: right(data) ^ 1)


@pytest.mark.parametrize("broken", [AttributeError, ImportError, OSError, RuntimeError, ValueError])
def test_where_it_cannot_be_loaded_pillow_decodes(
    tmp_path: Path, taken: list[bool], monkeypatch: pytest.MonkeyPatch, broken: type[Exception]
) -> None:
    def fails() -> Any:
        raise broken("no such thing")

    monkeypatch.setattr(jpeg, "_operator", fails)
    monkeypatch.setattr(jpeg, "_decoder", jpeg._decoder.__wrapped__)
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(picture(40, 24)))
    assert torch.equal(open_pixels(path), pillows(path))
    assert taken == [False]


@pytest.mark.slow
def test_torchvision_is_not_imported_and_may_be_later() -> None:
    script = """
import sys
from zoo_images import jpeg, reading
assert jpeg._decoder() is not None
assert "torchvision" not in sys.modules
import torchvision
assert jpeg._decoder.__wrapped__() is not None
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
