from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import spacy

from spacy_slmre.corpus.docbin import DocBinWriter
from spacy_slmre.relations import install_extensions
from spacy_slmre.training.config import TuningConfig, read_config, resolve_config

ROOT = Path(__file__).parents[2]
LABELS = ("employer", "no_relation", "place of birth")


@pytest.fixture
def write_corpus() -> Callable[..., Path]:
    """Write a corpus of sentences that spell out their label, optionally as a benchmark."""
    install_extensions()

    def write(
        path: Path, number: int, labels: tuple[str, ...] = LABELS, ids: list[str] | None = None, **user_data: str
    ) -> Path:
        nlp = spacy.blank("en")
        with DocBinWriter(path) as writer:
            for n in range(number):
                label = labels[n % len(labels)]
                doc = nlp.make_doc(f"Ann{n} {label} Rome")
                head = spacy.tokens.Span(doc, 0, 1, label="PER")
                tail = spacy.tokens.Span(doc, len(doc) - 1, len(doc), label="GPE")
                doc.set_ents([head, tail])
                doc._.relation_pairs = [(head, tail, label)]
                doc.user_data |= {f"slmre.{key}": value for key, value in user_data.items()}
                doc.user_data["slmre.id"] = ids[n] if ids else f"{path.stem}-{n}"
                writer.add(doc)
        return path

    return write


@pytest.fixture
def config_file(tmp_path: Path, tiny_base: Path, write_corpus) -> Path:
    """Write a config for the tiny model and two small corpora."""
    train = write_corpus(tmp_path / "train.spacy", 30)
    dev = write_corpus(tmp_path / "dev.spacy", 9)
    file = tmp_path / "tiny.cfg"
    file.write_text(f"""
[model]
@architectures = "spacy-slmre.SmallLM.v1"
base = "{tiny_base}"
quantization = null
dtype = "float32"
device = "cpu"

[tune]
shots = 0
schema = null

[lora]
rank = 4
alpha = 8

[training]
max_tokens = 300
gradient_accumulation_steps = 1
learning_rate = 0.02
max_steps = 4
eval_steps = 2
seed = 1

[corpora]

[corpora.train]
@readers = "spacy-slmre.RelationCorpus.v1"
path = "{train}"

[corpora.dev]
@readers = "spacy-slmre.RelationCorpus.v1"
path = "{dev}"
""")
    return file


@pytest.fixture
def resolve(config_file: Path) -> Callable[..., TuningConfig]:
    """Resolve the config with overrides."""

    def resolve(overrides: dict | None = None) -> TuningConfig:
        return resolve_config(read_config(config_file, overrides), config_file.name)

    return resolve
