"""Copy a tuned adapter into the package as the default adapter of `slm_relations`.

Usage: python scripts/ship_adapter.py TUNED

TUNED is the output of `python -m spacy project run tune-universal`. Its adapter, metrics and model card replace
those in `spacy_slmre/adapters/universal`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from spacy_slmre.models.causal_lm.adapter import PACKAGED_ADAPTER, WEIGHTS_FILE, Adapter
from spacy_slmre.training.tune import CONFIG_FILE
from spacy_slmre.util.io import temporary_output
from spacy_slmre.util.run_folder import METRICS_FILE, RUN_FILE

LIMIT = 25_000_000
"""Maximum size of the weights in bytes."""
# Replaces the first part of the model card, which describes a pipeline.
ABOUT = """# The adapter for any labels

LoRA weights that `slm_relations` of [spacy-slmre](https://pypi.org/project/spacy-slmre) uses by default
with the packaged SmolLM2-135M-Instruct, for the labels of the general schema or any others. Set
`model.adapter = null` to use the base model alone. `python -m spacy project run universal-corpora` and `python -m
spacy project run tune-universal` tune new ones on the same corpora, in one run.
"""


def main(tuned: Path) -> None:
    """Copy the adapter."""
    source = tuned / "slm_relations" / "model" / "adapter"
    adapter = Adapter.from_folder(source)
    if len(adapter.weights) > LIMIT:
        sys.exit(f"{source / WEIGHTS_FILE} has {len(adapter.weights):,} bytes; at most {LIMIT:,} may be shipped.")
    with temporary_output(PACKAGED_ADAPTER) as folder:
        adapter.to_folder(folder)
        for file in (METRICS_FILE, CONFIG_FILE, RUN_FILE):
            shutil.copy(tuned / file, folder)
        card = (tuned / "README.md").read_text(encoding="utf-8")
        front, results = card[: card.index("\n# ") + 1], card[card.index("\n## Data") :]
        (folder / "README.md").write_text(front + ABOUT + results, encoding="utf-8")
    print(f"{len(adapter.weights):,} bytes of weights in {PACKAGED_ADAPTER}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
