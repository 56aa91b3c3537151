"""Put a tuned adapter into the package: the one that `slm_relations` uses by default.

Usage: python scripts/ship_adapter.py TUNED

TUNED is what `python -m spacy project run tune-general` made. Its adapter, its metrics and its model card
replace what lies in `spacy_slmre/adapters/general`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from spacy_slmre.models.causal_lm.adapter import PACKAGED_ADAPTER, WEIGHTS_FILE, Adapter
from spacy_slmre.training.folders import RUN_FILE
from spacy_slmre.training.run import CONFIG_FILE, METRICS_FILE
from spacy_slmre.util.io import atomic_replace

LIMIT = 12_000_000
"""Bytes of weights that the package may carry."""
# The card is that of a pipeline; this is what takes the place of its first part.
ABOUT = """# The adapter for everyday relations

LoRA weights that `slm_relations` of [spacy-slmre](https://pypi.org/project/spacy-slmre) uses by default on
the packaged SmolLM2-135M-Instruct, for the labels of the general schema. `model.adapter = null` does without
them. They are made again by `python -m spacy project run general-corpus` and
`python -m spacy project run tune-general`.
"""


def main(tuned: Path) -> None:
    """Copy it, complete or not at all."""
    source = tuned / "slm_relations" / "model" / "adapter"
    adapter = Adapter.from_folder(source)
    if len(adapter.weights) > LIMIT:
        sys.exit(f"{source / WEIGHTS_FILE} has {len(adapter.weights):,} bytes; {LIMIT:,} may ship.")
    with tempfile.TemporaryDirectory(dir=PACKAGED_ADAPTER.parent, prefix=".shipping-") as name:
        aside = Path(name) / "general"
        adapter.to_folder(aside)
        for file in (METRICS_FILE, CONFIG_FILE, RUN_FILE):
            shutil.copy(tuned / file, aside)
        card = (tuned / "README.md").read_text(encoding="utf-8")
        front, made = card[: card.index("\n# ") + 1], card[card.index("\n## Data") :]
        (aside / "README.md").write_text(front + ABOUT + made, encoding="utf-8")
        atomic_replace(aside, PACKAGED_ADAPTER)
    print(f"{len(adapter.weights):,} bytes of weights in {PACKAGED_ADAPTER}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
