"""Results into a JSONL file or a folder of `.spacy` shards."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from spacy.tokens import DocBin

from spacy_slmre.documents import RelationDocument
from spacy_slmre.extraction.running import Result
from spacy_slmre.extraction.sources import ExtractionError
from spacy_slmre.relations import RELATIONS


def to_json(result: Result, attr: str = RELATIONS) -> dict[str, Any]:
    """A result as plain data: id, text, entities, relations and report, or id and error."""
    if result.doc is None:
        return {"id": result.id, "error": result.error}
    return {**RelationDocument.from_doc(result.doc, result.id, attr).to_dict(), "id": result.id}


class Writer(Protocol):
    """Takes results in order; knows which an interrupted run has written.

    Attributes:
        output: What is made.
        part: Where results lie until all are written.
        written: Number of documents in it, those that `done` has told included.
        failed: How many of them failed.
    """

    output: Path
    part: Path
    written: int
    failed: int

    def done(self) -> Iterator[str]:
        """Ids of the documents that are written already."""

    def write(self, result: Result) -> None:
        """Add one result."""

    def close(self) -> None:
        """No more is written for now: what there is, is kept safe."""

    def finish(self) -> None:
        """All is written: the output gets its name."""


class JsonlWriter:
    """One JSON line a document, in `<output>.part` until all are written.

    Args:
        output: The file to make.
        attr: The attribute that holds the relations.
    """

    def __init__(self, output: Path, attr: str = RELATIONS) -> None:
        self.output = output
        self.part = output.with_name(output.name + ".part")
        self.attr = attr
        self.written = 0
        self.failed = 0
        self._stream: BinaryIO | None = None

    def done(self) -> Iterator[str]:
        """Ids of the lines that are whole; a line that was cut off in writing is removed."""
        if not self.part.exists():
            return
        whole = 0
        with self.part.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                entry = json.loads(line)
                self.written += 1
                self.failed += "error" in entry
                yield entry["id"]
        os.truncate(self.part, whole)

    def write(self, result: Result) -> None:
        """Add one line; it is handed to the system at once, so that a killed run keeps it."""
        if self._stream is None:
            self._stream = self.part.open("ab")
        data = to_json(result, self.attr)
        try:
            line = json.dumps(data, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:  # half a surrogate pair: only JSON's own escapes can say it
            line = json.dumps(data).encode("ascii")
        self._stream.write(line + b"\n")
        self._stream.flush()
        self.written += 1
        self.failed += result.doc is None

    def close(self) -> None:
        """Hand all lines to the disk."""
        if self._stream is not None:
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._stream = None

    def finish(self) -> None:
        """Give the file its name."""
        self.close()
        self.part.touch()
        self.part.replace(self.output)


SHARD_SIZE = 500
"""Documents that are computed, and in `.spacy` outputs written, together."""


class ShardWriter:
    """A folder of `.spacy` shards, in `<output>.part` until all are written.

    Beside `00000.spacy` lies `00000.json` with the ids of its documents, and the errors of those that
    failed; it is written last, so that a shard with it is complete.

    Args:
        output: The folder to make.
        size: Documents a shard: what is held in memory.
    """

    def __init__(self, output: Path, size: int = SHARD_SIZE) -> None:
        self.output = output
        self.part = output.with_name(output.name + ".part")
        self.size = size
        self.written = 0
        self.failed = 0
        self._held: list[Result] = []
        self._shards = 0

    def done(self) -> Iterator[str]:
        """Ids of the documents in complete shards."""
        for file in sorted(self.part.glob("*.json")):
            self._shards += 1
            for entry in json.loads(file.read_text(encoding="utf-8")):
                self.written += 1
                self.failed += "error" in entry
                yield entry["id"]

    def write(self, result: Result) -> None:
        """Add one document; every `size` of them make a shard."""
        self._held.append(result)
        self.written += 1
        self.failed += result.doc is None
        if len(self._held) >= self.size:
            self._write_shard()

    def close(self) -> None:
        """Write what is held as a shard of its own."""
        if self._held:
            self._write_shard()

    def finish(self) -> None:
        """Write the last shard and give the folder its name."""
        if self._held or not self._shards:
            self._write_shard()
        remove(self.output)
        self.part.replace(self.output)

    def _write_shard(self) -> None:
        self.part.mkdir(parents=True, exist_ok=True)
        name = self.part / f"{self._shards:05}"
        bin_ = DocBin(docs=[r.doc for r in self._held if r.doc is not None], store_user_data=True)
        entries = [
            {"id": result.id} if result.doc is not None else {"id": result.id, "error": result.error}
            for result in self._held
        ]
        for suffix, data in ((".spacy", bin_.to_bytes()), (".json", json.dumps(entries).encode())):
            aside = name.with_suffix(suffix + ".writing")
            aside.write_bytes(data)
            aside.replace(name.with_suffix(suffix))
        self._held = []
        self._shards += 1


def make_writer(output: Path, attr: str = RELATIONS, shard_size: int = SHARD_SIZE) -> Writer:
    """The writer for an output, by its ending.

    Raises:
        ExtractionError: The ending is unknown.
    """
    if output.suffix == ".jsonl":
        return JsonlWriter(output, attr)
    if output.suffix == ".spacy":
        return ShardWriter(output, shard_size)
    raise ExtractionError(f"The output {output} must end with .jsonl or .spacy.")


def open_output(
    output: Path,
    run: dict[str, Any],
    *,
    attr: str = RELATIONS,
    shard_size: int = SHARD_SIZE,
    restart: bool = False,
    overwrite: bool = False,
) -> Writer:
    """The writer for an output, with what an interrupted run has left, if it was the same run.

    Args:
        output: A name that ends with .jsonl or .spacy.
        run: What makes two runs the same: pipeline and inputs, as plain data.
        attr: The attribute that holds the relations.
        shard_size: Documents in a `.spacy` shard.
        restart: Throw away what an interrupted run has left.
        overwrite: Replace an output that is there.

    Raises:
        ExtractionError: The output exists, its ending is unknown, it cannot be written, or the interrupted
            run was another one.
    """
    writer = make_writer(output, attr, shard_size)
    others = [output.with_name(output.name + ".shards")]
    begin_output(output, overwrite=overwrite, restart=restart, others=others)
    note = _note(output)
    if restart:
        remove(writer.part)
        remove(note)
    described = json.dumps(run, sort_keys=True)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if note.exists() and note.read_text(encoding="utf-8") != described:
            raise another_run(writer.part)
        note.write_text(described, encoding="utf-8")
    except OSError as error:
        raise ExtractionError(f"The output {output} cannot be written: {error.strerror}.") from error
    return writer


def begin_output(output: Path, *, overwrite: bool, restart: bool, others: Sequence[Path]) -> None:
    """See that an output may be made.

    Args:
        output: What is made.
        overwrite: Replace it if it is there.
        restart: Throw away what an interrupted run has left.
        others: What the other engine would have left.

    Raises:
        ExtractionError: The output exists, or the other engine has begun it.
    """
    if output.exists() and not overwrite:
        raise ExtractionError(f"The output {output} is there already: give --overwrite to replace it.")
    for other in others:
        if restart:
            remove(other)
        elif other.exists():
            raise ExtractionError(
                f"An interrupted run with the other --engine left {other}. Repeat it as it was, or give "
                "--restart to throw its results away."
            )


def another_run(left: Path) -> ExtractionError:
    """What to say where the results of an interrupted run do not belong to this one."""
    return ExtractionError(
        f"An interrupted run left {left}, but it had another pipeline, other inputs or another "
        "size of shards. Repeat it as it was, or give --restart to throw its results away."
    )


def close_output(writer: Writer) -> None:
    """Give a complete output its name and remove the note about its run."""
    writer.finish()
    remove(_note(writer.output))


def _note(output: Path) -> Path:
    """Where it stands what run the unfinished output belongs to."""
    return output.with_name(output.name + ".part-of")


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
