"""What all parts of the benchmark are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Settings of a run; `inference.py --help` says what each means."""

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
    pythons: Mapping[str, str] = field(default_factory=dict)

    def scaled(self, number: int) -> int:
        """A number of things to measure, or a few with `--quick`."""
        return min(number, 2) if self.quick else number
