from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import PATTERNS


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> str:
    """A saved pipeline with a tiny random model."""
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("entity_ruler").add_patterns(PATTERNS)
    model = {
        "@architectures": "spacy-slmre.SmallLM.v1",
        "base": str(tiny_base),
        "quantization": None,
        "dtype": "float32",
        "device": "cpu",
    }
    nlp.add_pipe(
        "slm_relations", config={"model": model, "labels": ["knows", "employer"], "negative_label": None}
    )
    folder = tmp_path_factory.mktemp("pipeline")
    nlp.to_disk(folder)
    return str(folder)
