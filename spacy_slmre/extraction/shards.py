"""A corpus in shards of n documents: where they begin, and which of them are done.

Beside an output `relations.jsonl` that is being made lies the folder `relations.jsonl.shards`:

    manifest.json   what run it is, and where each shard begins in the inputs; it never changes
    done.jsonl      a line for each shard that is done
    documents/      their results: 00000.jsonl, or 00000.spacy with 00000.json
    attempts/       a folder for each shard that is being computed
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from spacy_slmre.extraction.sources import ExtractionError, Position, open_docs, open_table
from spacy_slmre.extraction.writers import another_run, begin_output, make_writer, remove
from spacy_slmre.util.io import atomic_replace, atomic_write

MOST_SHARDS = 100_000
"""Their names have five digits, which sort as they count."""


@dataclass(frozen=True)
class Shard:
    """Documents that are computed together.

    Attributes:
        number: Its place among the shards, from 0.
        start: Where its first document is.
        documents: How many there are.
    """

    number: int
    start: Position
    documents: int


@dataclass(frozen=True)
class Tally:
    """What came of a shard.

    Attributes:
        shard: Its number.
        documents: Documents in it.
        failed: How many of them failed.
        relations: Relations that were found.
        bytes: Size of its results.
    """

    shard: int
    documents: int
    failed: int
    relations: int
    bytes: int


def find_shards(
    inputs: Sequence[tuple[str, str]], size: int, text_field: str = "text", id_field: str = "id"
) -> Iterator[Shard]:
    """Where every n-th document is; the same inputs give the same shards.

    Lines are counted by reading their file, rows and `.spacy` documents by opening theirs; no text is parsed.

    Args:
        inputs: Files with their formats; none may be standard input.
        size: Documents a shard; the last one may hold fewer.
        text_field: Column of the text in tables.
        id_field: Column of the id in tables.

    Raises:
        ExtractionError: A file is damaged.
    """
    start, held, number = Position(), 0, 0
    for position, documents in _runs(inputs, text_field, id_field):
        while documents:
            if not held:
                start = position
            taken = min(documents, size - held)
            held, documents = held + taken, documents - taken
            position = Position(position.input, position.items + taken)
            if held == size:
                yield Shard(number, start, held)
                held, number = 0, number + 1
    if held:
        yield Shard(number, start, held)


def _runs(
    inputs: Sequence[tuple[str, str]], text_field: str, id_field: str
) -> Iterator[tuple[Position, int]]:
    """Positions with how many documents follow; lines one by one, as each has an offset of its own."""
    for index, (path, format) in enumerate(inputs):
        if format == "txt":
            yield Position(index), 1
        elif format == "spacy":
            yield Position(index), len(open_docs(path))
        elif format == "parquet":
            with open_table(path, text_field, id_field)[0] as table:
                yield Position(index), table.metadata.num_rows
        else:
            offset = 0
            with Path(path).open("rb") as stream:
                for number, line in enumerate(stream):
                    if line.strip():
                        yield Position(index, number, offset), 1
                    offset += len(line)


class ShardFolder:
    """The shards of an output that is being made.

    Args:
        output: What is made: its name ends with .jsonl or .spacy.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(output.name + ".shards")
        self.documents = self.path / "documents"
        self.attempts = self.path / "attempts"

    def begin(
        self,
        run: dict[str, Any],
        inputs: Sequence[tuple[str, str]],
        size: int,
        text_field: str,
        id_field: str,
        *,
        restart: bool = False,
        overwrite: bool = False,
    ) -> bool:
        """Plan the shards, or take up what an interrupted run of the same kind has left.

        Args:
            run: What makes two runs the same: pipeline, inputs and size of shards, as plain data.
            inputs: Files with their formats.
            size: Documents a shard.
            text_field: Field or column of the text.
            id_field: Field or column of the id.
            restart: Throw away what an interrupted run has left.
            overwrite: Replace an output that is there.

        Returns:
            Whether an interrupted run goes on.

        Raises:
            ExtractionError: The output exists, cannot be written, or was begun by another run; an input is
                damaged; or there would be more shards than names for them.
        """
        make_writer(self.output)  # refuses other endings
        others = [self.output.with_name(self.output.name + rest) for rest in (".part", ".part-of")]
        begin_output(self.output, overwrite=overwrite, restart=restart, others=others)
        if restart:
            remove(self.path)
        goes_on = self._manifest_file.exists()
        try:
            self.documents.mkdir(parents=True, exist_ok=True)
            remove(self.attempts)
            self.attempts.mkdir()
            run = json.loads(json.dumps(run))
            if goes_on:
                if json.loads(self._manifest_file.read_bytes())["run"] != run:
                    raise another_run(self.path)
                return True
            shards = [
                [*astuple(shard.start), shard.documents]
                for shard in find_shards(inputs, size, text_field, id_field)
            ]
            if len(shards) > MOST_SHARDS:
                documents = sum(shard[-1] for shard in shards)
                raise ExtractionError(
                    f"{documents} documents are more than {MOST_SHARDS} shards of {size}: give a "
                    f"--shard-size of at least {-(-documents // MOST_SHARDS)}."
                )
            manifest = {
                "run": run,
                "inputs": inputs,
                "fields": [text_field, id_field],
                "size": size,
                "shards": shards,
            }
            atomic_write(self._manifest_file, json.dumps(manifest))
        except OSError as error:
            raise ExtractionError(f"The output {self.output} cannot be written: {error.strerror}.") from error
        finally:
            if not self._manifest_file.exists():
                remove(self.path)
        return False

    @property
    def _manifest_file(self) -> Path:
        return self.path / "manifest.json"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The run, its inputs, fields and size of shards."""
        return json.loads(self._manifest_file.read_bytes())

    @cached_property
    def shards(self) -> list[Shard]:
        """All shards, in order."""
        return [
            Shard(number, Position(*start), documents)
            for number, (*start, documents) in enumerate(self.manifest["shards"])
        ]

    def done(self) -> dict[int, Tally]:
        """The shards that are done: noted, and their results as they were written."""
        notes = self.path / "done.jsonl"
        tallies = {}
        for line in notes.read_bytes().splitlines() if notes.exists() else ():
            try:
                tally = Tally(**json.loads(line))
            except (ValueError, TypeError):  # cut off in writing
                continue
            result = self._result(tally.shard)
            if result.exists() and result.stat().st_size == tally.bytes:
                tallies[tally.shard] = tally
        return tallies

    def note(self, tally: Tally) -> None:
        """Note that a shard is done."""
        with (self.path / "done.jsonl").open("ab") as stream:
            # The newline before it: the line that an interrupted run began may have none.
            stream.write(b"\n" + json.dumps(asdict(tally)).encode())
            stream.flush()
            os.fsync(stream.fileno())

    def keep(self, number: int, written: Path) -> int:
        """Give the results of a shard their name; they are complete or absent.

        Args:
            number: The shard.
            written: What a writer made of it.

        Returns:
            Their size in bytes.
        """
        result = self._result(number)
        if written.is_dir():
            # First what the ids tell of: a shard with them is complete.
            os.replace(written / "00000.spacy", result)
            os.replace(written / "00000.json", result.with_suffix(".json"))
        else:
            os.replace(written, result)
        return result.stat().st_size

    def _result(self, number: int) -> Path:
        return self.documents / f"{number:05}{self.output.suffix}"

    def join(self) -> None:
        """Make the output of all shards, in their order, and remove the folder."""
        if not self.shards:
            make_writer(self.output).finish()
        elif self.output.suffix == ".spacy":
            if self.output.is_file():
                self.output.unlink()
            atomic_replace(self.documents, self.output)
        else:
            joined = self.path / "joined"
            with joined.open("wb") as whole:
                for shard in self.shards:
                    with self._result(shard.number).open("rb") as part:
                        shutil.copyfileobj(part, whole)
                os.fsync(whole.fileno())
            joined.replace(self.output)
        remove(self.path)
