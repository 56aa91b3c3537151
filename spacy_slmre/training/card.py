"""The model card of a tuned pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment

from spacy_slmre.corpus.formats import all_formats
from spacy_slmre.models.causal_lm.loading import resolve_quantization
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.training.config import TuningConfig
from spacy_slmre.training.data import TuningSet


def model_card(
    config: TuningConfig, lm: SmallLM, sets: Sequence[TuningSet], metrics: Mapping[str, Any], record: Mapping[str, Any]
) -> str:
    """Return the model card as Markdown; `metrics` and `record` are the contents of the run's JSON files."""
    formats = all_formats()
    sources = [(name, len(data.schema.labels), n) for data in sets for name, n in data.sources.items()]
    rows = [
        {"name": name, "format": formats.get(name), "labels": n_labels, "pairs": n_pairs}
        for name, n_labels, n_pairs in sources
    ]
    restricted = [formats[name].title for name, *_ in sources if name in formats and not formats[name].redistributable]
    settings = {f"lora.{name}": value for name, value in vars(config.lora).items()}
    settings |= {f"training.{name}": value for name, value in vars(config.training).items()}
    settings.pop("training.report_to")  # does not affect the result
    template = (files("spacy_slmre.training") / "card.md.jinja").read_text("utf-8")
    return (
        Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
        .from_string(template)
        .render(
            base=record["key"]["base"],
            quantization=resolve_quantization(lm.locate(), lm.quantization),
            tune=config.tune,
            adapter_dtype=config.training.adapter_dtype,
            data=rows,
            restricted=restricted,
            settings=settings,
            metrics=metrics,
            scores=metrics["scores"]["sets"],
            versions=record["versions"],
        )
    )
