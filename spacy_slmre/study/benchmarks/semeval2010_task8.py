"""SemEval-2010 Task 8: relations between pairs of nominals."""

from __future__ import annotations

from spacy_slmre.schema import LabelSchema, RelationLabel
from spacy_slmre.study.benchmarks.card import Benchmark, both_directions, load_labels
from spacy_slmre.study.benchmarks.marked_text import read_marked_file

_OTHER = RelationLabel("Other", "other", "none of the other relations holds between head and tail")

CARD = Benchmark(
    name="semeval2010_task8",
    title="SemEval-2010 Task 8",
    domain="general",
    task="One of nine directed relations, or none of them, between two marked nominals of a sentence.",
    citation="Hendrickx et al. 2010. SemEval-2010 Task 8: Multi-Way Classification of Semantic Relations "
    "between Pairs of Nominals. https://aclanthology.org/S10-1006",
    license="CC BY 3.0",
    redistributable=True,
    obtain="Download SemEval2010_task8_all_data, or the two text files in it from the addresses below.",
    files={"train": "TRAIN_FILE.TXT", "test": "TEST_FILE_FULL.TXT"},
    urls={
        "train": "https://raw.githubusercontent.com/roomylee/cnn-relation-extraction/HEAD/"
        "SemEval2010_task8_all_data/SemEval2010_task8_training/TRAIN_FILE.TXT",
        "test": "https://raw.githubusercontent.com/roomylee/cnn-relation-extraction/HEAD/"
        "SemEval2010_task8_all_data/SemEval2010_task8_testing_keys/TEST_FILE_FULL.TXT",
    },
    schema=LabelSchema((*both_directions(load_labels("semeval2010_task8")), _OTHER), "Other"),
    direction="Head is e1 and tail is e2, in text order; the label says which is the first argument.",
    splits={"train": 8000, "test": 2717},
    notes=(
        "There is no official dev split.",
        "The official score is the macro-F1 of the nine relations; the study uses positive-class micro-F1.",
        "Entities have no types here: all are ENTITY.",
    ),
    read=read_marked_file,
)
