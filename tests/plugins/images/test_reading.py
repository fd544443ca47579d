"""Pictures that nobody vouches for: colour modes, damaged files, and claims that would fill the memory."""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from support.images import picture
from zoo_core.errors import ImageFileError, InputError
from zoo_images.config import ImageConfig as AnyImageConfig
from zoo_images.preprocessor import ImagePreprocessor
from zoo_images.reading import OpenOptions, _PatientFile, open_image, open_pixels


class ImageConfig(AnyImageConfig):
    """With the engine that gives the published bits; `test_engines.py` compares the other one with it."""

    engine: Literal["torch", "pil"] = "pil"


def grey(mode: str, value: float) -> Image.Image:
    return Image.fromarray(np.full((2, 2), value, {"F": np.float32, "I": np.int32}[mode]))


# What is no image


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "expected a PIL image, a path, the bytes of a file or a uint8 array [H, W, 3], found NoneType"),
        (b"a.png", "is no image of a known format, it begins with b'a.png'"),
        (torch.zeros(3, 8, 8), "found Tensor"),
        (np.zeros((3, 8, 8), np.uint8), "expected a uint8 array [H, W, 3], found uint8 [3, 8, 8]"),
        (np.zeros((8, 8, 3), np.float32), "found float32 [8, 8, 3]"),
        (np.zeros((8, 8, 4), np.uint8), "found uint8 [8, 8, 4]"),
        (np.zeros((8, 8), np.uint8), "found uint8 [8, 8]"),
        (np.zeros((0, 8, 3), np.uint8), "has no pixels (8 x 0 pixels)"),
        (Image.new("RGB", (5, 0)), "has no pixels (5 x 0 pixels)"),
        (Image.new("1", (1, 201)), "has 1 x 201 pixels, more elongated than 200:1; crop it first"),
        (Image.new("1", (8001, 8000)), "has 8001 x 8000 pixels, more than the limit of 64,000,000"),
        (grey("F", 1.5), "has grey values from 1.5 to 1.5 (mode F); allowed: 0 to 1"),
        (grey("F", float("nan")), "has grey values from nan to nan (mode F)"),
        (grey("I", -1), "has grey values from -1 to -1 (mode I); allowed: 0 to 65535"),
        (grey("I", 65_536), "has grey values from 65536 to 65536 (mode I)"),
    ],
)
def test_an_input_that_is_no_usable_image_is_refused(source, message):
    with pytest.raises(InputError) as caught:
        open_image(source)
    assert message in str(caught.value)
    assert not isinstance(caught.value, ImageFileError)


# Colour modes


def test_16_bit_grey_is_scaled_to_8_bits(tmp_path):
    values = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    expected = (values.astype(np.int64) + 128) // 257  # to the nearest; 257 is odd, so nothing is halfway
    for name in ("grey.png", "grey.tif"):
        Image.fromarray(values).save(tmp_path / name)
        for source in (tmp_path / name, Image.fromarray(values), Image.fromarray(values.astype(np.int32))):
            assert (np.asarray(open_image(source)) == expected[..., None]).all()


def test_float_grey_is_scaled_to_8_bits(tmp_path):
    values = np.linspace(0, 1, 511, dtype=np.float32).reshape(7, 73)
    Image.fromarray(values).save(tmp_path / "grey.tif")
    expected = np.rint(values.astype(np.float64) * 255)
    near_half = np.abs(values.astype(np.float64) * 255 % 1 - 0.5) < 1e-4
    found = np.asarray(open_image(tmp_path / "grey.tif"))
    assert (found == expected[..., None])[~near_half].all()
    assert (found[0, 0, 0], found[-1, -1, 0]) == (0, 255)


def test_a_1_bit_picture_is_averaged_not_thresholded():
    checks = Image.fromarray(np.indices((64, 64)).sum(0) % 2 == 1)
    assert checks.mode == "1"
    config = AnyImageConfig(
        mean=(0, 0, 0), std=(1, 1, 1), engine="torch"
    )  # Pillow takes the nearest, and so does 'pil'
    out = ImagePreprocessor(config, image_size=(16, 16))(checks)
    assert out[:, 2:-2, 2:-2].sub(0.5).abs().max() < 0.02


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_other_modes_become_rgb_as_pil_converts_them(mode):
    image = picture(31, 17, "RGB")
    image = image.convert("L").convert(mode) if mode == "LA" else image.convert(mode)
    assert open_image(image).tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("transparency", [3, bytes(range(256))])
def test_transparency_is_dropped_without_a_warning(tmp_path, transparency):
    image = picture(31, 17).quantize(256)
    expected = image.convert("RGB").tobytes()
    image.save(tmp_path / "a.png", transparency=transparency)
    assert open_image(tmp_path / "a.png").tobytes() == expected
    clear = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    assert open_image(clear).getpixel((0, 0)) == (200, 100, 50)


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert open_image(tmp_path / name).getpixel((4, 4)) == (255, 0, 0), name


