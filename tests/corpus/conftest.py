from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.language import Language

from spacy_slmre.corpus.conversion import convert
from spacy_slmre.relations import install_extensions
from spacy_slmre.study.benchmarks.card import get_benchmark

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nlp() -> Language:
    install_extensions()
    return spacy.blank("en")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with the public benchmark files: SPACY_SLMRE_DATA, or shared/data next to the clone."""
    folder = Path(os.environ.get("SPACY_SLMRE_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"there are no benchmark files in {folder}: set SPACY_SLMRE_DATA to their folder")
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a small source file."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of converted corpora with the demo corpus: demo/train.spacy and so on."""
    folder = tmp_path_factory.mktemp("corpora")
    for split in ("train", "dev", "test"):
        source = ROOT / "assets" / "demo_corpus" / f"{split}.txt"
        convert(get_benchmark("demo"), source, folder / "demo" / f"{split}.spacy", split=split)
    return folder
