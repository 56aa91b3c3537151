"""Read `.spacy` files, and write them atomically."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import srsly
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.util.io import file_hash, list_files, shard_name, temporary_output

SHARD_SIZE = 20_000
"""Maximum number of documents in one `.spacy` file."""

# The annotation of gold documents; lemmas, tags and parses would only take space.
_ATTRS = ("ORTH", "SPACY", "SENT_START", "ENT_IOB", "ENT_TYPE", "ENT_KB_ID")


class DocBinWriter:
    """Writes a corpus with one shard in memory at a time.

    Up to `shard_size` documents are written to one file. If there are more, the output is a folder with several files,
    which spaCy's readers accept as well. An existing corpus is replaced when the new one is complete.

    Args:
        path: Output, ending in `.spacy`.
        shard_size: Maximum number of documents in one file.

    Raises:
        CorpusError: The path has another suffix, or is a folder with other files.
    """

    def __init__(self, path: str | Path, shard_size: int = SHARD_SIZE) -> None:
        self.path = Path(path)
        if self.path.suffix != ".spacy":
            raise CorpusError(f"The output {self.path} must end in .spacy.")
        if shard_size < 1:
            raise CorpusError(f"shard_size = {shard_size}, but it must be at least 1.")
        if self.path.is_dir() and any(child.suffix != ".spacy" for child in self.path.iterdir()):
            raise CorpusError(f"The folder {self.path} contains files other than .spacy and will not be replaced.")
        self.shard_size = shard_size
        self._shards: list[Path] = []
        self._stack = ExitStack()
        # Reuse one packer: DocBin creates one per document, and each searches all installed packages for msgpack
        # extensions, which takes longer than everything else combined.
        self._packer = srsly.msgpack.Packer(use_bin_type=True)

    def __enter__(self) -> Self:
        self._output = self._stack.enter_context(temporary_output(self.path))
        self._folder = self._output.with_name("shards")
        self._folder.mkdir()
        self._bin = DocBin(attrs=_ATTRS)
        return self

    def add(self, doc: Doc) -> bool:
        """Add a document; return whether this completed a shard, so that no documents are in memory."""
        self._bin.add(doc)
        self._bin.user_data.append(self._packer.pack(doc.user_data))
        if len(self._bin) < self.shard_size:
            return False
        self._flush()
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, traceback)
            return
        with self._stack:
            if len(self._bin) or not self._shards:
                self._flush()
            (self._shards[0] if len(self._shards) == 1 else self._folder).rename(self._output)

    def _flush(self) -> None:
        shard = self._folder / f"{shard_name(len(self._shards))}.spacy"
        self._bin.store_user_data = True
        self._bin.to_disk(shard)
        self._shards.append(shard)
        self._bin = DocBin(attrs=_ATTRS)


def corpus_files(path: str | Path) -> list[Path]:
    """Return the `.spacy` files of a corpus in order: the file itself, or all files in the folder.

    Raises:
        CorpusError: The file does not exist, or the folder contains no `.spacy` files.
    """
    path = Path(path)
    files = [file for file in (_find(path) if path.is_dir() else [path]) if file.is_file()]
    if not files:
        raise CorpusError(f"There is no corpus at {path}. Create one with `python -m spacy slmre convert`.")
    return files


def corpus_hashes(path: str | Path) -> list[dict[str, str]]:
    """Return name and SHA-256 of the `.spacy` files of a corpus. Raises CorpusError as `corpus_files` does."""
    return [{"name": file.name, "sha256": file_hash(file)} for file in corpus_files(path)]


def has_docs(path: Path) -> bool:
    """Return whether a path is a `.spacy` file or a folder that contains one, in contrast to other annotations."""
    return bool(_find(path)) if path.is_dir() else path.suffix.lower() == ".spacy"


def _find(folder: Path) -> list[Path]:
    # Hidden files and folders are still being written.
    return [file for file in list_files(folder) if file.suffix.lower() == ".spacy"]


def read_docs(path: str | Path, vocab: Vocab) -> Iterator[Doc]:
    """Yield the documents of a corpus with one shard in memory at a time.

    Raises:
        CorpusError: There is no corpus, or a file is damaged.
    """
    for file in corpus_files(path):
        docs = _load(file)
        packed, docs.user_data = docs.user_data, []
        for doc, data in zip(docs.get_docs(vocab), packed, strict=True):
            doc.user_data |= _unpack(data)
            yield doc


def read_user_data(path: str | Path) -> Iterator[dict[Any, Any]]:
    """Yield the `doc.user_data` of each document without creating the documents."""
    for file in corpus_files(path):
        for data in _load(file).user_data:
            yield _unpack(data)


def _unpack(data: bytes | None) -> dict[Any, Any]:
    # With a hook, msgpack does not search for extensions (see DocBinWriter).
    return srsly.msgpack.unpackb(
        data or b"\x80", raw=False, use_list=False, strict_map_key=False, object_pairs_hook=dict
    )


def _load(file: Path) -> DocBin:
    try:
        return DocBin(store_user_data=True).from_disk(file)
    except Exception as error:  # zlib, msgpack or key errors, depending on where the file is damaged
        raise CorpusError(f"{file} is not a .spacy file, or is damaged ({type(error).__name__}).") from error
