"""Whether packed scoring gives the labels of exhaustive scoring, and what fewer bits change.

The packaged model lies in Q4_1: "bfloat16" has these values, and NF4 rounds them once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import spacy
import torch
from rich.progress import track
from transformers import DynamicCache

from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.corpus.gold_docs import format_of
from spacy_slmre.instances import RelationInstance, make_gold_instances
from spacy_slmre.metrics import count
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.relations import install_extensions
from spacy_slmre.schema import LabelSchema
from speed.options import Options
from speed.timing import console

PRECISIONS: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16", "quantization": None},
    "NF4, brought back to bfloat16": {"dtype": "bfloat16", "quantization": "nf4"},
    "NF4, kept in 4 bits, bfloat16": {"dtype": "bfloat16", "quantization": "nf4", "keep_4bit": True},
}
MOST_CONTEXT_TOKENS = 512


def equality(options: Options) -> dict[str, Any]:
    """Labels of packed scoring against one prompt at a time in float32, then of other precisions.

    Raises:
        SystemExit: The corpus has no labels of its own, or the adapter was tuned on texts read two ways.
    """
    lm = _load(options, dtype="float32", quantization=None)
    if lm.prompts.style.two_way:
        raise SystemExit("Prompts one at a time are read one way: give an adapter that was tuned so.")
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
            {
                "precision": name,
                "equal": float((found == columns).mean()),
                "micro_f1": _micro_f1(gold, found, schema),
            }
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
    """The most probable label of each instance, without trie, tree or kept prefix: columns (n_instances,).

    Every prompt is read in full and alone; behind it, all labels are read as a padded batch, and a label's
    probability is the product over its tokens of a softmax over those that other labels have there too.
    """
    answers = lm.prompts.answers(schema)
    prefix = lm.prompts.prefix(schema)
    longest = max(map(len, answers))
    padded = torch.full((len(answers), longest), lm.prompts.end_token)
    for row, answer in enumerate(answers):
        padded[row, : len(answer)] = torch.tensor(answer)
    siblings = [
        [
            sorted(
                {other[depth] for other in answers if other[:depth] == answer[:depth] and len(other) > depth}
            )
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
    """The first instances that fit, and the labels of the adapter or else of the corpus."""
    install_extensions()
    instances: list[RelationInstance] = []
    schema = lm.schema
    assert options.corpus is not None
    for doc in read_docs(options.corpus, spacy.blank("en").vocab):
        if lm.schema is None:
            card = format_of(doc)
            if card is None or card.schema is None:
                raise SystemExit(f"{options.corpus} comes from no benchmark with labels of its own.")
            schema = card.schema
        instances += make_gold_instances(doc, schema)
        if len(instances) >= options.instances:
            break
    if schema is None or not instances:
        raise SystemExit(f"{options.corpus} has no documents.")
    fitting = lm.truncate(instances[: options.instances], schema, MOST_CONTEXT_TOKENS)
    return [one for one in fitting if one is not None], schema


def _micro_f1(gold: Sequence[str], columns: np.ndarray, schema: LabelSchema) -> float:
    """Positive-class micro-F1 of answers."""
    answers = [schema.names[column] for column in columns]
    sides = (
        [(row, label) for row, label in enumerate(side) if label != schema.negative_label]
        for side in (gold, answers)
    )
    return count(*sides).f1
