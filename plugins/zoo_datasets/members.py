"""Samples of files whose names differ in their ending alone."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zoo_core.errors import DataError, SampleError, describe
from zoo_core.registry import default_registry
from zoo_core.training import Dataset, Sample
from zoo_datasets.config import MembersConfig

__all__ = ["MemberDataset", "json_value", "sample_of"]

Integers = NDArray[np.int64]


class MemberDataset(Dataset):
    """Groups the members of blocks, such as shards, to samples.

    Args:
        config: which endings belong to which modality.
        blocks: for each block its name and its members, with the columns key, ending, offset and size.
    """

    def __init__(self, config: MembersConfig, blocks: Sequence[tuple[str, pa.Table]]) -> None:
        self.config = config
        self.has_ids, self.has_weights = config.id is not None, config.sample_weight is not None
        self._is_text = {name: not default_registry().modality(name).files for name in config.inputs}
        self._names = [name for name, _ in blocks]
        samples = [_samples_of(config, name, members) for name, members in blocks]
        complete = self._whole(samples)
        self._lengths = [len(rows) for rows in complete]
        self._ends = np.cumsum(self._lengths)
        self._keys = [keys.take(pa.array(rows)) for (keys, _), rows in zip(samples, complete, strict=True)]
        self._extents: dict[str, Integers] = {
            ending: np.concatenate(
                [extents[ending][rows] for (_, extents), rows in zip(samples, complete, strict=True)]
            )
            for ending in _endings(config)
        }
        self._digest = _digest(config, blocks)
        if not len(self):
            raise DataError(f"{self._names[0]}: no sample has all of {', '.join(config.inputs)}")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        """Return the sample; its files are read now."""
        try:
            return sample_of(self.config, self._is_text, lambda ending: self._member(index, ending), self._raw)
        except SampleError as error:
            raise SampleError(f"{self.location(index)}: {error}") from None

    def location(self, index: int) -> str:
        """Return block and name of a sample."""
        block, row = self._block(index)
        return f"{self._names[block]}#{self._keys[block][row].as_py()}"

    def blocks(self) -> list[int] | None:
        """Return how many samples each block has."""
        return [length for length in self._lengths if length]

    def variants(self) -> list[int] | None:
        """Return how many inputs each sample has at most; the files that say so are read now."""
        if not any(":" in ending for endings in self.config.inputs.values() for ending in endings):
            return None
        counts: list[int] = []
        for index in range(len(self)):
            try:
                counts.append(max(len(values) for values in self[index].inputs.values()))
            except SampleError:
                counts.append(1)  # it stays a row, and counts as bad there
        return counts

    def digest(self) -> str:
        """Return a hash of names, sizes and places of all members."""
        return self._digest

    @abstractmethod
    def _content(self, block: int, key: str, ending: str, offset: int, size: int) -> Any:
        """Return what a member holds, as bytes, or the path of its file."""

    def _raw(self, content: Any) -> Any:
        """Return a member as an input of a modality that takes files."""
        return content

    def _block(self, index: int) -> tuple[int, int]:
        block = int(np.searchsorted(self._ends, index, side="right"))
        return block, index - int(self._ends[block] - self._lengths[block])

    def _member(self, index: int, ending: str) -> Any:
        """Return what a sample has in the file of an ending; None where it has no such file."""
        offset, size = self._extents[ending][index].tolist()
        if size < 0:
            return None
        block, row = self._block(index)
        return self._content(block, self._keys[block][row].as_py(), ending, offset, size)

    def _whole(self, samples: Sequence[tuple[pa.Array, Mapping[str, NDArray[Any]]]]) -> list[Integers]:
        """Return the rows of each block that have a file, which is not empty, for each modality.

        Raises:
            DataError: others lack one, and are not to be left out.
        """
        complete: list[Integers] = []
        lacking, first = 0, ""
        for name, (keys, extents) in zip(self._names, samples, strict=True):
            whole = np.ones(len(keys), bool)
            for modality, endings in self.config.inputs.items():
                has = np.zeros(len(keys), bool)
                for ending in endings:
                    has |= extents[_file_of(ending)][:, 1] > 0
                if not first and not has.all():
                    listed = " or ".join(dict.fromkeys(map(_file_of, endings)))
                    first = f"{name}#{keys[int(np.argmin(has))].as_py()}: has no {modality} ({listed}), or an empty one"
                whole &= has
            lacking += int((~whole).sum())
            complete.append(np.flatnonzero(whole))
        if lacking and self.config.missing == "refuse":
            total = sum(len(keys) for keys, _ in samples)
            raise DataError(
                f"{first}; it is the first of {lacking:,} such among {total:,} samples. Add what is missing, or leave "
                "them out with missing: skip"
            )
        return complete


def sample_of(config: MembersConfig, is_text: Mapping[str, bool], member: Any, raw: Any) -> Sample:
    """Return the sample that members make up.

    Args:
        config: which endings belong to which modality.
        is_text: whether a modality takes text instead of files.
        member: gives what the member of an ending holds, or None.
        raw: makes an input of what a member holds.

    Raises:
        SampleError: a member that has to be text or JSON is none.
    """
    values: dict[str, Any] = {}

    def content(ending: str) -> Any:
        if ending not in values:
            values[ending] = member(ending)
        return values[ending]

    inputs: dict[str, Any] = {}
    for name, endings in config.inputs.items():
        for ending in endings:
            value = content(_file_of(ending))
            if value is None:
                continue
            if ":" in ending:
                entries = json_value(value, ending)
                inputs[name] = entries if isinstance(entries, list) else [] if entries is None else [entries]
            else:
                inputs[name] = [_text(value, ending) if is_text[name] else raw(value)]
            break
    number = None if config.id is None else json_value(content(_file_of(config.id)), config.id)
    if config.id is not None and number is None:
        raise SampleError(f"has no id at {config.id}")
    weight = (
        1.0
        if config.sample_weight is None
        else json_value(content(_file_of(config.sample_weight)), config.sample_weight)
    )
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise SampleError(f"has the weight {describe(weight)} at {config.sample_weight}; expected a number from 0")
    return Sample(inputs, None if number is None else str(number), float(weight))


def json_value(content: Any, source: str) -> Any:
    """Return the value of a key such as `json:caption` in a file of JSON; None where it has none.

    Raises:
        SampleError: it is no JSON object.
    """
    ending, _, key = source.partition(":")
    if content is None:
        return None
    text = _text(content, ending)
    try:
        data = json.loads(text)
    except ValueError as error:
        raise SampleError(f"its {ending} is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise SampleError(f"its {ending} holds {describe(data)}, expected a mapping with the key '{key}'")
    return cast("dict[str, Any]", data).get(key)


def _text(content: Any, ending: str) -> str:
    data = content if isinstance(content, bytes) else content.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SampleError(f"its {ending} is not UTF-8 text (byte {error.start})") from None


def _file_of(source: str) -> str:
    """Return the ending of the file that `.JPG` or `json:caption` is in."""
    return source.partition(":")[0].removeprefix(".").lower()


def _endings(config: MembersConfig) -> list[str]:
    inputs = [ending for endings in config.inputs.values() for ending in endings]
    return list(dict.fromkeys(map(_file_of, [*inputs, *filter(None, (config.id, config.sample_weight))])))


def _samples_of(config: MembersConfig, name: str, members: pa.Table) -> tuple[pa.Array, dict[str, NDArray[Any]]]:
    """Return the keys of a block's samples, and for each ending offset and size of their members, -1 where none is.

    Raises:
        DataError: a member is there twice, or no ending is.
    """
    encoded = members.column("key").combine_chunks().dictionary_encode()
    keys, samples = encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)
    endings = members.column("ending").combine_chunks()
    endings = endings if isinstance(endings, pa.DictionaryArray) else endings.dictionary_encode()
    names, numbers = endings.dictionary.to_pylist(), endings.indices.to_numpy()
    sizes = np.stack([members.column("offset").to_numpy(), members.column("size").to_numpy()], axis=1)
    extents: dict[str, NDArray[Any]] = {}
    for ending in _endings(config):
        chosen = numbers == (names.index(ending) if ending in names else -1)
        rows = samples[chosen]
        counts = np.bincount(rows, minlength=len(keys))
        if (counts > 1).any():
            raise DataError(f"{name}: holds {keys[int(np.argmax(counts > 1))].as_py()}.{ending} twice")
        extents[ending] = np.full((len(keys), 2), -1, np.int64)
        extents[ending][rows] = sizes[chosen]
    if not any((extent[:, 1] >= 0).any() for extent in extents.values()):
        present = ", ".join(sorted(names)[:12])
        raise DataError(f"{name}: no file ends in {', '.join(_endings(config))}; they end in {present}")
    return keys, extents


def _digest(config: MembersConfig, blocks: Sequence[tuple[str, pa.Table]]) -> str:
    digest = hashlib.sha256(json.dumps([config.inputs, config.id, config.sample_weight, config.choose]).encode())
    for name, members in blocks:
        digest.update(name.rpartition("/")[2].encode("utf-8", "surrogateescape"))
        for column in ("key", "ending"):
            digest.update("\0".join(members.column(column).to_pylist()).encode("utf-8", "surrogateescape"))
        for column in ("offset", "size"):
            digest.update(members.column(column).to_numpy().tobytes())
    return digest.hexdigest()
