"""Writing documents as `.spacy` files that are complete or absent, and reading them back."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import srsly
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_slmre.corpus.sources import CorpusError

SHARD_SIZE = 20_000
"""Most documents in one `.spacy` file."""

# What gold documents hold; lemmas, tags and parses would only take room.
_ATTRS = ("ORTH", "SPACY", "SENT_START", "ENT_IOB", "ENT_TYPE")


class ShardWriter:
    """Writes documents to one path, in memory of one shard.

    Up to `shard_size` documents are one file; more are a folder of that name, with the shards in it, which
    spaCy's readers take in its place. Everything is written aside and renamed when it is complete: after an
    error there is neither output nor rest.

    Args:
        path: Where the documents go; a corpus that stands there is replaced.
        shard_size: Most documents in one file.

    Raises:
        CorpusError: The path does not end in `.spacy`, or something else than a corpus stands there.
    """

    def __init__(self, path: str | Path, shard_size: int = SHARD_SIZE) -> None:
        self.path = Path(path)
        if self.path.suffix != ".spacy":
            raise CorpusError(f"The output {self.path} must end in .spacy.")
        if shard_size < 1:
            raise CorpusError(f"A shard holds at least one document, not {shard_size}.")
        if self.path.is_dir() and any(child.suffix != ".spacy" for child in self.path.iterdir()):
            raise CorpusError(
                f"The folder {self.path} holds more than .spacy files; it will not be replaced."
            )
        self.shard_size = shard_size
        self.shards: list[Path] = []
        # One packer for all documents: `DocBin` makes one for each, and each looks through all installed
        # packages for extensions of the format, which takes longer than everything else together.
        self._packer = srsly.msgpack.Packer(use_bin_type=True)

    def __enter__(self) -> ShardWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A leading dot hides the folder from spaCy's readers. In the same folder, renaming is one step.
        self._aside = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        self._bin = DocBin(attrs=_ATTRS)
        return self

    def add(self, doc: Doc) -> bool:
        """Add a document; True says that a shard is complete and nothing of it is held any more."""
        self._bin.add(doc)
        self._bin.user_data.append(self._packer.pack(doc.user_data))
        if len(self._bin) < self.shard_size:
            return False
        self._flush()
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if len(self._bin) or not self.shards:
                    self._flush()
                self._publish()
        finally:
            shutil.rmtree(self._aside, ignore_errors=True)

    def _flush(self) -> None:
        shard = self._aside / f"{len(self.shards):05d}.spacy"
        self._bin.store_user_data = True
        self._bin.to_disk(shard)
        self.shards.append(shard)
        self._bin = DocBin(attrs=_ATTRS)

    def _publish(self) -> None:
        new = self.shards[0] if len(self.shards) == 1 else self._aside
        if new.is_dir():
            # Temporary folders are closed to others.
            new.chmod(0o755)
        if self.path.is_dir() or (new.is_dir() and self.path.exists()):
            old = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
            os.replace(self.path, old / self.path.name)
            os.replace(new, self.path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(new, self.path)
        self.shards = corpus_files(self.path)


def corpus_files(path: str | Path) -> list[Path]:
    """The `.spacy` files of a corpus: the file itself, or those in the folder and its folders, in order.

    Raises:
        CorpusError: There is no such file, or the folder holds none.
    """
    path = Path(path)
    files = sorted(path.rglob("*.spacy")) if path.is_dir() else [path]
    # What begins with a dot is still being written.
    files = [file for file in files if file.is_file() and not _is_hidden(file.relative_to(path))]
    if not files:
        raise CorpusError(f"There is no corpus at {path}. Make one with: python -m spacy slmre convert")
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_docs(path: str | Path, vocab: Vocab) -> Iterator[Doc]:
    """The documents of a corpus, one shard in memory at a time.

    Raises:
        CorpusError: There is no corpus, or a file is none.
    """
    for file in corpus_files(path):
        docs = _load(file)
        packed, docs.user_data = docs.user_data, []
        for doc, data in zip(docs.get_docs(vocab), packed, strict=True):
            doc.user_data |= _unpack(data)
            yield doc


def read_user_data(path: str | Path) -> Iterator[dict[Any, Any]]:
    """The `doc.user_data` of each document, without making the documents."""
    for file in corpus_files(path):
        for data in _load(file).user_data:
            yield _unpack(data)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(data: bytes | None) -> dict[Any, Any]:
    # With a hook of its own the function does not look for extensions of the format either.
    return srsly.msgpack.unpackb(
        data or b"\x80", raw=False, use_list=False, strict_map_key=False, object_pairs_hook=dict
    )


def _load(file: Path) -> DocBin:
    try:
        return DocBin(store_user_data=True).from_disk(file)
    except Exception as error:  # zlib, msgpack and key errors, by where the bytes go wrong
        raise CorpusError(f"{file} is no .spacy file, or it is damaged ({type(error).__name__}).") from error
