"""Packed, cached, best-first scoring equals one separate prompt an instance, every label scored."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.models.causal_lm import attention, packing
from spacy_slmre.models.prompts import PromptStyle
from spacy_slmre.schema import LabelSchema, RelationLabel

WORDS = [
    "Ann",
    "Bo",
    "Rome",
    "was",
    "born",
    "in",
    "the",
    "Red",
    "Mill",
    "é́",
    "🦊",
    "\n",
    "<|im_end|>",
    "[1",
    "1976",
]
STEMS = ["place", "place of", "place of birth", "place of death", "member", "member of", "author", "x", "é"]
TOLERANCE = 1e-4


@st.composite
def schemas(draw: st.DrawFn) -> LabelSchema:
    kind = draw(st.sampled_from(["shared beginnings", "single", "hundred"]))
    if kind == "single":
        return LabelSchema((RelationLabel("only", draw(st.sampled_from(STEMS))),), negative_label=None)
    if kind == "hundred":
        return LabelSchema.from_labels([f"relation {n} of {n % 7}" for n in range(99)])
    wordings = draw(st.lists(st.sampled_from(STEMS), min_size=1, max_size=8, unique=True))
    return LabelSchema.from_labels(wordings)


@st.composite
def instance_lists(draw: st.DrawFn) -> list[RelationInstance]:
    instances = []
    for _ in range(draw(st.integers(1, 3))):
        words = draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=14))
        text = " ".join(words)
        starts = np.cumsum([0] + [len(word) + 1 for word in words])
        spans = draw(
            st.lists(
                st.tuples(st.integers(0, len(words) - 1), st.integers(1, 3)),
                min_size=2,
                max_size=5,
                unique=True,
            )
        )
        mentions = sorted(
            {
                Mention(
                    int(starts[s]),
                    int(starts[min(s + n, len(words))] - 1),
                    draw(st.sampled_from(["PER", "LOC", ""])),
                )
                for s, n in spans
            }
        )
        context = Context(text, tuple(mentions))
        pairs = [(h, t) for h in range(len(mentions)) for t in range(len(mentions)) if h != t]
        chosen = draw(st.lists(st.sampled_from(pairs), max_size=6)) if pairs else []
        instances += [RelationInstance(context, h, t) for h, t in chosen]
    return draw(st.permutations(instances))


def separate_log_probs(lm, instances, schema) -> np.ndarray:
    """Every label of every instance in a forward pass of its own, written without trie, tree or cache."""
    answers = lm.prompts.answers(schema)
    result = np.zeros((len(instances), len(answers)))
    prefix = lm.prompts.prefix(schema)
    for row, instance in enumerate(instances):
        context = lm.prompts.contexts([instance.context])[0]
        prompt = prefix + context + lm.prompts.queries([instance])[0]
        for column, answer in enumerate(answers):
            tokens = torch.tensor([prompt + answer])
            mask = torch.ones(len(tokens[0]), len(tokens[0]), dtype=torch.bool).tril()
            if lm.prompts.style.two_way:
                inside = slice(len(prefix), len(prefix) + len(context))
                mask[inside, inside] = True
            with torch.no_grad():
                logits = lm.network(input_ids=tokens, attention_mask=mask[None, None]).logits[0].double()
            for depth, token in enumerate(answer):
                siblings = sorted(
                    {a[depth] for a in answers if a[:depth] == answer[:depth] and len(a) > depth}
                )
                log_probs = torch.log_softmax(logits[len(prompt) + depth - 1, siblings], dim=-1)
                result[row, column] += float(log_probs[siblings.index(token)])
    return result


@pytest.fixture(params=["llama", "qwen2", "smollm3"])
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    instances=instance_lists(),
    schema=schemas(),
    budget=st.sampled_from([1, 90, 1024]),
    cache=st.booleans(),
    group_size=st.sampled_from([1, 20, attention.GROUP_SIZE]),
    keys_round_to=st.sampled_from([1, attention.KEYS_ROUND_TO]),
    two_way=st.booleans(),
)
def test_packed_equals_separate(
    make_lm, architecture, instances, schema, budget, cache, group_size, keys_round_to, two_way
) -> None:
    style = PromptStyle(two_way=two_way)
    lm = make_lm(architecture, max_batch_tokens=budget, prefix_cache=cache, style=style)
    expected = separate_log_probs(lm, instances[:2], schema)
    for training in (False, True):
        lm.network.train(training)
        with (
            patch.object(attention, "GROUP_SIZE", group_size),
            patch.object(attention, "KEYS_ROUND_TO", keys_round_to),
        ):
            log_probs = lm.log_probs(instances, schema)
        assert log_probs.shape == (len(instances), len(schema.labels))
        np.testing.assert_allclose(log_probs[:2], expected, atol=TOLERANCE)
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, atol=1e-6)
        assert lm.network.training is training


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instances=instance_lists(), schema=schemas(), k=st.integers(1, 5), data=st.data())
def test_best_is_exact(make_lm, architecture, instances, schema, k, data) -> None:
    lm = make_lm(architecture)
    n_labels = len(schema.labels)
    allowed = None
    if data.draw(st.booleans()):
        flags = st.lists(st.booleans(), min_size=n_labels, max_size=n_labels)
        allowed = np.array([data.draw(flags) for _ in instances], dtype=bool).reshape(
            len(instances), n_labels
        )
    log_probs = lm.log_probs(instances, schema)
    masked = log_probs if allowed is None else np.where(allowed, log_probs, -np.inf)
    columns, best = lm.top_k(instances, schema, k, allowed)
    assert columns.shape == best.shape == (len(instances), min(k, n_labels))
    np.testing.assert_allclose(best, -np.sort(-masked, axis=1)[:, :k], atol=TOLERANCE)
    found = best > -np.inf
    np.testing.assert_allclose(
        np.take_along_axis(masked, columns, axis=1)[found], best[found], atol=TOLERANCE
    )


def test_prefix_is_computed_anew_when_weights_change(make_lm) -> None:
    schema = LabelSchema.from_labels(["place of birth", "employer"])
    instance = RelationInstance.from_offsets("Ann was born in Rome", (0, 3, "PER"), (16, 20, "LOC"))
    lm = make_lm()
    before = lm.log_probs([instance], schema)
    np.testing.assert_array_equal(lm.log_probs([instance], schema), before)
    with torch.no_grad():
        lm.network.model.layers[0].self_attn.v_proj.weight.mul_(-1.0)
    after = lm.log_probs([instance], schema)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, separate_log_probs(lm, [instance], schema), atol=TOLERANCE)


def test_schemas_do_not_share_a_prefix(make_lm) -> None:
    instance = RelationInstance.from_offsets("Ann was born in Rome", (0, 3, "PER"), (16, 20, "LOC"))
    lm = make_lm()
    for labels in (
        ["place of birth", "employer"],
        ["employer", "author", "sibling"],
        ["place of birth", "employer"],
    ):
        schema = LabelSchema.from_labels(labels)
        np.testing.assert_allclose(
            lm.log_probs([instance], schema), separate_log_probs(lm, [instance], schema), atol=TOLERANCE
        )


def test_a_sequence_keeps_to_its_budget_when_all_labels_are_scored(make_lm) -> None:
    lm = make_lm(max_batch_tokens=300)
    schema = LabelSchema.from_labels([f"relation {n} of {n % 7}" for n in range(99)])
    text = " ".join(f"Ann{n}" for n in range(6))
    mentions = tuple(Mention(5 * n, 5 * n + 4, "PER") for n in range(6))
    context = Context(text, mentions)
    instances = [RelationInstance(context, h, t) for h in range(6) for t in range(6) if h != t]
    with patch.object(lm, "_forward", wraps=lm._forward) as forward:
        lm.log_probs(instances, schema)
    prefix = len(lm.prompts.prefix(schema))
    lengths = [len(call.args[0]) - prefix for call in forward.call_args_list]
    assert len(lengths) > 4 and 200 < max(lengths) <= 300 + 4 * packing.ROUND_TO
