"""From a source file to a corpus: read, place, write, count, in one streaming pass."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import spacy

from spacy_slmre.corpus.docbin import SHARD_SIZE, ShardWriter, file_hash
from spacy_slmre.corpus.formats import CorpusFormat, get_format
from spacy_slmre.corpus.gold_docs import make_doc
from spacy_slmre.corpus.records import Reject
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.corpus.summary import Summary
from spacy_slmre.relations import install_extensions
from spacy_slmre.util.io import atomic_write

# A vocabulary grows with every new word; beyond this, the next shard begins with a fresh one.
_LARGEST_VOCABULARY = 200_000


def convert(
    benchmark: CorpusFormat,
    source: str | Path,
    output: str | Path,
    *,
    split: str,
    settings: dict[str, Any] | None = None,
    rejects: str | Path | None = None,
    shard_size: int = SHARD_SIZE,
    lang: str = "en",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Convert one split of a benchmark.

    Args:
        benchmark: The card.
        source: The source file (for hub rows also a hub id).
        output: The `.spacy` file, or folder of shards, to write; the summary goes beside it.
        split: Name of the split.
        settings: Settings of the benchmark's reader.
        rejects: Also list what could not be converted in this file, one JSON object a line.
        shard_size: Most documents in one file.
        lang: Language of the tokenizer, for sources without tokens.
        progress: Called with the number of documents after every 1,000.

    Returns:
        The summary, as written to `summary_path(output)`.

    Raises:
        CorpusError: The source cannot be read, or nothing in it could be converted.
        OSError: The output cannot be written.
    """
    install_extensions()
    summary = Summary()
    examples: dict[str, Reject] = {}
    with ExitStack() as stack:
        writer = stack.enter_context(ShardWriter(output, shard_size))
        listing = stack.enter_context(_Listing(rejects, str(source)))

        def reject(found: Reject) -> None:
            summary.rejects[found.reason] += 1
            examples.setdefault(found.reason, found)
            listing.add(found)

        nlp = spacy.blank(lang)
        for item in benchmark.read(source, split, **(settings or {})):
            if isinstance(item, Reject):
                reject(item)
                continue
            card = get_format(item.benchmark) if item.benchmark else benchmark
            doc, lost = make_doc(nlp, item, card, split)
            for found in lost:
                reject(found)
            if item.pairs and len(lost) == len(item.pairs):
                continue
            summary.add(doc)
            if writer.add(doc) and len(nlp.vocab) > _LARGEST_VOCABULARY:
                nlp = spacy.blank(lang)
            if progress and summary.documents % 1000 == 0:
                progress(summary.documents)
        if not summary.documents:
            raise CorpusError(_nothing(source, benchmark, examples))
    result = {
        "benchmark": benchmark.name,
        "split": split,
        "source": Path(source).name,
        "settings": {name: str(value) for name, value in (settings or {}).items()},
        **summary.to_dict(),
        "official_instances": benchmark.splits.get(split),
        "files": [{"name": file.name, "sha256": file_hash(file)} for file in writer.shards],
    }
    atomic_write(summary_path(output), json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return result


def summary_path(output: str | Path) -> Path:
    """Where the summary of a corpus stands: `train.spacy` → `train.summary.json`."""
    return Path(output).with_suffix(".summary.json")


def _nothing(source: str | Path, benchmark: CorpusFormat, examples: dict[str, Reject]) -> str:
    text = f"{source}: nothing in it could be converted as {benchmark.name}. Is it a file of this benchmark?"
    for reject in examples.values():
        text += f"\n{source}:{reject.line}: {reject.reason}: {reject.detail}"
    return text


class _Listing:
    """Lists rejects in a file that is complete or absent; without a path it does nothing."""

    def __init__(self, path: str | Path | None, source: str) -> None:
        self.path = Path(path) if path is not None else None
        self.source = source

    def __enter__(self) -> _Listing:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            self._file = self._aside.open("w", encoding="utf-8")
        return self

    def add(self, reject: Reject) -> None:
        if self.path is not None:
            self._file.write(json.dumps(reject.to_dict(self.source), ensure_ascii=False) + "\n")

    def __exit__(self, *_: object) -> None:
        # Kept after an error too: it is what helps to find the cause.
        if self.path is not None:
            self._file.close()
            os.replace(self._aside, self.path)
