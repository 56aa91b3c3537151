"""What is told of a disk that cannot be written to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models

from spacy_slmre.training.folders import writing_to
from spacy_slmre.training.settings import TuningError

FULL = Path("/dev/full")
WRITERS = {
    "text": lambda: FULL.write_text("much"),
    "torch": lambda: torch.save({"weights": torch.zeros(100_000)}, FULL),
    "tokenizers": lambda: Tokenizer(models.WordLevel({"a": 0}, "a")).save(str(FULL)),
}


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_writer_is_understood(write, tmp_path: Path) -> None:
    told = r"could not be written .* GB are free .* --resume"
    with pytest.raises(TuningError, match=told), writing_to(tmp_path):
        write()


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), RuntimeError("shapes differ")])
def test_other_errors_stay_as_they_are(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as raised, writing_to(tmp_path):
        raise error
    assert raised.value is error
