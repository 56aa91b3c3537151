from __future__ import annotations

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Span

from spacy_slmre.instances import Context, ContextTruncater, Mention, RelationInstance, make_instances
from spacy_slmre.schema import LabelSchema

SCHEMA = LabelSchema.from_labels(["knows"])


def test_instances_of_a_sentence_share_their_context() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    doc = nlp("  Zoë met Bo.  Ann saw 🦊 Rome and Bo. ")
    names = {"Zoë": "PERSON", "Bo": "PERSON", "Ann": "PERSON", "Rome": "GPE"}
    doc.ents = [Span(doc, t.i, t.i + 1, names[t.text]) for t in doc if t.text in names]
    zoe, bo, ann, rome, bo2 = doc.ents
    pairs = [(ann, rome), (zoe, bo), (rome, ann), (bo2, ann), (bo, ann)]
    instances = make_instances(doc, pairs, SCHEMA)
    for instance, (head, tail) in zip(instances, pairs, strict=True):
        assert instance.text_of(instance.head_mention) == head.text
        assert instance.text_of(instance.tail_mention) == tail.text
        assert instance.context.text == instance.context.text.strip()
    assert instances[0].context is instances[2].context is instances[3].context
    assert instances[0].context.text == "Ann saw 🦊 Rome and Bo."
    assert [mention.type for mention in instances[0].context.mentions] == ["PER", "LOC", "PER"]
    assert instances[4].context.text == "Zoë met Bo.  Ann saw 🦊 Rome and Bo."


def test_instance_survives_json_and_bad_offsets_raise_an_error() -> None:
    instance = RelationInstance.from_offsets("Ann met Bo", (8, 10, "PER"), (0, 3, "PER"), "knows")
    again = RelationInstance.from_dict(instance.to_dict())
    assert again.to_dict() == instance.to_dict() and again.head == 1 and again.tail == 0
    with pytest.raises(ValueError, match="outside the text"):
        RelationInstance.from_offsets("Ann", (0, 9, ""), (0, 3, ""))
    with pytest.raises(ValueError, match=r'"head" and "tail" as \[start, end, type\]'):
        RelationInstance.from_dict({"text": "Ann", "head": [0, 3]})


@given(st.data())
def test_truncated_contexts_contain_their_pair(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(["a", "bb", "ccc", "é́", "🦊"]), min_size=1, max_size=40))
    text = " ".join(words)
    offsets, position = [], 0
    for word in words:
        offsets.append((position, position + len(word)))
        position += len(word) + 1
    spans = data.draw(st.lists(st.tuples(st.integers(0, len(words) - 1), st.integers(1, 4)), min_size=2, max_size=6))
    mentions = tuple(sorted({Mention(offsets[s][0], offsets[min(s + n, len(words)) - 1][1], "T") for s, n in spans}))
    context = Context(text, mentions)
    budget = data.draw(st.integers(1, 45))
    truncate = ContextTruncater(context, offsets, budget)
    for head in range(len(mentions)):
        for tail in range(len(mentions)):
            whole = RelationInstance(context, head, tail)
            short = truncate(whole)
            start = min(mentions[head].start, mentions[tail].start)
            end = max(mentions[head].end, mentions[tail].end)
            needed = sum(start <= s and e <= end for s, e in offsets)
            assert (short is None) == (needed > budget)
            if short is not None:
                assert len(short.context.text.split()) <= budget
                assert short.context.text in text
                assert short.text_of(short.head_mention) == whole.text_of(whole.head_mention)
                assert short.text_of(short.tail_mention) == whole.text_of(whole.tail_mention)


def test_a_mention_may_begin_with_characters_that_the_tokenizer_drops() -> None:
    text = "\u200bAnn met Bo\u200b"
    context = Context(text, (Mention(0, 4, "PER"), Mention(9, 12, "PER")))
    offsets = [(1, 4), (5, 8), (9, 11)]
    short = ContextTruncater(context, offsets, 3)(RelationInstance(context, 0, 1))
    assert short is not None and short.text_of(short.head_mention) == "\u200bAnn"
