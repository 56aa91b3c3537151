"""Check that packed scoring predicts the labels of exhaustive scoring, and compare precisions.

The packaged model is stored in Q4_1: "bfloat16" has these values, and NF4 quantizes them once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import read_instances
from rich.progress import track
from transformers import DynamicCache

from spacy_slmre.instances import RelationInstance
from spacy_slmre.metrics import count
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.schema import LabelSchema
from speed.options import Options
from speed.timing import console

PRECISIONS: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16", "quantization": None},
    "NF4, dequantized to bfloat16": {"dtype": "bfloat16", "quantization": "nf4"},
    "NF4, kept in 4 bits, bfloat16": {"dtype": "bfloat16", "quantization": "nf4", "keep_4bit": True},
}
MAX_CONTEXT_TOKENS = 512


def equality(options: Options) -> dict[str, Any]:
    """Compare packed scoring with separate prompts in float32, and then with other precisions."""
    lm = _load(options, dtype="float32", quantization=None)
    instances, schema = _read(options, lm)
    gold = [str(instance.label) for instance in instances]
    columns = lm.top_k(instances, schema)[0][:, 0]
    exhaustive = exhaustive_labels(lm, instances, schema)
    reference = _micro_f1(gold, columns, schema)
    rows = [
        {
            "precision": "float32, one prompt at a time, every label",
            "equal": float((exhaustive == columns).mean()),
            "micro_f1": _micro_f1(gold, exhaustive, schema),
        }
    ]
    del lm
    for name, make in PRECISIONS.items():
        console.print(f"equality: {name}")
        found = _load(options, **make).top_k(instances, schema)[0][:, 0]
        rows.append(
            {"precision": name, "equal": float((found == columns).mean()), "micro_f1": _micro_f1(gold, found, schema)}
        )
    return {
        "corpus": "/".join(options.corpus.parts[-2:]) if options.corpus else "",
        "adapter": options.adapter is not None,
        "instances": len(instances),
        "labels": len(schema.labels),
        "micro_f1": reference,
        "rows": rows,
    }


def exhaustive_labels(lm: SmallLM, instances: Sequence[RelationInstance], schema: LabelSchema) -> np.ndarray:
    """Return the column of the most probable label, (n_instances,), without trie, tree or prefix cache.

    Each prompt is computed by itself, followed by all labels as a padded batch. A label's probability is the product
    over its tokens of a softmax over the tokens that labels with the same beginning have at that position.
    """
    answers = lm.prompts.answers(schema)
    prefix = lm.prompts.prefix(schema)
    longest = max(map(len, answers))
    padded = torch.full((len(answers), longest), lm.prompts.end_token)
    for row, answer in enumerate(answers):
        padded[row, : len(answer)] = torch.tensor(answer)
    siblings = [
        [
            sorted({other[depth] for other in answers if other[:depth] == answer[:depth] and len(other) > depth})
            for depth in range(len(answer))
        ]
        for answer in answers
    ]
    found = np.zeros(len(instances), dtype=int)
    network, device = lm.network, lm.network.device
    for place, instance in enumerate(track(instances, "one prompt at a time", console=console)):
        context = lm.prompts.contexts([instance.context])[0]
        prompt = torch.tensor([[*prefix, *context, *lm.prompts.queries([instance])[0]]], device=device)
        with torch.inference_mode():
            cache = DynamicCache(config=network.config)
            first = network(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            cache.batch_repeat_interleave(len(answers))
            behind = network(input_ids=padded[:, :-1].to(device), past_key_values=cache).logits
            logits = torch.cat([first.expand(len(answers), -1, -1), behind], dim=1).double().cpu()
        scores = [
            sum(
                float(torch.log_softmax(logits[row, depth, tokens], dim=-1)[tokens.index(answer[depth])])
                for depth, tokens in enumerate(siblings[row])
            )
            for row, answer in enumerate(answers)
        ]
        found[place] = int(np.argmax(scores))
    return found


def _load(options: Options, **make: Any) -> SmallLM:
    base = None if options.adapter else options.base
    return make_small_lm(base=base, adapter=options.adapter, device=options.device, **make).load()


def _read(options: Options, lm: SmallLM) -> tuple[list[RelationInstance], LabelSchema]:
    """Return the first instances that fit, and the labels of the adapter or else of the corpus."""
    assert options.corpus is not None
    instances, schema = read_instances(options.corpus, lm.schema, options.instances)
    fitting = lm.truncate(instances[: options.instances], schema, MAX_CONTEXT_TOKENS)
    return [one for one in fitting if one is not None], schema


def _micro_f1(gold: Sequence[str], columns: np.ndarray, schema: LabelSchema) -> float:
    """Return the micro-F1 of the positive labels."""
    answers = [schema.names[column] for column in columns]
    sides = (
        [(row, label) for row, label in enumerate(side) if label != schema.negative_label] for side in (gold, answers)
    )
    return count(*sides).f1
