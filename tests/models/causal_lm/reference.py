"""Example instances, random ones, and a reference: separate prompts, computed without trie, tree or cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.schema import LabelSchema, RelationLabel

TOLERANCE = 1e-4
WORDS = ["Ann", "Bo", "Rome", "was", "born", "in", "the", "Red", "Mill", "é́", "🦊", "\n", "<|im_end|>", "[1", "1976"]
WORDINGS = ["place", "place of", "place of birth", "place of death", "member", "member of", "author", "x", "é"]
SCHEMA = LabelSchema.from_labels(["place of birth", "place of death", "place", "member of", "employer"])


def make_model(**settings: object) -> SmallLM:
    """Make a model that computes in float32 on the CPU, without quantization."""
    return make_small_lm(**{"quantization": None, "dtype": "float32", "device": "cpu", **settings})


def with_labels(instances: Sequence[RelationInstance], schema: LabelSchema) -> list[RelationInstance]:
    """Label instances with the labels of a schema in turn."""
    return [
        RelationInstance(one.context, one.head, one.tail, schema.names[n % len(schema.names)])
        for n, one in enumerate(instances)
    ]


TEXT = "Ann Lee was born in Rome and works for the Red Mill"
CONTEXT = Context(TEXT, (Mention(0, 7, "PER"), Mention(20, 24, "LOC"), Mention(43, 51, "ORG")))
INSTANCES = with_labels(
    [RelationInstance(CONTEXT, head, tail) for head in range(3) for tail in range(3) if head != tail]
    + [RelationInstance.from_offsets(TEXT.upper(), (0, 7, "PER"), (20, 24, "LOC"))],
    SCHEMA,
)


@st.composite
def schemas(draw: st.DrawFn) -> LabelSchema:
    kind = draw(st.sampled_from(["shared beginnings", "single", "hundred"]))
    if kind == "single":
        return LabelSchema((RelationLabel("only", draw(st.sampled_from(WORDINGS))),), negative_label=None)
    if kind == "hundred":
        return LabelSchema.from_labels([f"relation {n} of {n % 7}" for n in range(99)])
    return LabelSchema.from_labels(draw(st.lists(st.sampled_from(WORDINGS), min_size=1, max_size=8, unique=True)))


@st.composite
def instance_lists(draw: st.DrawFn) -> list[RelationInstance]:
    instances = []
    for _ in range(draw(st.integers(1, 3))):
        words = draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=14))
        starts = np.cumsum([0] + [len(word) + 1 for word in words]).tolist()
        span = st.tuples(st.integers(0, len(words) - 1), st.integers(1, 3))
        spans = draw(st.lists(span, min_size=2, max_size=5, unique=True))
        types = st.sampled_from(["PER", "LOC", ""])
        mentions = {Mention(starts[s], starts[min(s + n, len(words))] - 1, draw(types)) for s, n in spans}
        context = Context(" ".join(words), tuple(sorted(mentions)))
        pairs = [(h, t) for h in range(len(mentions)) for t in range(len(mentions)) if h != t]
        chosen = draw(st.lists(st.sampled_from(pairs), max_size=6)) if pairs else []
        instances += [RelationInstance(context, head, tail) for head, tail in chosen]
    return draw(st.permutations(instances))


def separate_logits(lm: SmallLM, instance: RelationInstance, schema: LabelSchema, answer: list[int]) -> torch.Tensor:
    """Return the logits that predict each token of an answer, (n_tokens, n_vocabulary), from a prompt of its own."""
    prompts = lm.prompts
    prompt = prompts.prefix(schema) + prompts.contexts([instance.context])[0] + prompts.queries([instance])[0]
    return lm.network(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]


def separate_log_probs(
    lm: SmallLM,
    instances: Sequence[RelationInstance],
    schema: LabelSchema,
    columns: Sequence[int] | None = None,
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Return the log-probabilities of labels (all by default), each computed in a forward pass of its own.

    With `allowed`, bool (n_instances, n_labels), others are impossible.
    """
    answers = lm.prompts.answers(schema)
    chosen = [answers[column] for column in range(len(answers)) if columns is None or column in columns]
    result = np.zeros((len(instances), len(chosen)))
    for row, instance in enumerate(instances):
        possible = [answer for n, answer in enumerate(answers) if allowed is None or allowed[row, n]]
        for column, answer in enumerate(chosen):
            if answer not in possible:
                result[row, column] = -np.inf
                continue
            with torch.no_grad():
                logits = separate_logits(lm, instance, schema, answer).double()
            for depth, token in enumerate(answer):
                siblings = sorted({a[depth] for a in possible if a[:depth] == answer[:depth] and len(a) > depth})
                result[row, column] += float(logits[depth, siblings].log_softmax(-1)[siblings.index(token)])
    return result


def separate_loss(
    lm: SmallLM, instance: RelationInstance, schema: LabelSchema, objective: str = "trie"
) -> torch.Tensor:
    """Return the loss of one labeled instance, computed from a prompt of its own."""
    answers = lm.prompts.answers(schema)
    answer = answers[schema.index[instance.label or ""]]
    logits = separate_logits(lm, instance, schema, answer)
    loss = torch.zeros(())
    for depth, token in enumerate(answer):
        if objective == "lm":
            loss = loss - logits[depth].log_softmax(-1)[token]
        else:
            siblings = sorted({a[depth] for a in answers if a[:depth] == answer[:depth]})
            loss = loss - logits[depth, siblings].log_softmax(-1)[siblings.index(token)]
    return loss
