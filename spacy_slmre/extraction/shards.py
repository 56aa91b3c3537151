"""A corpus in shards of n documents: where each starts, and which are finished.

The run folder of an unfinished output `relations.jsonl`, `relations.jsonl.part/`, contains:

    run_key.json      identifies the run (see util/run_folder.py)
    shards.json       position and number of documents of each shard; never changes
    finished.jsonl    one line for each finished shard
    results/          their results: 00000.jsonl, or 00000.spacy with 00000.json
    attempts/         one folder for each shard that is being computed
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any

from spacy_slmre.extraction.inputs import ExtractionError, Position, open_docbin, open_input, open_table
from spacy_slmre.extraction.outputs import write_results
from spacy_slmre.util.io import atomic_write, remove
from spacy_slmre.util.run_folder import RUN_FILE, partial_dir

MAX_SHARDS = 100_000
"""File names have five digits, so that alphabetical order is the order of the shards."""


@dataclass(frozen=True)
class Shard:
    """Consecutive documents that are computed together: its index, first position and number of documents."""

    number: int
    start: Position
    documents: int


@dataclass(frozen=True)
class ShardResult:
    """Counts of a finished shard; `bytes` is the size of its result file."""

    shard: int
    documents: int
    failed: int
    relations: int
    bytes: int


def find_shards(inputs: Sequence[tuple[str, str]], size: int, text_field: str = "text") -> Iterator[Shard]:
    """Split inputs into shards of `size` documents; the same inputs give the same shards.

    Reads line files to count their lines and opens tables and `.spacy` files, but parses no text.

    Args:
        inputs: Files with their formats, without standard input.
        size: Documents per shard; the last one may have fewer.
        text_field: Column of the text in tables.

    Raises:
        ExtractionError: A file is damaged.
    """
    positions = _find_documents(inputs, text_field)
    for number in count():
        shard = list(islice(positions, size))
        if not shard:
            return
        yield Shard(number, shard[0], len(shard))


def _find_documents(inputs: Sequence[tuple[str, str]], text_field: str) -> Iterator[Position]:
    for index, (path, format) in enumerate(inputs):
        if format == "txt":
            yield Position(index)
        elif format == "spacy":
            yield from (Position(index, item) for item in range(len(open_docbin(path))))
        elif format == "parquet":
            with open_table(path, text_field) as table:
                yield from (Position(index, item) for item in range(table.metadata.num_rows))
        else:
            offset = 0
            with open_input(path) as stream:
                for number, line in enumerate(stream):
                    if line.strip():
                        yield Position(index, number, offset)
                    offset += len(line)


class ShardFolder:
    """The shards of an unfinished output, in its run folder.

    Args:
        output: Output with the suffix `.jsonl` or `.spacy`.
    """

    def __init__(self, output: Path) -> None:
        self.suffix = output.suffix
        self.path = partial_dir(output)
        self.results = self.path / "results"
        self.attempts = self.path / "attempts"
        self._plan = self.path / "shards.json"
        self._finished = self.path / "finished.jsonl"

    def prepare(self) -> None:
        """Create the folders and forget earlier attempts to compute a shard."""
        self.results.mkdir(exist_ok=True)
        remove(self.attempts)
        self.attempts.mkdir()

    def plan(self, inputs: Sequence[tuple[str, str]], size: int, text_field: str = "text") -> None:
        """Split the inputs, unless an earlier run has done so; the arguments are those of `find_shards`.

        Raises:
            ExtractionError: An input is damaged, or there are too many shards.
        """
        if self._plan.exists():
            return
        found = find_shards(inputs, size, text_field)
        shards = [[*astuple(shard.start), shard.documents] for shard in found]
        if len(shards) > MAX_SHARDS:
            documents = sum(shard[-1] for shard in shards)
            raise ExtractionError(
                f"{documents} documents in shards of {size} are more than {MAX_SHARDS} shards. Set the shard "
                f"size to at least {-(-documents // MAX_SHARDS)}."
            )
        atomic_write(self._plan, json.dumps(shards))

    @cached_property
    def shards(self) -> list[Shard]:
        """All shards in order; empty if the input is a stream."""
        plan = json.loads(self._plan.read_bytes()) if self._plan.exists() else []
        return [Shard(number, Position(*start), documents) for number, (*start, documents) in enumerate(plan)]

    def finished(self) -> dict[int, ShardResult]:
        """Return all recorded results whose files exist with the recorded size."""
        results = {}
        for line in self._finished.read_bytes().splitlines() if self._finished.exists() else ():
            try:
                result = ShardResult(**json.loads(line))
            except (ValueError, TypeError):  # the line was cut off when the run was interrupted
                continue
            file = self._result_file(result.shard)
            if file.exists() and file.stat().st_size == result.bytes:
                results[result.shard] = result
        return results

    def record(self, result: ShardResult) -> None:
        """Record a finished shard."""
        with self._finished.open("ab") as stream:
            # Starts with a newline, because the last line of an interrupted run may have none.
            stream.write(b"\n" + json.dumps(asdict(result)).encode())
            stream.flush()
            os.fsync(stream.fileno())

    def store(self, number: int, file: Path) -> int:
        """Move a complete result into `results` and return its size in bytes."""
        target = self._result_file(number)
        if self.suffix == ".spacy":
            os.replace(file.with_suffix(".json"), target.with_suffix(".json"))
        os.replace(file, target)
        return target.stat().st_size

    def _result_file(self, number: int) -> Path:
        return self.results / f"{number:05}{self.suffix}"

    def join(self, shards: int, record: Mapping[str, Any]) -> Path:
        """Concatenate all results and return the file or folder to publish.

        Args:
            shards: Number of shards.
            record: Content of `run.json` in a `.spacy` output.
        """
        if self.suffix == ".spacy":
            if not shards:
                write_results([], self._result_file(0))
            atomic_write(self.results / RUN_FILE, json.dumps(record, indent=2))
            return self.results
        joined = self.path / "joined.jsonl"
        with joined.open("wb") as whole:
            for number in range(shards):
                with self._result_file(number).open("rb") as part:
                    shutil.copyfileobj(part, whole)
            whole.flush()
            os.fsync(whole.fileno())
        return joined
