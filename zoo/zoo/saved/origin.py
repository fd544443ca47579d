"""Schema of `zoo.json`: versions, parts, digests and probe of a saved model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from zoo_core.config import Config
from zoo_core.config.fields import FileName, Sha256

__all__ = ["FORMAT", "ImageProbe", "Origin", "Probe", "SavedFile", "TextProbe", "ValuesProbe"]

FORMAT = 2

LACKING = "it is not in the probe"


class SavedFile(Config):
    """What a file was when it was saved."""

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Environment(Config):
    """Where the features of a probe were computed."""

    torch: str
    pillow: str
    device: str
    dtype: Literal["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Ids = Annotated[list[TokenId], Field(min_length=1)]
Rows = Annotated[list[list[float]], Field(min_length=1, max_length=64)]


class _Recorded(Config):
    """One side of a probe: what was recorded, or why nothing was."""

    unavailable: str | None = None
    features: Rows | None = None

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold the side to one of the two, and its rows to one length."""
        yield from super().rules()
        lacking = [key for key in type(self).model_fields if key != "unavailable" and getattr(self, key) is None]
        if self.unavailable is None and lacking:
            yield lacking[0], "required key is missing"
        if len({len(row) for row in self.features or ()}) > 1:
            yield "features", "its rows differ in length"


Values = Annotated[list[float], Field(min_length=1, max_length=4096)]


class ValuesProbe(_Recorded):
    """Some values of prepared inputs, evenly spaced, and the features."""

    key: ClassVar[str] = "values"
    unit: ClassVar[str] = "value"

    values: Values | None = None


class ImageProbe(_Recorded):
    """The picture, preprocessed, and its feature."""

    key: ClassVar[str] = "pixels"
    unit: ClassVar[str] = "pixel"

    pixels: Values | None = None


class TextProbe(_Recorded):
    """The captions, their ids and their features."""

    captions: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(min_length=1, max_length=64)] | None = None
    ids: Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=64)] | None = (
        None
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold captions, ids and features to one number, and rows to one length."""
        yield from super().rules()
        if len({len(row) for row in self.ids or ()}) > 1:
            yield "ids", "its rows differ in length"
        counts = {len(rows) for rows in (self.captions, self.ids, self.features) if rows is not None}
        if len(counts) > 1:
            yield "captions", f"{len(self.captions or ())} captions, but other numbers of ids or features"


class Probe(Config):
    """What the model made of fixed inputs of each modality."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ValuesProbe]  # pyright: ignore[reportIncompatibleVariableOverride]

    environment: Environment
    image: ImageProbe = ImageProbe(unavailable=LACKING)
    text: TextProbe = TextProbe(unavailable=LACKING)

    def of(self, modality: str) -> ImageProbe | TextProbe | ValuesProbe:
        """Return what was recorded of a modality."""
        return getattr(self, modality, ValuesProbe(unavailable=LACKING))


class Source(Config):
    """Where the weights came from."""

    architecture: str | None = None
    tag: str | None = None
    license: str | None = None
    repo: str | None = None
    file: str | None = None
    commit: str | None = None
    sha256: Sha256 | None = None


class Origin(Config):
    """The whole of `zoo.json`."""

    format: int
    versions: dict[str, str]
    parts: dict[str, str]
    files: dict[FileName, SavedFile]
    digest: Sha256
    source: Source | None = None
    lacking: dict[str, str] = {}
    probe: Probe | None = None

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold config and weights to a digest."""
        yield from super().rules()
        yield from (
            ("files", f"has no digest of {name}")
            for name in ("config.yaml", "model.safetensors")
            if name not in self.files
        )
