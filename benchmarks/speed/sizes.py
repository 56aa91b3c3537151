"""Packed label scoring by precision, pairs per sentence, number of labels, context length and batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.models.hub import resolve_device, resolve_dtype
from speed.options import Options
from speed.timing import console, exponent, in_turns, median, ratios
from speed.workload import make_instances, make_schema, make_sentences

PAIRS = (1, 2, 6, 12, 30)
LABELS = (5, 19, 40, 96)
WORDS = {30: 0, 60: 30, 120: 90, 240: 210, 400: 370}
"""Approximate tokens of a context, and the filler words that make it so long."""
BATCHES = (128, 256, 512, 1024, 2048)
MEASURED = 48
"""Approximate number of pairs measured at each size."""


def sizes(options: Options) -> dict[str, Any]:
    """Measure pairs per second at each size, and how the cost grows."""
    lm = make_small_lm(base=options.base, adapter=None, dtype=options.dtype, device=options.device).load()
    return {
        "pairs": _by_pairs(lm, options),
        "labels": _by_labels(lm, options),
        "context": _by_context(lm, options),
        "batch": _by_batch(lm, options),
        "precision": _by_precision(options),
    }


def _by_pairs(lm: SmallLM, options: Options) -> dict[str, Any]:
    """Vary the pairs of sentences with six entities; the cost is that of a sentence."""
    works = {
        pairs: make_instances(make_sentences(options.scaled(max(2, MEASURED // pairs)), pairs, entities=6))
        for pairs in _some(PAIRS, options)
    }
    rows = _rows(works, _ways(lm, works), options.rounds)
    for row in rows:
        row["cost_ms"] = row["ms_a_pair"] * row["size"]
    return _grown("pairs a sentence", "a sentence", rows)


def _by_labels(lm: SmallLM, options: Options) -> dict[str, Any]:
    instances = make_instances(make_sentences(options.scaled(MEASURED // 12), 12))
    ways = {labels: partial(lm.top_k, instances, make_schema(labels)) for labels in _some(LABELS, options)}
    rows = _rows(dict.fromkeys(ways, instances), ways, options.rounds)
    for row in rows:
        row["cost_ms"] = row["ms_a_pair"]
    return _grown("labels", "a pair", rows)


def _by_context(lm: SmallLM, options: Options) -> dict[str, Any]:
    works = {
        tokens: make_instances(make_sentences(options.scaled(MEASURED // 12), 12, words=words))
        for tokens, words in _some(list(WORDS.items()), options)
    }
    rows = _rows(works, _ways(lm, works), options.rounds)
    for row in rows:
        context = works[row["size"]][0].context
        row["size"] = len(lm.prompts.contexts([context])[0])
        row["cost_ms"] = row["ms_a_pair"]
    return _grown("tokens of the context", "a pair", rows)


def _by_batch(lm: SmallLM, options: Options) -> dict[str, Any]:
    instances = make_instances(make_sentences(options.scaled(2 * MEASURED // 12), 12))
    schema = make_schema()
    ways: dict[int, Callable[[], object]] = {}
    for tokens in _some(BATCHES, options):
        settings = replace(lm.settings, max_batch_tokens=tokens)
        resized = SmallLM(settings, lm.resolved).load()  # shares the weights
        ways[tokens] = partial(resized.top_k, instances, schema)
    rows = _rows(dict.fromkeys(ways, instances), ways, options.rounds)
    return {"size": "max_batch_tokens", "rows": rows}


def _by_precision(options: Options) -> dict[str, Any]:
    """Vary the stored form of the weights and the compute type; ratios are to bfloat16."""
    device = resolve_device(options.device)
    dtype = str(resolve_dtype(options.dtype, device)).removeprefix("torch.")
    makes: dict[str, dict[str, Any]] = {
        "float32": {"dtype": "float32", "quantization": None},
        "bfloat16": {"dtype": "bfloat16", "quantization": None},
        f"NF4, dequantized to {dtype}": {"dtype": dtype, "quantization": "nf4"},
        "NF4, dequantized to bfloat16": {"dtype": "bfloat16", "quantization": "nf4"},
        f"NF4, kept in 4 bits, {dtype}": {"dtype": dtype, "quantization": "nf4", "keep_4bit": True},
    }
    if device.type != "cpu":  # GPUs compute with 4-bit weights
        makes = {name: make for name, make in makes.items() if "dequantized" not in name}
    instances = make_instances(make_sentences(options.scaled(2), 12))
    models = {
        name: make_small_lm(base=options.base, adapter=None, device=options.device, **make).load()
        for name, make in _some(list(makes.items()), options)
    }
    ways = {name: partial(lm.top_k, instances, make_schema()) for name, lm in models.items()}
    rows = _rows(dict.fromkeys(ways, instances), ways, options.rounds)
    half = next(row for row in rows if row["size"] == "bfloat16")
    for row in rows:
        row["to_bfloat16"] = median(ratios(half["seconds"], row["seconds"]))
        weights = models[row["size"]].network
        row["weights_gb"] = sum(one.numel() * one.element_size() for one in weights.parameters()) / 1e9
    if device.type == "cpu" and resolve_dtype("auto", device) != torch.bfloat16:
        return {"size": "precision", "rows": rows, "note": "this processor has no instructions for bfloat16"}
    return {"size": "precision", "rows": rows}


def _some(sizes: Sequence[Any], options: Options) -> Sequence[Any]:
    return sizes[:2] if options.quick else sizes


def _ways(lm: SmallLM, works: Mapping[Any, Sequence[RelationInstance]]) -> dict[Any, Callable[[], object]]:
    schema = make_schema()
    return {size: partial(lm.top_k, instances, schema) for size, instances in works.items()}


def _rows(
    works: Mapping[Any, Sequence[RelationInstance]], ways: Mapping[Any, Callable[[], object]], rounds: int
) -> list[dict[str, Any]]:
    console.print(f"sizes: {', '.join(map(str, ways))}")
    seconds = in_turns(ways, rounds)
    return [
        {
            "size": size,
            "pairs": len(works[size]),
            "pairs_s": len(works[size]) / median(seconds[size]),
            "ms_a_pair": 1000 * median(seconds[size]) / len(works[size]),
            "seconds": seconds[size],
        }
        for size in ways
    ]


def _grown(size: str, cost_of: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows with the exponent that fits their cost."""
    growth = exponent([row["size"] for row in rows], [row["cost_ms"] for row in rows])
    return {"size": size, "cost_of": cost_of, "rows": rows, "exponent": growth}
