"""Benchmarks with tokens and token spans: CoNLL04, CrossRE, WebNLG, TACRED and Re-TACRED."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spacy_slmre.corpus.records import Pair, Record, Reject, Words, negative_pairs, parse_rows
from spacy_slmre.corpus.sources import CorpusError, open_text, read_json
from spacy_slmre.schema import NEGATIVE_LABEL
from spacy_slmre.study.benchmarks.card import load_card


def read_conll04(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Read CoNLL04 in the JSON form of Wang and Lu: token spans with an exclusive end."""
    return parse_rows(read_json(source), _parse_conll04, split, ratio=0.0, rng=random.Random(0))


def read_all_pairs(
    source: str | Path, split: str, *, negatives: float = -1.0, seed: int = 0
) -> Iterator[Record | Reject]:
    """Read CoNLL04 with negatives: the ordered pairs of entities that have no relation.

    Args:
        source: The JSON file of a split.
        split: Name of the split, which becomes part of each record's identifier.
        negatives: Negatives per positive in a sentence; a negative number takes all pairs.
        seed: Seed of the sample.
    """
    rng = random.Random(seed)
    return parse_rows(read_json(source), _parse_conll04, split, ratio=negatives, rng=rng)


def _parse_conll04(row: dict[str, Any], *, line: int, id: str, ratio: float, rng: random.Random) -> Iterator[Record]:
    yield _sentence(row["tokens"], row["entities"], row["relations"], 0, line, id, ratio, rng)


def read_crossre(source: str | Path, split: str, *, negatives: float = 0.0, seed: int = 0) -> Iterator[Record | Reject]:
    """Read CrossRE: JSON lines with token spans whose end is inclusive.

    Args:
        source: The file of a domain and split.
        split: Name of the split, which becomes part of each record's identifier.
        negatives: Negatives per positive in a sentence, sampled from the other ordered pairs of entities; a
            negative number takes all pairs.
        seed: Seed of the sample.
    """
    rng = random.Random(seed)
    return parse_rows(read_json(source), _parse_crossre, split, ratio=negatives, rng=rng)


def _parse_crossre(row: dict[str, Any], *, line: int, id: str, ratio: float, rng: random.Random) -> Iterator[Record]:
    # Relations have further fields: explanation, uncertainty, syntactic ambiguity.
    relations = [relation[:5] for relation in row["relations"]]
    yield _sentence(row["sentence"], row["ner"], relations, 1, line, row.get("doc_key", id), ratio, rng)


def _sentence(
    tokens: list[str],
    entities: list[tuple[int, int, str]],
    relations: list[list[Any]],
    inclusive: int,
    line: int,
    id: str,
    ratio: float,
    rng: random.Random,
) -> Record:
    words = Words(tokens)
    mentions = {(start, end): words.mention(start, end + inclusive, kind) for start, end, kind in entities}
    pairs = [
        Pair(
            mentions.get((head, head_end)) or words.mention(head, head_end + inclusive),
            mentions.get((tail, tail_end)) or words.mention(tail, tail_end + inclusive),
            label,
        )
        for head, head_end, tail, tail_end, label in relations
    ]
    pairs += negative_pairs(mentions.values(), pairs, NEGATIVE_LABEL, ratio, rng)
    return Record(id, line, words.text, tuple(pairs), tuple(mentions.values()), words.words)


def read_webnlg(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Read WebNLG: `tokens` and `spo_details`, token spans with an exclusive end."""
    return parse_rows(read_json(source), _parse_webnlg, split)


def _parse_webnlg(row: dict[str, Any], *, line: int, id: str) -> Iterator[Record]:
    words = Words(row["tokens"])
    pairs = tuple(
        Pair(words.mention(head, head_end), words.mention(tail, tail_end), label)
        for head, head_end, _, label, tail, tail_end, _ in row["spo_details"]
    )
    yield Record(id, line, words.text, pairs, (), words.words)


def read_tacred(source: str | Path, split: str, *, patch: Path | None = None) -> Iterator[Record | Reject]:
    """Read TACRED: one pair per sentence, token spans with an inclusive end.

    Args:
        source: The JSON file of a split.
        split: Name of the split, which becomes part of each record's identifier.
        patch: A file of corrected labels, such as TACREV's; other instances keep their label.
    """
    return parse_rows(read_json(source), _parse_tacred, split, labels=_read_patch(patch), only_patched=False)


def read_retacred(source: str | Path, split: str, *, patch: Path | None = None) -> Iterator[Record | Reject]:
    """Read TACRED with the labels of Re-TACRED; instances without such a label are rejected.

    Args:
        source: The JSON file of a split of TACRED.
        split: Name of the split, which becomes part of each record's identifier.
        patch: The split's file `…_id2label.json` of Re-TACRED; without it, the source must have the labels.
    """
    labels = _read_patch(patch)
    return parse_rows(read_json(source), _parse_tacred, split, labels=labels, only_patched=patch is not None)


def _parse_tacred(
    row: dict[str, Any], *, line: int, id: str, labels: Mapping[str, str], only_patched: bool
) -> Iterator[Record | Reject]:
    name = row["id"]
    if only_patched and name not in labels:
        yield Reject(line, name, "not in the patch", f"the patch has no label of {name}")
        return
    words = Words(row["token"])
    head, tail = (
        words.mention(row[f"{side}_start"], row[f"{side}_end"] + 1, row[f"{side}_type"]) for side in ("subj", "obj")
    )
    pair = Pair(head, tail, labels.get(name, row["relation"]))
    yield Record(name, line, words.text, (pair,), (), words.words)


def _read_patch(path: Path | None) -> dict[str, str]:
    """Read the label of each instance: an object, or a list of objects with "id" and "relation"."""
    if path is None:
        return {}
    with open_text(path) as file:
        try:
            patch = json.load(file)
            entries = patch.items() if isinstance(patch, dict) else ((entry["id"], entry) for entry in patch)
            labels = {name: entry["relation"] if isinstance(entry, dict) else entry for name, entry in entries}
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path} cannot be read as a label patch ({error!r}).") from error
    if not all(isinstance(name, str) and isinstance(label, str) for name, label in labels.items()):
        raise CorpusError(f"{path} is not a label patch: it must map instance ids to labels.")
    return labels


CONLL04 = load_card("conll04", read_conll04)
CONLL04_PAIRS = load_card("conll04_pairs", read_all_pairs)
CROSSRE = load_card("crossre", read_crossre)
WEBNLG = load_card("webnlg", read_webnlg)
TACRED = load_card("tacred", read_tacred)
RETACRED = load_card("retacred", read_retacred)