def test_exif_orientation_is_followed_only_where_the_config_says_so(tmp_path):
    image = picture(40, 24)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the picture is shown after a quarter turn clockwise
    image.save(tmp_path / "a.png", exif=exif)
    frame = {"image_size": (40, 24)}
    upright = ImagePreprocessor(ImageConfig(exif=True), **frame)(tmp_path / "a.png")
    turned = image.transpose(Image.Transpose.ROTATE_270)
    assert torch.equal(upright, ImagePreprocessor(ImageConfig(), **frame)(turned))
    ignored = ImagePreprocessor(ImageConfig(), **frame)(tmp_path / "a.png")
    assert torch.equal(ignored, ImagePreprocessor(ImageConfig(), **frame)(image))


# Files


def encoded(form: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or picture(48, 40)).save(file, form, **options)
    return file.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A small PNG file whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


FORMS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]


@pytest.mark.parametrize("form", FORMS)
def test_every_allowed_format_is_read_whatever_the_file_is_called(tmp_path, form):
    path = tmp_path / "picture.dat"
    path.write_bytes(encoded(form))
    image = open_image(path)
    assert image.mode == "RGB"
    with Image.open(path) as expected:
        assert image.tobytes() == expected.convert("RGB").tobytes()


BAD_FILES: list[tuple[str, bytes, str]] = [
    ("empty.png", b"", "is an empty file, no image"),
    ("page.jpg", b"<!DOCTYPE html><html>", "is no image of a known format, it begins with b'<!DOCTYPE html>"),
    (
        "notes.png",
        b"just some notes",
        "begins with b'just some notes'; allowed: BMP, GIF, JPEG, PNG, PPM",
    ),
    ("pointer.jpg", b"version https://git-lfs.github.com/spec/v1\n", "begins with b'version https://git-lfs"),
    ("icon.png", encoded("ICO"), "is no image of a known format"),
    ("sound.webp", b"RIFF\x24\0\0\0WAVEfmt ", "is no image of a known format"),
    ("bmp.bmp", b"BMW and other cars", "cannot be decoded"),
    ("cut.png", encoded("PNG")[:2000], "cannot be decoded: image file is truncated"),
    ("cut.jpg", encoded("JPEG")[:-300], "cannot be decoded: image file is truncated"),
    ("head.png", encoded("PNG")[:20], "cannot be decoded"),
    ("zero.png", png_claiming(0, 8), "cannot be decoded: not identified by this driver"),
    (
        "large.png",
        png_claiming(13_000, 13_000),
        "13000 x 13000 pixels, more than the limit of 64,000,000",
    ),
    ("bomb.png", png_claiming(2**31 - 1, 2**31 - 1), "more than the limit of 64,000,000; shrink it first"),
    ("long.png", png_claiming(4_000_000, 2), "has 4000000 x 2 pixels, more elongated than 200:1"),
    ("less.png", png_claiming(700, 700), "cannot be decoded: image file is truncated"),
]


