"""TACRED, with the corrected labels of TACREV as an option, and Re-TACRED."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import Pair, Record, Reject, Words, rejecting
from spacy_slmre.corpus.sources import CorpusError, open_text, read_json
from spacy_slmre.schema import LabelSchema, RelationLabel
from spacy_slmre.study.benchmarks.card import Benchmark, load_labels


def read_tacred(source: str | Path, split: str, *, patch: Path | None = None) -> Iterator[Record | Reject]:
    """Records of a file of TACRED: one pair a sentence, inclusive token spans.

    Args:
        source: The JSON file of a split.
        split: The split, part of each record's identifier.
        patch: A file of corrected labels, such as TACREV's; other instances keep their label.
    """
    return rejecting(read_json(source), _parse, split, labels=_read_patch(patch), only_labels=False)


def read_retacred(source: str | Path, split: str, *, patch: Path | None = None) -> Iterator[Record | Reject]:
    """Records of a file of TACRED with the labels of Re-TACRED; instances that these leave out are rejected.

    Args:
        source: The JSON file of a split of TACRED.
        split: The split, part of each record's identifier.
        patch: The split's file `…_id2label.json` of Re-TACRED; without it, the source has the labels already.
    """
    return rejecting(
        read_json(source), _parse, split, labels=_read_patch(patch), only_labels=patch is not None
    )


def _parse(
    row: dict[str, Any], *, line: int, id: str, labels: Mapping[str, str], only_labels: bool
) -> Iterator[Record | Reject]:
    name = row["id"]
    if only_labels and name not in labels:
        yield Reject(line, name, "not in the patch", f"{name} has no label there")
        return
    words = Words(row["token"])
    head, tail = (
        words.mention(row[f"{side}_start"], row[f"{side}_end"] + 1, row[f"{side}_type"])
        for side in ("subj", "obj")
    )
    yield Record(
        name, line, words.text, (Pair(head, tail, labels.get(name, row["relation"])),), (), words.words
    )


def _read_patch(path: Path | None) -> dict[str, str]:
    """Labels by instance: an object, or a list of objects with "id" and "relation"."""
    if path is None:
        return {}
    with open_text(path) as file:
        try:
            patch = json.load(file)
            entries = patch.items() if isinstance(patch, dict) else ((entry["id"], entry) for entry in patch)
            labels = {
                name: entry["relation"] if isinstance(entry, dict) else entry for name, entry in entries
            }
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path} cannot be read as a label patch ({error!r}).") from error
    if not all(isinstance(name, str) and isinstance(label, str) for name, label in labels.items()):
        raise CorpusError(f"{path}: a label patch maps instance ids to labels, which this file does not do.")
    return labels


_LABELS = {label.name: label for label in load_labels("tacred")}
_ONLY_TACRED = [
    "org:city_of_headquarters",
    "org:country_of_headquarters",
    "org:stateorprovince_of_headquarters",
    "org:parents",
    "org:subsidiaries",
    "per:alternate_names",
]
_ONLY_RETACRED = [
    "org:city_of_branch",
    "org:country_of_branch",
    "org:stateorprovince_of_branch",
    "per:identity",
]


def _schema_without(names: list[str]) -> LabelSchema:
    labels: tuple[RelationLabel, ...] = tuple(label for name, label in _LABELS.items() if name not in names)
    return LabelSchema(labels)


_OBTAIN = (
    "TACRED needs a licence of the Linguistic Data Consortium: order LDC2018T24 at catalog.ldc.upenn.edu, "
    "unpack it and convert data/json/train.json, dev.json and test.json."
)

CARD = Benchmark(
    name="tacred",
    title="TACRED",
    domain="general",
    task="41 relations of persons and organisations, or none, between two typed entities of a sentence.",
    citation="Zhang et al. 2017. Position-aware Attention and Supervised Data Improve Slot Filling. "
    "https://aclanthology.org/D17-1004",
    license="LDC User Agreement",
    redistributable=False,
    obtain=_OBTAIN,
    files={"train": "train.json", "dev": "dev.json", "test": "test.json"},
    schema=_schema_without(_ONLY_RETACRED),
    direction="Head is the subject, tail the object.",
    splits={"train": 68124, "dev": 22631, "test": 15509},
    notes=(
        "patch=FILE takes the corrected labels of TACREV (Alt et al. 2020, arXiv:2004.14855): the files "
        "patch/dev_patch.json and patch/test_patch.json of github.com/DFKI-NLP/tacrev.",
    ),
    read=read_tacred,
)

RETACRED = Benchmark(
    name="retacred",
    title="Re-TACRED",
    domain="general",
    task="39 relations of persons and organisations, or none: TACRED with new labels.",
    citation="Stoica et al. 2021. Re-TACRED: Addressing Shortcomings of the TACRED Dataset. arXiv:2104.08398",
    license="LDC User Agreement (the text is TACRED's)",
    redistributable=False,
    obtain=_OBTAIN
    + " The new labels are the files Re-TACRED/…_id2label.json of github.com/gstoica27/Re-TACRED.",
    schema=_schema_without(_ONLY_TACRED),
    direction="Head is the subject, tail the object.",
    splits={"train": 58465, "dev": 19584, "test": 13418},
    notes=(
        "patch=FILE takes the labels of a split; instances of TACRED that they leave out are rejected. "
        "Without a patch the source is read as Re-TACRED already.",
    ),
    read=read_retacred,
)
