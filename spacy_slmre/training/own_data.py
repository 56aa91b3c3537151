"""Make a tuning config for annotated data, with settings that suit the amount of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc

from spacy_slmre.corpus.gold_docs import holdout_positions, holdout_share
from spacy_slmre.corpus.readers import relation_corpus
from spacy_slmre.gold import gold_pairs
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.causal_lm.sequences import LENGTH_ROUND_TO
from spacy_slmre.models.hub import PACKAGED_BASE
from spacy_slmre.training.config import TrainingSettings, TuningError, parse_config, resolve_config
from spacy_slmre.training.data import PackedDataset, TuningSet, read_sets
from spacy_slmre.training.trainer import LOGGING_STEPS
from spacy_slmre.training.tune import load_ner, render_template
from spacy_slmre.util.settings import check_language

HOLDOUT = 0.2
"""Fraction of the documents held out if there is no dev data."""
MIN_STEPS, N_EPOCHS = 100, 3
"""Training takes at least this many steps and passes through the data."""
MIN_SEQUENCES = 12
"""Number of sequences that a pass is divided into, if they do not get too short."""
MIN_ROOM, MAX_ROOM = 256, 1024
"""Tokens of a sequence after the instruction."""
MAX_NEGATIVES = 10.0
"""Maximum number of pairs without a relation for each pair with one."""
N_EVALUATIONS = 4
ENCODER_WEIGHT = 0.5
"""Weight of the encoder that is trained, too, if the language model is the packaged one (larger ones: not measured)."""


def make_config(
    data: Path,
    *,
    dev: Path | None = None,
    schema: str | None = None,
    ner: str | None = None,
    lang: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> str:
    """Return a complete tuning config, with comments.

    Args:
        data: Annotations in any form that `slmre convert` recognizes.
        dev: Annotations to choose the best checkpoint with; by default, documents of `data` are held out.
        schema: File with the labels; by default, those that occur.
        ner: Pipeline that finds the entities in raw text.
        lang: Language, if there is no such pipeline; English by default.
        overrides: Settings that will be overridden, such as "model.base", whose tokenizer counts the tokens.
        log: Reports what was read and chosen.

    Raises:
        TuningError: There are too few documents, or no relations.
        ValueError: The data cannot be read.
    """
    values: dict[str, Any] = {
        "data": str(data),
        "dev": None if dev is None else str(dev),
        "schema": schema,
        "ner": ner,
        "lang": (lang or "en") if ner is None else load_ner(ner).lang,
    }
    check_language(values["lang"], "tune.lang", TuningError)
    for name in (data, dev, schema, ner):
        if name is not None and "$" in str(name):
            raise TuningError(f'{name} contains "$", which stands for a variable in configs. Rename it.')
    if dev is not None and dev.resolve() == data.resolve():
        raise TuningError(
            f"The dev data {dev} are also the training data, so their score would say nothing about new texts. Leave "
            "the dev data out, so that some documents are held out, or pass other documents."
        )
    docs = _read(data, values["lang"])
    if not any(doc._.relations for doc, _ in docs):
        raise TuningError(f"None of the {len(docs)} annotated documents of {data} has a relation.")
    if dev is None:
        if len({position for _, position in docs}) < 2:
            parts = f" (in {len(docs)} parts with the same id or text)" if len(docs) > 1 else ""
            raise TuningError(f"{data} has only 1 annotated document{parts}. Annotate more, or pass dev data.")
        values["holdout"] = holdout_share(docs, HOLDOUT)
    is_packaged = (overrides or {}).get("model.base", PACKAGED_BASE) == PACKAGED_BASE
    values["encoder_weight"] = ENCODER_WEIGHT if is_packaged else 0.0
    # Provisional values, to count tokens with.
    values |= {"max_tokens": 100_000, "max_steps": MIN_STEPS, "eval_steps": MIN_STEPS, "negatives": None}
    provisional = {name: value for name, value in (overrides or {}).items() if not name.startswith("training.")}
    config = resolve_config(parse_config(_render(values), provisional), str(data))
    sets = read_sets(config)
    if len(sets) != 1:
        names = ", ".join(one.name for one in sets)
        raise TuningError(f"{data} has several label sets ({names}): pass a schema with the labels that you want.")
    if len(labels := sets[0].schema.names) == 1:
        raise TuningError(
            f'All annotated pairs of {data} have the label "{labels[0]}", so there is nothing to learn. Annotate pairs '
            "without a relation, or sample other pairs of entities as such: --corpora.train.negatives 2"
        )
    values |= choose_settings(config.model, sets[0])
    counts = _count(sets[0])
    values |= counts
    if dev is None:
        n_dev = sum(position < values["holdout"] for _, position in docs)
        values |= {"n_train": len(docs) - n_dev, "n_dev": n_dev}
    else:
        values |= {"n_train": len(docs), "n_dev": len(_read(dev, values["lang"]))}
    log(
        f"{values['n_train']:,} documents to train on, {values['n_dev']:,} to choose the best checkpoint with; "
        f"{counts['n_pairs']:,} pairs, {counts['n_positives']:,} of them with a relation; labels: "
        f"{', '.join(sets[0].schema.positive_names)}"
    )
    steps, length = ((overrides or {}).get(f"training.{name}", values[name]) for name in ("max_steps", "max_tokens"))
    log(f"At most {steps} steps with sequences of up to {length} tokens")
    if not is_packaged:
        log("Only the language model is trained: the shipped encoder is for the packaged base model")
    return _render(values)


def choose_settings(lm: SmallLM, data: TuningSet) -> dict[str, Any]:
    """Return the length and number of training steps, and the number of negative pairs for each positive one.

    A small data set needs many updates: with sequences as long as for a large one, two steps would cover thirty
    sentences.

    Raises:
        TuningError: No training or dev pair has a relation.
    """
    negative = data.schema.negative_label
    n_positives = {}
    for split, rows in (("training", data.train), ("dev", data.dev)):
        n_positives[split] = sum(one.label != negative for one in rows)
        if not n_positives[split]:
            raise TuningError(
                f"None of the {len(rows)} {split} pairs has a relation. Annotate more documents, or pass dev data that "
                "have relations."
            )
    ratio = len(data.train) / n_positives["training"] - 1
    negatives = MAX_NEGATIVES if ratio > MAX_NEGATIVES else None
    share = (MAX_NEGATIVES + 1) / (ratio + 1) if negatives else 1.0
    prefix = len(lm.prompts.prefix(data.schema))
    dataset = PackedDataset(lm, [data], TrainingSettings(max_tokens=prefix + MAX_ROOM))
    n_tokens = (dataset.counts()["tokens_per_epoch"] - prefix * len(dataset)) * share
    contexts = lm.prompts.contexts(list({one.context for one in data.train}))
    longest = max(map(len, contexts)) + LENGTH_ROUND_TO
    room = min(max(ceil(n_tokens / MIN_SEQUENCES), MIN_ROOM, longest), MAX_ROOM)
    room += -(room + prefix) % LENGTH_ROUND_TO
    steps = max(MIN_STEPS, N_EPOCHS * ceil(n_tokens / room))
    return {
        "max_tokens": room + prefix,
        "max_steps": steps,
        # A resumed run only logs the same mean losses, which decide when it stops, if it continues after a log entry.
        "eval_steps": LOGGING_STEPS * ceil(steps / N_EVALUATIONS / LOGGING_STEPS),
        "negatives": negatives,
    }


def _count(data: TuningSet) -> dict[str, int]:
    rows = [*data.train, *data.dev]
    positives = sum(one.label != data.schema.negative_label for one in rows)
    return {"n_pairs": len(rows), "n_positives": positives, "n_labels": len(data.schema.positive_names)}


def _read(path: Path, lang: str) -> list[tuple[Doc, float]]:
    """Return the documents with known pairs, and their `holdout_positions`."""
    docs = (example.reference for example in relation_corpus(path)(spacy.blank(lang)))
    return [(doc, position) for doc, position in holdout_positions(docs) if gold_pairs(doc).known_pairs()]


def _render(values: dict[str, Any]) -> str:
    defaults = dict.fromkeys(("n_train", "n_dev", "n_pairs", "n_positives", "n_labels", "holdout"), 0)
    return render_template("own.cfg.jinja", **{**defaults, **values})
