"""The text contract of a model: what its tower and its tokenizer agreed on in training, as data that people can read.

What you would not guess: nobody writes it down. It follows from the configs of both, and the test kit holds a tower to
what its config tells, so it cannot drift from what is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from zoo_core.text.cleaning import CleaningOrNone

__all__ = ["Padding", "PooledAt", "TextContract", "TextReading"]

Padding = Literal["read", "masked", "unreached"]
"""What padding is to a feature: looked at as any token, hidden, or behind all that is looked at."""

PooledAt = Literal["largest id", "end id", "first position", "last position", "class token", "all kept tokens"]
"""Where the feature is read. `class token` is one that the tower appends; kept is what is no padding."""

_PADDING: dict[Padding, str] = {
    "read": "the model looks at it",
    "masked": "hidden from the model",
    "unreached": "behind all that the model looks at",
}
_CLEANING: dict[CleaningOrNone, str] = {
    "lower": "mended, lower case",
    "whitespace": "mended, case kept",
    "canonicalize": "mended, lower case, without ASCII punctuation",
    "none": "left as it is",
}
_NOT_TOLD = "not told by the config"


@dataclass(frozen=True)
class TextReading:
    """How a text tower reads a row; None is what its config does not tell.

    Attributes:
        fixed_length: rows are always encoded whole, as `TextTower.read_lengths` then says by None. Elsewhere a row may
            be cut behind what its feature depends on, without a change of the feature.
        causal: no token depends on later ones.
        padding: what padding is to the feature.
        pooled_at: where the feature is read.
    """

    fixed_length: bool = True
    causal: bool | None = None
    padding: Padding | None = None
    pooled_at: PooledAt | None = None


@dataclass(frozen=True, kw_only=True)
class TextContract(TextReading):
    """What a caption becomes, and how it is read; None is what the configs do not tell.

    Attributes:
        context_length: most ids of a row, special tokens included.
        pad_id: id that fills the rest of a row.
        end_id: id that closes a caption.
        cleaning: how text is normalised; the files of a tokenizer may do more, such as lower case.
        special_tokens_in_text: whether a special token that is spelled out in a caption becomes its id. That is for
            parity with libraries that do it: such a caption can move the place where the feature is read.
    """

    context_length: int
    pad_id: int | None
    end_id: int | None
    cleaning: CleaningOrNone | None
    special_tokens_in_text: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)

    def told(self) -> Iterator[tuple[str, str]]:
        """Yield what each rule is about, and the rule in words."""
        whole = "always whole" if self.fixed_length else "cut behind the last that counts, which changes nothing"
        yield "rows", f"{self.context_length} ids, {whole}"
        padding = _NOT_TOLD if self.padding is None else _PADDING[self.padding]
        yield "padding", padding if self.pad_id is None else f"id {self.pad_id}, {padding}"
        yield "tokens see", {True: "those before them", False: "all others", None: _NOT_TOLD}[self.causal]
        yield "feature at", self._place()
        yield "text", _NOT_TOLD if self.cleaning is None else _CLEANING[self.cleaning]
        special = {True: "become their ids, as in open_clip", False: "are text", None: _NOT_TOLD}
        yield "special tokens in it", special[self.special_tokens_in_text]

    def _place(self) -> str:
        if self.pooled_at in ("largest id", "end id") and self.end_id is not None:
            return f"{self.pooled_at} ({self.end_id})"
        return self.pooled_at or _NOT_TOLD
