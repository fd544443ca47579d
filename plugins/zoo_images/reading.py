"""Reader of untrusted image files.

Every file becomes an 8-bit image, or one error that names it.

`Image.open` is not used: it warns about large images before their size can be looked at, and silencing a
warning is not thread-safe. The reader is chosen by the first bytes, whatever the file is called.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
import torch
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from zoo_core.errors import InputError, one_of
from zoo_core.images import MAX_PIXELS, ImageLike
from zoo_images import jpeg
from zoo_images.limits import check_size, refusal

__all__ = [
    "MAX_BYTES",
    "OpenOptions",
    "as_rgb",
    "open_image",
    "open_pixels",
]

MAX_BYTES = 2**28
"""Larger JPEG files are not read into memory; Pillow decodes them piece by piece."""

HEADER_READS = 30_000
"""Headers that take more reads than this are refused: Pillow reads comments byte by byte, and chunks one by one."""

READ_BYTES = 8
"""Fewer bytes to a read than this, on average, are no image but chunks of nothing."""

Opened = TypeVar("Opened")

_READERS: dict[str, tuple[type[ImageFile.ImageFile], tuple[bytes, ...]]] = {
    "BMP": (BmpImagePlugin.BmpImageFile, (b"BM",)),
    "GIF": (GifImagePlugin.GifImageFile, (b"GIF87a", b"GIF89a")),
    "JPEG": (JpegImagePlugin.JpegImageFile, (b"\xff\xd8\xff",)),
    "PNG": (PngImagePlugin.PngImageFile, (b"\x89PNG\r\n\x1a\n",)),
    "PPM": (PpmImagePlugin.PpmImageFile, (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")),
    "TIFF": (TiffImagePlugin.TiffImageFile, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    "WEBP": (WebPImagePlugin.WebPImageFile, (b"RIFF",)),
}


@dataclass(frozen=True)
class OpenOptions:
    """How image files are opened.

    Attributes:
        exif: turn them as their EXIF orientation says.
        draft: height and width that they are needed in; a JPEG file may be decoded at a fraction of its size that is at
            least twice that.
        alpha: what becomes of transparency; see `ColourConfig`.
        max_pixels: larger images are refused.
    """

    exif: bool = False
    draft: tuple[int, int] | None = None
    alpha: str = "ignore"
    max_pixels: int = MAX_PIXELS


PLAIN = OpenOptions()


def open_image(source: ImageLike, options: OpenOptions = PLAIN) -> Image.Image:
    """Return an image as a decoded PIL image of mode RGB; with alpha 'drop' in its own mode of 8 bits or one.

    16-bit grey (0..65535) and float grey (0..1) are scaled to 8 bits, which PIL's own conversion would clip. Of an
    animation the first frame is taken. A truncated file is refused, unless Pillow's global
    `ImageFile.LOAD_TRUNCATED_IMAGES` was set.

    Args:
        source: a PIL image, the path of a regular file (BMP, GIF, JPEG, PNG, PPM, TIFF or WebP), what such a file
            holds, or a uint8 array `[H, W, 3]`.
        options: what is done with it.

    Raises:
        ImageFileError: the file cannot be read as an image; its path and the reason are named.
        InputError: `source` is none of these, or an image that cannot be used.
    """
    return _opened(source, options, lambda image, _: _decoded(image, options))


def open_pixels(source: ImageLike, options: OpenOptions = PLAIN) -> torch.Tensor:
    """Return what `open_image` does as uint8 pixels `[3, H, W]`, channels last in memory; JPEG files come faster.

    With alpha 'drop', images that have an alpha channel are `[4, H, W]`.
    """

    def pixels(image: Image.Image, data: bytes | None) -> torch.Tensor:
        if data is not None and not (options.exif and image.getexif().get(ExifTags.Base.Orientation, 1) != 1):
            decoded_pixels = jpeg.decode(data, image)
            if decoded_pixels is not None:
                return decoded_pixels
        decoded = _decoded(image, options)
        decoded = decoded.convert("RGBA") if "A" in decoded.getbands() else as_rgb(decoded)
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1)

    return _opened(source, options, pixels)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB; what is transparent shows the colours below."""
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # straight to RGB gives the same pixels and a warning
    return image if image.mode == "RGB" else image.convert("RGB")


