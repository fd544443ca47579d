"""Text contract of a model: token layout, padding and pooling.

These are what text tower and tokenizer agreed on in training. The contract is computed from their configs, and the test
kit checks a tower against its config, so the contract says what is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from zoo_core.text.cleaning import CleaningOrNone

__all__ = ["Padding", "PooledAt", "TextContract", "TextReading"]

Padding = Literal["read", "masked", "unreached"]
"""How padding takes part in a feature: attended to as any token, masked, or out of reach of causal attention."""

PooledAt = Literal["largest id", "end id", "first position", "last position", "class token", "all kept tokens"]
"""The position that is pooled. The tower appends a `class token`; kept tokens are those that are no padding."""

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
_UNKNOWN = "not told by the config"


@dataclass(frozen=True)
class TextReading:
    """How a text tower reads a row of ids; None is what its config leaves open.

    Attributes:
        fixed_length: rows are always encoded whole, and `TextTower.read_lengths` returns None. Otherwise a row may be
            cut behind what its feature depends on, which does not change the feature.
        causal: no token depends on later ones.
        padding: how padding takes part in the feature.
        pooled_at: the position that is pooled.
    """

    fixed_length: bool = True
    causal: bool | None = None
    padding: Padding | None = None
    pooled_at: PooledAt | None = None


@dataclass(frozen=True, kw_only=True)
class TextContract(TextReading):
    """What a caption becomes, and how it is read; None is what the configs leave open.

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

    def sentences(self) -> Iterator[tuple[str, str]]:
        """Yield the subject of each rule, and the rule in words."""
        whole = "always whole" if self.fixed_length else "cut behind the last that counts, which changes nothing"
        yield "rows", f"{self.context_length} ids, {whole}"
        padding = _UNKNOWN if self.padding is None else _PADDING[self.padding]
        yield "padding", padding if self.pad_id is None else f"id {self.pad_id}, {padding}"
        yield "tokens see", {True: "those before them", False: "all others", None: _UNKNOWN}[self.causal]
        pooled_at = self.pooled_at or _UNKNOWN
        if self.pooled_at in ("largest id", "end id") and self.end_id is not None:
            pooled_at = f"{self.pooled_at} ({self.end_id})"
        yield "feature at", pooled_at
        yield "text", _UNKNOWN if self.cleaning is None else _CLEANING[self.cleaning]
        special = {True: "become their ids, as in open_clip", False: "are text", None: _UNKNOWN}
        yield "special tokens in it", special[self.special_tokens_in_text]
