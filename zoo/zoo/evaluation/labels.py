"""Labels of zero-shot classification, each with its names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, cast

from zoo.embeddings.inputs import read_captions
from zoo_core.errors import InputError, describe

if TYPE_CHECKING:
    from zoo_core.models.dual_encoder import Scoring

__all__ = ["Labels", "names_of", "parse_labels"]

Labels = Iterable[str] | Mapping[str, str | Sequence[str]] | Mapping[int, str | Sequence[str]]
"""Names, each once; or the name or names of each class by its id, a string or a number."""


def parse_labels(text: str) -> list[str]:
    """Return the labels of `"cat, dog"`, or of `"@labels.txt"`, a file with a label a line, which may hold commas.

    Raises:
        InputError: there is none, or one stands there twice, or the file cannot be read.
    """
    parts = read_captions([text[1:]]) if text.startswith("@") else text.split(",")
    labels = [label.strip() for label in parts if label.strip()]
    if not labels:
        raise InputError(f"labels: expected names with commas between them, such as 'cat,dog', found {describe(text)}")
    if labels[0] == text.strip() and text.endswith(".txt") and Path(labels[0]).is_file():
        raise InputError(f"labels: {describe(labels[0])} is a file; write @{labels[0]} for the labels in it")
    _expect_once(labels)
    return labels


def names_of(labels: Labels, scoring: Scoring) -> dict[str, tuple[str, ...]]:
    """Return the names of each label.

    Raises:
        InputError: they are no labels, one is there twice, or there are too few to choose from.
    """
    if isinstance(labels, Mapping):
        classes = cast("Mapping[object, object]", labels)
        names: dict[str, tuple[str, ...]] = {}
        for label, value in classes.items():
            several = isinstance(value, list | tuple)
            of_label = tuple(cast("Sequence[object]", value)) if several else (value,)
            if not isinstance(label, str | int) or not of_label or not all(isinstance(name, str) for name in of_label):
                raise InputError(
                    "labels: expected a name or a list of names for each id, found "
                    f"{describe(value)} for {describe(label)}"
                )
            names[str(label)] = cast("tuple[str, ...]", of_label)
        if len(names) < len(classes):
            raise InputError("labels: two ids are the same as strings; give each class an id of its own")
    else:
        unordered = isinstance(labels, str | Set)
        values: list[object] = [] if unordered else list(labels)
        if unordered or not all(isinstance(label, str) for label in values):
            raise InputError(
                "labels: expected a list of strings, in the order of the scores, found "
                f"{describe(cast('object', labels))}"
            )
        strings = cast("list[str]", values)
        _expect_once(strings)
        names = {label: (label,) for label in strings}
    if not names or (scoring == "softmax" and len(names) == 1):  # a softmax over one label is always 1
        least = "two" if scoring == "softmax" else "one"
        raise InputError(f"labels: expected at least {least} to choose from, found {len(names)}")
    return names


def _expect_once(labels: list[str]) -> None:
    twice = sorted(label for label, count in Counter(labels).items() if count > 1)
    if twice:
        several = f"{', '.join(twice[:6])} {'is' if len(twice) == 1 else 'are'} there twice"
        raise InputError(
            f"labels: {several}; give each label once, or, where they are different classes, a mapping from ids to "
            "names, such as dict(enumerate(labels))"
        )