def _opened(source: ImageLike, options: OpenOptions, decode: Callable[[Image.Image, bytes | None], Opened]) -> Opened:
    """Return what `decode` makes of an image and of the JPEG file, if it is one and to be decoded whole."""
    try:
        if isinstance(source, str | os.PathLike):
            return _from_path(os.fspath(source), options, decode)
        if isinstance(source, bytes):
            return _from_file(io.BytesIO(source), len(source), "", options, decode)
        if isinstance(source, Image.Image):
            check_size(source.width, source.height, options.max_pixels)
            return decode(source, None)
        if isinstance(source, np.ndarray):
            if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
                raise InputError(f"expected a uint8 array [H, W, 3], found {source.dtype} {list(source.shape)}")
            check_size(source.shape[1], source.shape[0], options.max_pixels)
            return decode(Image.fromarray(source), None)
        allowed = "a PIL image, a path, the bytes of a file or a uint8 array [H, W, 3]"
        raise InputError(f"expected {allowed}, found {type(source).__name__}")
    except InputError as error:
        raise refusal(source, str(error)) from None
    except Exception as error:  # on damaged bytes Pillow raises nearly anything, struct.error included
        reason = " ".join(str(error).split()) or type(error).__name__
        raise refusal(source, f"cannot be decoded: {reason}") from error


def _from_path(path: str, options: OpenOptions, decode: Callable[[Image.Image, bytes | None], Opened]) -> Opened:
    if "://" in path:
        raise InputError("is a URL, and nothing is fetched; download it and pass the path")
    with _file(path) as file:
        return _from_file(file, os.fstat(file.fileno()).st_size, path, options, decode)


def _from_file(
    file: BinaryIO, size: int, path: str, options: OpenOptions, decode: Callable[[Image.Image, bytes | None], Opened]
) -> Opened:
    reader = _reader(file.read(24))
    file.seek(0)
    data = file.read() if reader is JpegImagePlugin.JpegImageFile and size <= MAX_BYTES else None
    patient = _PatientFile(file if data is None else io.BytesIO(data))
    image = reader(cast("BinaryIO", patient), path)
    patient.in_header = False
    check_size(image.width, image.height, options.max_pixels)
    before = image.size
    if options.draft is not None:  # readers of other formats pass it over
        image.draft("RGB", (2 * options.draft[1], 2 * options.draft[0]))
    return decode(image, data if image.size == before else None)


class _PatientFile:
    """A file that ends the patience with its reader where that takes it in pieces without end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._reads, self._bytes = file, 0, 0
        self.in_header = True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._reads, self._bytes = self._reads + 1, self._bytes + len(data)
        if self._reads > HEADER_READS + (0 if self.in_header else self._bytes // READ_BYTES):
            part = "a header" if self.in_header else "data"
            raise InputError(f"has {part} in more than {HEADER_READS:,} pieces; save it anew without its comments")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _file(path: str) -> BinaryIO:
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISREG(mode):  # merely opening a FIFO would wait for its writer
            return Path(path).open("rb")
    except OSError as error:
        raise InputError(f"cannot be opened: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError("cannot be opened: its name holds a null character") from error
    raise InputError(f"is {'a directory' if stat.S_ISDIR(mode) else 'a device or pipe'}, expected a regular file")


def _reader(head: bytes) -> type[ImageFile.ImageFile]:
    """Return the class that reads files which begin with `head`."""
    if not head:
        raise InputError("is an empty file, no image")
    for reader, signatures in _READERS.values():
        if head.startswith(signatures) and (head[:4] != b"RIFF" or head[8:12] == b"WEBP"):
            return reader
    raise InputError(f"is no image of a known format, it begins with {head!r}; {one_of(_READERS)}")


def _decoded(image: Image.Image, options: OpenOptions) -> Image.Image:
    """Decode an image, of which nothing but the header was read, and convert it."""
    image.load()
    if options.exif:
        image = ImageOps.exif_transpose(image)
    laid_on = options.alpha if options.alpha in ("black", "white") else None
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bit(image, transparent=laid_on is not None)
    elif image.mode == "PA":
        image = image.convert("RGBA")
    if laid_on is not None and ("A" in image.getbands() or image.info.get("transparency") is not None):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, laid_on), image)
    return image if options.alpha == "drop" else as_rgb(image)


def _eight_bit(image: Image.Image, *, transparent: bool) -> Image.Image:
    """Return grey of 0..65535, or of 0..1 where it is in floats, as 8-bit grey, on request with an alpha channel."""
    pixels, greatest = np.asarray(image), 1 if image.mode == "F" else 65_535
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= greatest):  # NaN fails too
        raise InputError(f"has grey values from {low:g} to {high:g} (mode {image.mode}); allowed: 0 to {greatest}")
    grey = Image.fromarray(np.rint(pixels * (255 / greatest)).astype(np.uint8))
    clear = image.info.get("transparency")  # the one value that is transparent
    if transparent and clear is not None:
        grey.putalpha(Image.fromarray(np.where(pixels == clear, 0, 255).astype(np.uint8)))
    return grey
