"""GIDS: the Google-IISc distant supervision data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spacy_slmre.corpus.records import Malformed, Pair, Record, Reject, place_pair, rejecting
from spacy_slmre.corpus.sources import read_lines
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import Benchmark, load_labels

_END = "###END###"
_EDUCATION = "/people/person/education./education/education/"


def read_gids(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Records of a file of six columns: two Freebase ids, head, tail, relation, text.

    The file writes the words of an argument joined by `_`, in its column and in the text, and ends each
    text with `###END###`. Here they are words with spaces again, which moves no character.

    Args:
        source: The TSV file of a split.
        split: The split, part of each record's identifier.
    """
    return rejecting(((line, row) for line, row in read_lines(source) if row), _parse, split)


def _parse(row: str, *, line: int, id: str) -> Iterator[Record | Reject]:
    columns = row.split("\t")
    if len(columns) != 6:
        raise Malformed(f"there are {len(columns)} columns, not 6")
    _, _, head, tail, label, text = columns
    text = text.removesuffix("\n").rstrip().removesuffix(_END).rstrip()
    try:
        first, last = place_pair(text, head, tail)
    except Malformed as error:
        yield Reject(line, id, "argument not in the text", str(error))
        return
    for argument in (head, tail):
        text = text.replace(argument, argument.replace("_", " "))
    yield Record(id, line, text, (Pair(first, last, label),))


CARD = Benchmark(
    name="gids",
    title="GIDS",
    domain="general",
    task="Four Freebase relations of persons, or none, between two marked entities of a short passage.",
    citation="Jat et al. 2018. Improving Distantly Supervised Relation Extraction using Word and Entity "
    "Based Attention. arXiv:1804.06987",
    license="none stated",
    redistributable=False,
    obtain="Download dev.tsv and test.tsv from the addresses below, train.tsv from the page of that project.",
    files={"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"},
    urls={
        split: "https://raw.githubusercontent.com/SharmisthaJat/RE-DS-Word-Attention-Models/HEAD/Data/GIDS/"
        f"{split}.tsv"
        for split in ("dev", "test")
    },
    schema=LabelSchema(load_labels("gids"), "NA"),
    direction="Head is the person, tail the place, institution or degree.",
    splits={"train": 11297, "dev": 1864, "test": 5663},
    notes=(
        'The file relation2id.txt says "degrees" where the data say "degree"; both are read as "degree".',
        "Entities have no types here: all are ENTITY.",
    ),
    aliases={_EDUCATION + "degrees": _EDUCATION + "degree"},
    read=read_gids,
)
