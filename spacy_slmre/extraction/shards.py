"""Shards of n documents: where each one starts, and which are finished.

The run folder of an unfinished output `relations.jsonl`, `relations.jsonl.part/`, contains:

    run_key.json      identifies the run (see util/run_folder.py)
    stdin             a copy of standard input, if several processes read it
    shards.json       number of documents of each input, and the start and number of documents of each shard; never
                      changes
    finished.jsonl    one line for each finished shard
    results/          their results: 00000.jsonl, or 00000.spacy with 00000.json
    attempts/         one folder for each shard in progress, and for each crashed attempt
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any, BinaryIO

from spacy_slmre.extraction.inputs import ExtractionError, Position, open_docbin, open_input, open_table
from spacy_slmre.extraction.outputs import write_results
from spacy_slmre.util.io import atomic_write, remove, shard_name, sync
from spacy_slmre.util.run_folder import RUN_FILE, partial_dir

MAX_SHARDS = 100_000
"""Maximum number of shards of files; more would only cost time and memory."""


@dataclass(frozen=True)
class Shard:
    """Consecutive documents that are computed together."""

    number: int
    start: Position
    documents: int


@dataclass(frozen=True)
class ShardResult:
    """Counts of a finished shard; `bytes` is the size of its result files."""

    shard: int
    documents: int
    failed: int
    relations: int
    bytes: int


def find_shards(
    inputs: Sequence[tuple[str, str]],
    size: int,
    text_field: str = "text",
    stdin: Path | None = None,
    counts: Counter[int] | None = None,
) -> Iterator[Shard]:
    """Split inputs into shards of `size` documents; the same inputs always give the same shards.

    Line-based files are read to count their lines, tables and `.spacy` files are opened, but no documents are parsed.

    Args:
        inputs: Files with their formats.
        size: Documents per shard; the last one may have fewer.
        text_field: Text column of tables.
        stdin: A file with a copy of standard input, if it is an input.
        counts: Counts the documents of each input, by its index.

    Raises:
        ExtractionError: A file is damaged.
    """
    positions = _find_documents(inputs, text_field, stdin)
    for number in count():
        shard = list(islice(positions, size))
        if not shard:
            return
        if counts is not None:
            counts.update(position.input for position in shard)
        yield Shard(number, shard[0], len(shard))


def _find_documents(
    inputs: Sequence[tuple[str, str]], text_field: str, stdin: Path | None = None
) -> Iterator[Position]:
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
            with open_input(path, stdin) as stream:
                for number, line in enumerate(stream):
                    if line.strip():
                        yield Position(index, number, offset)
                    offset += len(line)


class ShardFolder:
    """The shards of an unfinished `.jsonl` or `.spacy` output, in its run folder."""

    def __init__(self, output: Path) -> None:
        self.suffix = output.suffix
        self.path = partial_dir(output)
        self.results = self.path / "results"
        self.attempts = self.path / "attempts"
        self._plan = self.path / "shards.json"
        self._finished = self.path / "finished.jsonl"

    def prepare(self) -> None:
        """Create the folders, and delete earlier attempts."""
        self.results.mkdir(exist_ok=True)
        remove(self.attempts)
        self.attempts.mkdir()

    def copy_stdin(self, stdin: BinaryIO) -> Path:
        """Copy standard input to a file and return its path."""
        file = self.path / "stdin"
        with file.open("wb") as copy:
            shutil.copyfileobj(stdin, copy)
        return file

    def plan(
        self, inputs: Sequence[tuple[str, str]], size: int, text_field: str = "text", stdin: Path | None = None
    ) -> None:
        """Split the inputs, unless an interrupted run has already done so; arguments as in `find_shards`.

        Raises:
            ExtractionError: An input is damaged, or there are too many shards.
        """
        if self._plan.exists():
            return
        counts: Counter[int] = Counter()
        found = find_shards(inputs, size, text_field, stdin, counts)
        shards = [[*astuple(shard.start), shard.documents] for shard in found]
        if len(shards) > MAX_SHARDS:
            raise ExtractionError(
                f"{counts.total()} documents in shards of {size} make more than {MAX_SHARDS} shards. Set the shard "
                f"size to at least {-(-counts.total() // MAX_SHARDS)}."
            )
        plan = {"inputs": [counts[index] for index in range(len(inputs))], "shards": shards}
        atomic_write(self._plan, json.dumps(plan))

    @cached_property
    def shards(self) -> list[Shard]:
        """All shards in order; empty if standard input is read."""
        planned = self._read_plan().get("shards", [])
        return [Shard(number, Position(*start), documents) for number, (*start, documents) in enumerate(planned)]

    def counts_from(self, number: int) -> list[int]:
        """Return the number of documents of each input from the start of a shard on, beginning with its first input."""
        first = self.shards[number].start.input
        before = sum(shard.documents for shard in self.shards[:number])
        return [sum(self._counts[: first + 1]) - before, *self._counts[first + 1 :]]

    @cached_property
    def _counts(self) -> list[int]:
        return self._read_plan()["inputs"]

    def _read_plan(self) -> dict[str, Any]:
        return json.loads(self._plan.read_bytes()) if self._plan.exists() else {}

    def finished(self) -> dict[int, ShardResult]:
        """Return the recorded results that are stored completely, by shard number; the others must be computed."""
        results = {}
        for line in self._finished.read_bytes().splitlines() if self._finished.exists() else ():
            try:
                result = ShardResult(**json.loads(line))
            except (ValueError, TypeError):  # the line was cut off when the run was interrupted
                continue
            if self._is_stored(result) and self._is_planned(result):
                results[result.shard] = result
        return results

    def record(self, result: ShardResult) -> None:
        """Record a finished shard."""
        with self._finished.open("ab") as stream:
            # Start with a newline, because an interrupted run may have left an incomplete last line.
            stream.write(b"\n" + json.dumps(asdict(result)).encode())
            sync(stream)

    def store(self, number: int, file: Path) -> int:
        """Move a complete result file into `results` and return its size in bytes."""
        targets = self._result_files(number)
        for target in targets:
            os.replace(file.with_suffix(target.suffix), target)
        return sum(target.stat().st_size for target in targets)

    def _result_files(self, number: int) -> list[Path]:
        suffixes = (".json", ".spacy") if self.suffix == ".spacy" else (self.suffix,)
        return [self.results / f"{shard_name(number)}{suffix}" for suffix in suffixes]

    def _is_stored(self, result: ShardResult) -> bool:
        files = self._result_files(result.shard)
        return all(map(Path.exists, files)) and sum(file.stat().st_size for file in files) == result.bytes

    def _is_planned(self, result: ShardResult) -> bool:
        shards = self.shards
        return not shards or (result.shard < len(shards) and result.documents == shards[result.shard].documents)

    def join(self, results: Mapping[int, ShardResult], record: Mapping[str, Any]) -> Path:
        """Concatenate the results of all shards and return the file or folder to publish.

        In a `.spacy` output, `record` and the sizes of all files are written to `run.json`.

        Raises:
            ExtractionError: A result was removed or changed since it was stored.
        """
        if damaged := [number for number, result in results.items() if not self._is_stored(result)]:
            raise ExtractionError(
                f"{len(damaged)} of {len(results)} results in {self.results} were removed or changed while the run "
                "finished. Repeat the command to compute them again."
            )
        if self.suffix == ".spacy":
            if not results:
                write_results([], self.results / f"{shard_name(0)}.spacy")
            files = {file.name: file.stat().st_size for file in sorted(self.results.glob("*.*")) if file.stem != "run"}
            atomic_write(self.results / RUN_FILE, json.dumps({**record, "files": files}, indent=2))
            return self.results
        joined = self.path / "joined.jsonl"
        with joined.open("wb") as output:
            for number in range(len(results)):
                with self._result_files(number)[0].open("rb") as result_file:
                    shutil.copyfileobj(result_file, output)
            sync(output)
        return joined


def check_complete(output: Path, record: Mapping[str, Any]) -> None:
    """Check that all files of a finished `.spacy` output are there and have the sizes in its `run.json`.

    Raises:
        ExtractionError: A file is missing or has another size.
    """
    sizes = record.get("files", {})
    files = {name: output / name for name in sizes}
    damaged = [name for name, file in files.items() if not file.exists() or file.stat().st_size != sizes[name]]
    if damaged:
        raise ExtractionError(
            f"{output} is incomplete: {', '.join(damaged[:3])}{' …' * (len(damaged) > 3)} was removed or changed after "
            "the run. Start over with overwrite."
        )
