"""Conversion of a source file to a corpus in one streaming pass."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc

from spacy_slmre.corpus.docbin import SHARD_SIZE, DocBinWriter, corpus_hashes
from spacy_slmre.corpus.formats import CorpusFormat, get_format, guess_format
from spacy_slmre.corpus.gold_docs import MEANS_NO_RELATION, make_doc, warn_if_predicted
from spacy_slmre.corpus.records import Record, Reject
from spacy_slmre.corpus.rejects import check_rejects, count_rejects, rejects_file
from spacy_slmre.corpus.sources import CorpusError, source_files
from spacy_slmre.corpus.summary import Summary
from spacy_slmre.relations import install_extensions
from spacy_slmre.util.errors import OutputError
from spacy_slmre.util.io import atomic_write, file_hash
from spacy_slmre.util.run_folder import reserve

# A vocabulary grows with every new word; above this size, the next shard starts with a new one.
_MAX_VOCABULARY = 200_000


def convert(
    format: CorpusFormat,
    source: str | Path,
    output: str | Path,
    *,
    split: str,
    settings: Mapping[str, Any] | None = None,
    rejects: str | Path | None = None,
    shard_size: int = SHARD_SIZE,
    lang: str = "en",
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Convert a source file to a corpus, unless the output is already up to date.

    Args:
        format: The format of the source.
        source: The source file, or a hub id if the format supports it.
        output: The `.spacy` file, or folder of shards, to write; the summary is written next to it.
        split: Name of the split.
        settings: Settings of the format's reader.
        rejects: JSONL file for everything that cannot be converted.
        shard_size: Maximum number of documents in one file.
        lang: Language of the tokenizer, for sources without tokens.
        overwrite: Replace an existing output.
        progress: Called with the number of documents after every 1,000.

    Returns:
        The summary, as written to `summary_path(output)`.

    Raises:
        CorpusError: The source cannot be read, or nothing in it could be converted.
        OutputError: The output exists and is not a conversion of this source with these settings.
    """
    install_extensions()
    output = Path(output)
    key = {
        "format": format.name,
        "split": split,
        "source": {"name": Path(source).name, "sha256": _source_hash(Path(source))},
        "settings": {name: str(value) for name, value in (settings or {}).items()},
        "shard_size": shard_size,
        "lang": lang,
        "version": version("spacy-slmre"),
    }
    files = [summary_path(output), *([Path(rejects)] if rejects is not None else [])]
    with (
        reserve(output, inputs=[source], kind=None, is_replaceable=_is_conversion),
        reserve(*files, inputs=[source, output]),
    ):
        if output.exists() and not overwrite:
            if not (existing := _read_summary(output, key)):
                raise OutputError(
                    f"{output} already exists and was not converted from {source} with the same settings. Choose "
                    "another output, or replace it with overwrite."
                )
            if rejects is None or count_rejects(rejects) == existing["rejects"]:
                return existing
        if rejects is not None and not overwrite:
            check_rejects(rejects)
        summary = Summary()
        examples: dict[str, Reject] = {}
        with ExitStack() as stack:
            writer = stack.enter_context(DocBinWriter(output, shard_size))
            write_reject = stack.enter_context(rejects_file(rejects))

            def add_reject(reject: Reject) -> None:
                summary.rejects[reject.reason] += 1
                examples.setdefault(reject.reason, reject)
                write_reject(reject.to_dict(str(source)))

            nlp, warned = spacy.blank(lang), False
            for item in format.read(source, split, **(settings or {})):
                doc, rejected = _convert(nlp, item, format, split)
                for reject in rejected:
                    add_reject(reject)
                if doc is None:
                    continue
                warned = warned or warn_if_predicted(source, doc)
                summary.add(doc)
                if writer.add(doc) and len(nlp.vocab) > _MAX_VOCABULARY:
                    nlp = spacy.blank(lang)
                if progress and summary.documents % 1000 == 0:
                    progress(summary.documents)
            if not summary.documents:
                raise CorpusError(_nothing_converted(source, format, examples))
        result = {
            **key,
            **summary.to_dict(),
            "official_instances": format.splits.get(split),
            "files": corpus_hashes(output),
        }
        atomic_write(summary_path(output), json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        return result


def read_annotations(
    source: str | Path, nlp: Language, split: str, warn: Callable[[str], None] = warnings.warn
) -> Iterator[Doc]:
    """Yield the gold documents of annotations in any form that `convert` recognizes.

    At the end, `warn` is called with the numbers of what could not be converted, by reason.

    Raises:
        CorpusError: The format is not recognized, the source cannot be read, or nothing in it could be converted.
    """
    format = guess_format(source)
    rejects: Counter[str] = Counter()
    examples: dict[str, Reject] = {}
    number = 0
    for item in format.read(source, split):
        doc, rejected = _convert(nlp, item, format, split)
        for reject in rejected:
            rejects[reject.reason] += reject.reason != MEANS_NO_RELATION
            examples.setdefault(reject.reason, reject)
        if doc is not None:
            number += 1
            yield doc
    if not number:
        raise CorpusError(_nothing_converted(source, format, examples))
    if counts := ", ".join(f"{reason}: {count:,}" for reason, count in rejects.items() if count):
        warn(
            f"{source}: records and pairs that could not be converted were skipped ({counts}). `python -m spacy slmre "
            "convert` lists them with --rejects."
        )


def _convert(nlp: Language, item: Record | Reject, format: CorpusFormat, split: str) -> tuple[Doc | None, list[Reject]]:
    """Return the document of a record, unless all of its pairs are invalid, and what was rejected."""
    if isinstance(item, Reject):
        return None, [item]
    doc, rejected = make_doc(nlp, item, get_format(item.format) if item.format else format, split)
    lost = sum(reject.reason != MEANS_NO_RELATION for reject in rejected)
    return (None if item.pairs and lost == len(item.pairs) else doc), rejected


def summary_path(output: str | Path) -> Path:
    """Return the path of the summary of a corpus: `train.spacy` → `train.summary.json`."""
    return Path(output).with_suffix(".summary.json")


def _read_summary(output: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the summary of an output if its key and file hashes match."""
    try:
        summary = json.loads(summary_path(output).read_text(encoding="utf-8"))
        unchanged = all(summary[name] == value for name, value in key.items())
        return summary if unchanged and summary["files"] == corpus_hashes(output) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_conversion(folder: Path) -> bool:
    """Return whether all files in a folder are listed in the summary of its conversion."""
    try:
        summary = json.loads(summary_path(folder).read_text(encoding="utf-8"))
        return {file.name for file in folder.iterdir()} <= {file["name"] for file in summary["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return not any(folder.iterdir())


def _source_hash(source: Path) -> str | None:
    """Return the hash of a file or of all files in a folder; None for a dataset on the hub."""
    if not source.exists():
        return None
    # An annotation file of brat stands for its text as well.
    files = [*source_files(source), *([source.with_suffix(".txt")] if source.suffix == ".ann" else [])]
    hashes = [(str(file.relative_to(source.parent)), file_hash(file)) for file in files if file.is_file()]
    return hashes[0][1] if len(hashes) == 1 else hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _nothing_converted(source: str | Path, format: CorpusFormat, examples: Mapping[str, Reject]) -> str:
    text = f"{source}: nothing could be converted from the format {format.name}. Is it the right format?"
    for reject in examples.values():
        text += f"\n{reject.file or source}:{reject.line}: {reject.reason}: {reject.detail}"
    return text
