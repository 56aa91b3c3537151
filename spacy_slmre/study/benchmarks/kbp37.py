"""KBP37: slot filling relations of persons and organisations, a free relative of TACRED."""

from __future__ import annotations

from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import NO_RELATION, Benchmark, both_directions, load_labels
from spacy_slmre.study.benchmarks.marked_text import read_marked_file

CARD = Benchmark(
    name="kbp37",
    substitute_for="tacred",
    title="KBP37",
    domain="general",
    task="One of 18 directed relations of persons and organisations, or none, between two marked entities.",
    citation="Zhang and Wang 2015. Relation Classification via Recurrent Neural Network. arXiv:1508.01006",
    license="none stated",
    redistributable=False,
    obtain="Download the three text files from the addresses below.",
    files={"train": "train.txt", "dev": "dev.txt", "test": "test.txt"},
    urls={
        split: f"https://raw.githubusercontent.com/zhangdongxu/kbp37/HEAD/{split}.txt"
        for split in ("train", "dev", "test")
    },
    schema=LabelSchema((*both_directions(load_labels("kbp37")), NO_RELATION)),
    direction="Head is e1 and tail is e2, in text order; the label says which is the first argument.",
    splits={"train": 15917, "dev": 1724, "test": 3405},
    notes=(
        "Where the source marks nothing, `<e1> </e1>`, the instance is rejected: 110 in train, 10 in dev, "
        "26 in test.",
        "Entities have no types here: all are ENTITY.",
    ),
    read=read_marked_file,
)
