"""Tar shards as a stream, from files or from what commands print."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import tarfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from zoo_core.errors import DataError, SampleError
from zoo_core.registry import default_registry
from zoo_core.training import Sample, Stream
from zoo_datasets.config import WebDatasetConfig
from zoo_datasets.files import expand_braces, find_files
from zoo_datasets.members import sample_of
from zoo_datasets.tar_index import member_parts

__all__ = ["TarStream"]

PIPE = "pipe:"


class TarStream(Stream):
    """Pairs in tar shards, in webdataset's form. Each reader takes shards of its own."""

    def __init__(self, config: WebDatasetConfig) -> None:
        self.config = config
        self.has_ids, self.has_weights = config.id is not None, config.sample_weight is not None
        self._is_text = {name: not default_registry().modality(name).files for name in config.inputs}
        commands = [command for path in config.path if path.startswith(PIPE) for command in expand_braces(path)]
        files = [path for path in config.path if not path.startswith(PIPE)]
        self._shards = [*commands, *(str(path) for path in (find_files(files) if files else []))]

    def samples(self, *, seed: int, rank: int, count: int) -> Iterator[Sample]:
        """Yield the samples of a reader's shards, mixed in a buffer."""
        if count > len(self._shards):
            raise DataError(
                f"{self._shards[0]}: {len(self._shards)} shards are too few for {count} readers, each of which takes "
                "shards of its own; set fewer data.workers"
            )
        shards = list(self._shards)
        random.Random(seed).shuffle(shards)
        chance = random.Random(f"{seed} {rank}")
        buffer: list[Sample] = []
        for shard in shards[rank::count]:
            for sample in self._samples_of(shard):
                if len(buffer) < self.config.buffer:
                    buffer.append(sample)
                    continue
                slot = chance.randrange(len(buffer))
                yield buffer[slot]
                buffer[slot] = sample
        chance.shuffle(buffer)
        yield from buffer

    def digest(self) -> str:
        """Return a hash of the names of the shards; what is in them is known only when it comes."""
        return hashlib.sha256(json.dumps([self._shards, self.config.inputs]).encode()).hexdigest()

    def _samples_of(self, shard: str) -> Iterator[Sample]:
        for key, members in _members(shard):
            try:
                yield sample_of(self.config, self._is_text, members.get, lambda content: content)
            except SampleError:
                yield Sample({})  # it counts as bad
            del key


def _members(shard: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the name of each sample of a shard, and what its members hold."""
    key, members = None, dict[str, bytes]()
    try:
        with _opened(shard) as file, tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                parts = member_parts(member.name) if member.isreg() else None
                content = archive.extractfile(member) if parts is not None else None
                if parts is None or content is None:
                    continue
                if parts[0] != key and key is not None:
                    yield key, members
                    members = {}
                key = parts[0]
                members[parts[1]] = content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{shard}: cannot be read, or is truncated: {error}") from error
    if key is not None:
        yield key, members


@contextmanager
def _opened(shard: str) -> Generator[IO[bytes]]:
    """Open a file, or run a command and read what it prints.

    Raises:
        DataError: the command fails.
    """
    if not shard.startswith(PIPE):
        with Path(shard).open("rb") as file:
            yield file
        return
    command = shard.removeprefix(PIPE)
    with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout
        process.stdout.read()
        status = process.wait()
    if status:
        raise DataError(f"{shard}: the command failed with status {status}")
