"""The model card of a tuned pipeline, written from the run."""

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

# Settings that change how fast a model runs and not what it answers.
_RUNTIME = ("trackers",)


def model_card(
    config: TuningConfig,
    lm: SmallLM,
    sets: Sequence[TuningSet],
    metrics: Mapping[str, Any],
    record: Mapping[str, Any],
) -> str:
    """The card as Markdown.

    Args:
        config: The run's config.
        lm: The model.
        sets: What it was tuned on.
        metrics: What came out.
        record: Hashes and versions.
    """
    template = (files("spacy_slmre.training") / "card.md.jinja").read_text("utf-8")
    cards = all_formats()
    sources = [(name, one, pairs) for one in sets for name, pairs in one.sources.items()]
    data = [
        {
            "title": cards[name].title if name in cards else name,
            "license": cards[name].license if name in cards else "see its source",
            "citation": cards[name].citation if name in cards else "",
            "labels": len(one.schema.labels),
            "pairs": pairs,
        }
        for name, one, pairs in sources
    ]
    training = {
        name: metrics.get(name, value)  # what memory did not suffice for was changed
        for name, value in vars(config.training).items()
        if name not in _RUNTIME
    }
    return (
        Environment(trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(
            base=record["base"],
            form=resolve_quantization(lm.locate(), lm.quantization),
            lang=config.run.lang,
            shots=config.run.shots,
            regime=config.run.regime,
            data=data,
            training=training,
            lora=vars(config.lora),
            metrics=metrics,
            versions=record["versions"],
            scores=metrics["scores"]["sets"],
            closed=[cards[name].title for name, *_ in sources if name in cards and _is_closed(name)],
        )
    )


def _is_closed(name: str) -> bool:
    return not all_formats()[name].redistributable