@pytest.mark.parametrize("opened", [open_image, open_pixels])
@pytest.mark.parametrize(("name", "data", "message"), BAD_FILES, ids=[row[0] for row in BAD_FILES])
def test_a_bad_file_is_refused_with_its_path_and_the_reason(tmp_path, opened, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ImageFileError) as caught:
        opened(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and message in text
    assert "\n" not in text


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_anywhere_is_refused_or_read_whole(tmp_path, form):
    path, whole = tmp_path / "cut", encoded(form, picture(24, 20))
    path.write_bytes(whole)
    expected = open_image(path).tobytes()
    refused = 0
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        try:
            found = open_image(path).tobytes()
        except ImageFileError:
            refused += 1
        else:
            assert found == expected, length
    assert refused > len(whole) / 13 * 0.9


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_damaged_bytes_raise_nothing_but_an_image_file_error(tmp_path, form):
    random = np.random.default_rng(7)
    path, whole = tmp_path / "damaged", encoded(form, picture(24, 20))
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(random.integers(1, 6)):
            data[random.integers(0, min(len(data), 400))] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            assert open_image(path).mode == "RGB"
        except ImageFileError as error:
            assert str(path) in str(error)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    rows = [
        (tmp_path, "is a directory, expected a regular file"),
        (tmp_path / "pipe.png", "is a device or pipe, expected a regular file"),
        ("/dev/zero", "is a device or pipe, expected a regular file"),
        (tmp_path / "gone.png", "cannot be opened: No such file or directory"),
        (tmp_path / "loop.png", "cannot be opened: Too many levels of symbolic links"),
        (str(tmp_path / "nul\0.png"), "cannot be opened: its name holds a null character"),
        ("https://example.org/a.png", "is a URL, and nothing is fetched; download it and pass the path"),
    ]
    for path, message in rows:
        with pytest.raises(ImageFileError) as caught:
            open_image(path)
        assert str(caught.value) == f"{path}: {message}".replace("\0", r"\x00")


def test_an_image_that_was_opened_elsewhere_is_named_by_its_file(tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(encoded("PNG")[:2000])
    with Image.open(path) as image, pytest.raises(ImageFileError, match=r"cut\.png: cannot be decoded"):
        open_image(image)


# Headers without end


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _written(format: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, format)
    return file.getvalue()


def _endless(format: str, part: bytes, times: int) -> bytes:
    """Return a valid image of a format with `part` so many times where its readers pass it over."""
    whole = _written(format, "P" if format == "GIF" else "RGB")
    at = {"JPEG": 2, "PNG": 33, "GIF": whole.find(b",\0\0\0\0")}[format]
    return whole[:at] + part * times + whole[at:]


ENDLESS = {
    "PPM, a comment": b"P6\n#" + b"x" * 10**6 + b"\n8 8 255\n" + bytes(192),
    "PPM, blanks": b"P6" + b" " * 10**6 + b"8 8 255\n" + bytes(192),
    "JPEG, padding": _endless("JPEG", b"\xff", 10**6),
    "JPEG, empty comments": _endless("JPEG", b"\xff\xfe\0\2", 10**5),
    "PNG, texts": _endless("PNG", _chunk(b"tEXt", b"a\0b"), 10**5),
    "PNG, chunks behind the pixels": _written("PNG")[:-12] + _chunk(b"abcd", b"") * 10**5 + _written("PNG")[-12:],
    "GIF, comments": _endless("GIF", b"\x21\xfe\1x\0", 10**5),
    "GIF, one comment": _endless("GIF", b"\x21\xfe" + b"\1x" * 10**5 + b"\0", 1),
    "TIFF, tags": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 10**5) + struct.pack("<HHQQ", 40000, 4, 1, 1) * 10**5,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_header_in_pieces_without_end_is_refused_at_once(name, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(ENDLESS[name])
    reads = []
    plain = _PatientFile.read
    monkeypatch.setattr(_PatientFile, "read", lambda self, *size: reads.append(1) or plain(self, *size))
    with pytest.raises(ImageFileError, match=r"/a: has (a header|data) in more than 30,000 pieces; save it anew"):
        open_image(tmp_path / "a")
    assert len(reads) <= 30_000 + len(ENDLESS[name]) // 8 + 1


def test_a_header_may_be_read_in_30_000_pieces_and_data_in_more_where_they_are_large():
    file = _PatientFile(io.BytesIO(bytes(100)))
    for _ in range(30_000):
        file.read(0)
    with pytest.raises(InputError, match="has a header in more than 30,000 pieces"):
        file.read(0)
    file = _PatientFile(io.BytesIO(bytes(100)))
    file.in_header = False
    assert len(file.read()) == 100
    for _ in range(29_999 + 100 // 8):
        file.read(0)
    with pytest.raises(InputError, match="has data in more than 30,000 pieces"):
        file.read(0)


def test_a_jpeg_is_decoded_at_the_smallest_fraction_that_is_twice_what_is_needed(tmp_path):
    """libjpeg has 1/2, 1/4 and 1/8."""
    for width, height in ((800, 400), (400, 800)):
        picture(width, height).save(tmp_path / "a.jpg")
        for divisor in (2, 4, 8):
            needed = height // (2 * divisor), width // (2 * divisor)
            size = width // divisor, height // divisor
            assert open_image(tmp_path / "a.jpg", OpenOptions(draft=needed)).size == size
            larger = open_image(tmp_path / "a.jpg", OpenOptions(draft=(needed[0] + 1, needed[1] + 1))).size
            assert larger == (2 * size[0], 2 * size[1])
        assert open_image(tmp_path / "a.jpg").size == (width, height)


def test_long_comments_that_are_read_at_once_are_no_harm(tmp_path):
    (tmp_path / "a.png").write_bytes(_endless("PNG", _chunk(b"tEXt", b"a\0" + b"b" * 10**6), 20))
    (tmp_path / "a.ppm").write_bytes(b"P6\n#" + b"x" * 10_000 + b"\n8 8 255\n" + bytes(192))
    (tmp_path / "a.jpg").write_bytes(_endless("JPEG", b"\xff\xfe\xff\xff" + bytes(65533), 100))
    for name in ("a.png", "a.ppm", "a.jpg"):
        assert open_image(tmp_path / name).size == (8, 8)
