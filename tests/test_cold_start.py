"""What the first answer of a new process does not have to wait for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import spacy

from tests.conftest import PATTERNS

HEAVY = ("transformers.modeling_utils", "transformers.activations", "torch._dynamo", "torch.distributed.tensor")
HEAVY += ("scipy", "peft", "bitsandbytes", "datasets", "pandas", "pyarrow", "sklearn")


@pytest.fixture
def encoder_pipeline(tmp_path: Path, real_encoder: str) -> str:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(PATTERNS)
    model = {"@architectures": "spacy-slmre.UniversalEncoder.v1"}
    nlp.add_pipe("rel_classifier", config={"model": model, "labels": ["employer"], "threshold": 0.0})
    nlp.to_disk(tmp_path)
    return str(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pipeline", "encoder_pipeline"])
def test_scoring_imports_no_training_and_no_model_classes(name: str, request: pytest.FixtureRequest) -> None:
    code = (
        "import spacy, sys\n"
        f"doc = spacy.load({request.getfixturevalue(name)!r})('Ann Lee works for Red Mill.')\n"
        "assert doc._.relations\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
