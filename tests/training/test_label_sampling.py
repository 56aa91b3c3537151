"""Drawing training tasks with random labels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from spacy_slmre.corpus.label_sets import LabelSetCorpus, Paraphrases, Passage
from spacy_slmre.instances import Context, Mention
from spacy_slmre.schema import NEGATIVE, NEGATIVE_LABEL, LabelSchema, RelationLabel
from spacy_slmre.training.label_sampling import LabelSampler, LabelTask, SamplingSettings

LABELS = (
    RelationLabel("author", "author", "the tail wrote the head"),
    RelationLabel("parent", "parent", "the tail is a parent of the head", inverse="child"),
    RelationLabel("child", "child", "the tail is a child of the head", inverse="parent"),
    RelationLabel("spouse", "spouse", "they are married", symmetric=True),
    RelationLabel("employer", "employer", "the head works for the tail"),
)
OFF = {name: 0.0 for name in ("inverse", "paraphrases", "perturbed", "neighbors", "examples", "dropped")}


def make_corpus(number: int = 40) -> LabelSetCorpus:
    """Passages "a0 LABEL b0 c0", with the label from a to b; c is unrelated."""
    passages = []
    for index in range(number):
        label = LABELS[index % len(LABELS)]
        text = f"a{index} {label.name} b{index} c{index}"
        starts = [text.index(f"{letter}{index}") for letter in "abc"]
        mentions = tuple(Mention(start, start + 1 + len(str(index)), "ABC"[n]) for n, start in enumerate(starts))
        labels = {(0, 1): frozenset({label.name})}
        if label.inverse or label.symmetric:
            labels[1, 0] = frozenset({label.inverse or label.name})
        negatives = tuple(
            (head, tail) for head in range(3) for tail in range(3) if head != tail and (head, tail) not in labels
        )
        passages.append(Passage(str(index), Context(text, mentions), labels, negatives))
    paraphrases = {"author": Paraphrases(("written by",), ("who wrote it",), ("wrote",), "the head wrote the tail")}
    return LabelSetCorpus("one", LabelSchema((*LABELS, NEGATIVE), NEGATIVE_LABEL), passages, paraphrases)


def draw(number: int = 60, **changes: object) -> list[LabelTask]:
    sampler = LabelSampler([make_corpus()], SamplingSettings(**{**OFF, **changes}))  # type: ignore[arg-type]
    return [sampler.draw(str(seed), 6) for seed in range(number)]


def test_tasks_have_random_labels_and_correct_gold_labels() -> None:
    tasks = draw()
    assert len({task.schema.names for task in tasks}) > 20, "the labels hardly vary"
    assert {task.schema.negative_label for task in tasks} == {None, NEGATIVE_LABEL}
    for task in tasks:
        assert 2 <= len(task.schema.labels) <= len(LABELS) + 1
        for instance in task.instances:
            label = instance.context.text.split()[1]
            inverse = {"parent": "child", "child": "parent", "spouse": "spouse"}.get(label)
            true = {(0, 1): label, (1, 0): inverse}.get((instance.head, instance.tail))
            assert instance.label == (true if true in task.schema.names else NEGATIVE_LABEL)
            assert instance.label in task.schema.names


def test_a_task_is_determined_by_its_seed() -> None:
    first, second = (draw(5) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert one.schema == two.schema
        assert [instance.to_dict() for instance in one.instances] == [instance.to_dict() for instance in two.instances]


def test_the_other_direction_of_a_pair_is_a_negative() -> None:
    counts: Counter[tuple[str, int, int]] = Counter()
    for task in draw(negative_label=1.0):
        for instance in task.instances:
            if instance.label == NEGATIVE_LABEL:
                counts[instance.context.text.split()[1], instance.head, instance.tail] += 1
    assert counts["author", 1, 0] > 10 and counts["employer", 1, 0] > 10
    assert not counts["spouse", 1, 0] or counts["spouse", 1, 0] < counts["author", 1, 0], "only if spouse is dropped"


def test_number_of_negatives() -> None:
    tasks = draw(negative_label=1.0, negatives=1.0, max_labels=5)
    labels = Counter(instance.label == NEGATIVE_LABEL for task in tasks for instance in task.instances)
    assert 0.7 < labels[True] / labels[False] < 1.3
    assert all(instance.label != NEGATIVE_LABEL for task in draw(negative_label=0.0) for instance in task.instances)


def test_an_inverse_label_reads_pairs_from_tail_to_head() -> None:
    seen = 0
    for task in draw(inverse=1.0, negative_label=1.0):
        wordings = {label.name: label.wording for label in task.schema.labels}
        for instance in task.instances:
            if wordings.get(instance.label or "") == "wrote":
                assert instance.context.text.split()[1] == "author"
                assert (instance.head, instance.tail) == (1, 0)
                seen += 1
    assert seen > 5


def test_paraphrases_definitions_and_types_vary() -> None:
    tasks = draw(paraphrases=1.0)
    wordings = {label.wording for task in tasks for label in task.schema.labels if label.name == "author"}
    assert wordings == {"written by", "author"}
    assert {bool(task.schema.labels[0].definition) for task in tasks} == {True, False}
    assert {bool(task.instances[0].head_mention.type) for task in tasks} == {True, False}


def test_examples_are_not_from_the_passages_of_the_task() -> None:
    tasks = [task for task in draw(examples=1.0) if task.examples]
    assert len(tasks) > 50
    for task in tasks:
        texts = {instance.context.text for instance in task.instances}
        for example in task.examples:
            assert example.context.text not in texts and example.label in task.schema.names
            assert len(example.context.mentions) == 2


def test_pairs_across_joined_passages_are_negatives() -> None:
    across = 0
    for task in draw(neighbors=1.0, negative_label=1.0, negatives=4.0):
        for instance in task.instances:
            text = instance.context.text
            assert text[instance.head_mention.start : instance.head_mention.end] == instance.text_of(
                instance.head_mention
            )
            numbers = {instance.text_of(mention)[1:] for mention in (instance.head_mention, instance.tail_mention)}
            if len(numbers) > 1:
                across += 1
                assert instance.label == NEGATIVE_LABEL
            assert all(instance.text_of(mention)[0] in "abc" for mention in instance.context.mentions)
    assert across > 20


def test_neighboring_sentences_of_a_document_are_joined_and_relations_across_them_are_unknown() -> None:
    corpus = make_corpus()
    # Two sentences each of documents 0 to 19; the second one mentions what the first one does not.
    passages = [replace(one, id=f"d{n // 2}-s{n % 2}") for n, one in enumerate(corpus.passages)]
    settings = SamplingSettings(**{**OFF, "neighbors": 1.0, "negative_label": 1.0, "negatives": 8.0})
    sampler = LabelSampler([replace(corpus, passages=passages)], settings)
    tasks = [sampler.draw(str(seed), 6) for seed in range(20)]
    contexts = {instance.context.text for task in tasks for instance in task.instances}
    numbers = [[int(word[1:]) for word in text.split() if word[0] == "a" and word[1:].isdigit()] for text in contexts]
    assert all(one % 2 == 0 and other == one + 1 for one, other in numbers) and len(numbers) > 15
    for instance in (instance for task in tasks for instance in task.instances):
        head, tail = (instance.text_of(side)[1:] for side in (instance.head_mention, instance.tail_mention))
        assert head == tail


def test_other_directions_of_joined_passages_are_negatives() -> None:
    # A passage that lists no negatives has the other direction of its pairs as negatives, also if it is joined.
    corpus = make_corpus()
    passages = [replace(passage, negatives=()) for passage in corpus.passages]
    settings = SamplingSettings(**{**OFF, "neighbors": 1.0, "negative_label": 1.0, "negatives": 8.0})
    sampler = LabelSampler([replace(corpus, passages=passages)], settings)
    instances = [instance for seed in range(40) for instance in sampler.draw(str(seed), 6).instances]
    texts = [[i.text_of(side) for side in (i.head_mention, i.tail_mention)] for i in instances]
    labels = [instance.label for instance in instances if instance.label in ("author", "employer")]
    reverse = [
        instance.label
        for instance, (head, tail) in zip(instances, texts, strict=True)
        if head[1:] == tail[1:] and (head[0], tail[0]) == ("b", "a") and instance.label == NEGATIVE_LABEL
    ]
    assert len(reverse) > 0.8 * len(labels) > 20


def test_examples_have_no_pairs_that_are_unknown() -> None:
    # A passage that lists negatives says nothing about other pairs.
    corpus = make_corpus()
    passages = [replace(passage, negatives=((0, 2),)) for passage in corpus.passages]
    settings = SamplingSettings(**{**OFF, "examples": 1.0, "negative_label": 1.0})
    sampler = LabelSampler([replace(corpus, passages=passages)], settings)
    examples = [example for seed in range(40) for example in sampler.draw(str(seed), 6).examples]
    one_way = [example for example in examples if example.context.text.split()[1] in ("author", "employer")]
    assert len(one_way) > 40 and {example.label for example in one_way} == {"author", "employer"}


def test_other_labels_resemble_those_that_occur() -> None:
    # Half of the labels connect A and B, the other half B and C; with `hard`, tasks are of one kind.
    labels = [RelationLabel(f"r{number}", f"relation {number}") for number in range(16)]
    passages = []
    for index in range(64):
        context = make_corpus(1).passages[0].context
        pair = (0, 1) if index % 2 else (1, 2)
        passages.append(Passage(str(index), context, {pair: frozenset({f"r{index % 16}"})}))
    corpus = LabelSetCorpus("one", LabelSchema((*labels, NEGATIVE), NEGATIVE_LABEL), passages, {})

    def share(hard: float) -> float:
        settings = SamplingSettings(**{**OFF, "hard": hard, "min_labels": 4, "max_labels": 4})
        sampler = LabelSampler([corpus], settings)
        shares = []
        for seed in range(100):
            task = sampler.draw(str(seed), 4)
            occurring = {int(one.label[1:]) % 2 for one in task.instances if one.label != NEGATIVE_LABEL}
            if len(occurring) == 1:
                names = [int(name[1:]) for name in task.schema.names if name != NEGATIVE_LABEL]
                shares.append(sum(number % 2 in occurring for number in names) / len(names))
        assert len(shares) > 15
        return sum(shares) / len(shares)

    assert share(1.0) > 0.95 > 0.9 > share(0.0)


def test_other_labels_have_similar_definitions() -> None:
    kinds = ("river", "painter", "protein", "ship")
    labels = [
        RelationLabel(f"{kind}{n}", f"{kind} {kind}{n}", f"the head is a {kind}") for kind in kinds for n in range(4)
    ]
    context = make_corpus(1).passages[0].context
    passages = [
        Passage(str(index), context, {(0, 1): frozenset({labels[index % 16].name})}, ((0, 2),)) for index in range(64)
    ]
    corpus = LabelSetCorpus("one", LabelSchema((*labels, NEGATIVE), NEGATIVE_LABEL), passages, {})

    def share(hard: float) -> float:
        """Return how often both labels of a task are of the same kind."""
        settings = SamplingSettings(**{**OFF, "hard": hard, "min_labels": 2, "max_labels": 2})
        sampler = LabelSampler([corpus], settings)
        names = [
            [one[:-1] for one in sampler.draw(str(seed), 2).schema.names if one[-1].isdigit()] for seed in range(200)
        ]
        return sum(one == other for one, other in names) / len(names)

    # Every second task has two labels that occur, which are drawn independently: 3 of 15 others are of the same kind.
    assert share(1.0) > 0.5 and share(0.0) < 0.3


def test_the_inverse_of_a_label_is_often_among_the_others() -> None:
    def share(labels: tuple[RelationLabel, ...]) -> float:
        corpus = replace(make_corpus(), schema=LabelSchema((*labels, NEGATIVE), NEGATIVE_LABEL))
        sampler = LabelSampler([corpus], SamplingSettings(**{**OFF, "hard": 0.0, "min_labels": 2, "max_labels": 2}))
        tasks = [sampler.draw(str(seed), 2).schema.names for seed in range(400)]
        of_family = [names for names in tasks if "parent" in names or "child" in names]
        return sum("parent" in names and "child" in names for names in of_family) / len(of_family)

    assert share(LABELS) > 1.5 * share(tuple(replace(label, inverse=None) for label in LABELS))


def test_labels_with_the_same_wording_are_an_error() -> None:
    labels = (RelationLabel("author", "author"), RelationLabel("employer", "Author"))
    corpus = replace(make_corpus(), schema=LabelSchema((*labels, NEGATIVE), NEGATIVE_LABEL), paraphrases={})
    kept = [passage for passage in corpus.passages if passage.labels[0, 1] <= {"author", "employer"}]
    sampler = LabelSampler([replace(corpus, passages=kept)], SamplingSettings(**{**OFF, "min_labels": 2}))
    with pytest.raises(ValueError, match=r"two labels with the same wording.*: one"):
        sampler.draw("0", 6)


def test_perturbed_mentions_stay_words_of_the_text() -> None:
    corpus = make_corpus()
    passage = Passage(
        "x",
        Context("Then the old mill of Ann Lee fell", (Mention(5, 17, "A"), Mention(21, 28, "B"))),
        {(0, 1): frozenset({"author"})},
    )
    corpus = replace(corpus, passages=[passage])
    sampler = LabelSampler([corpus], SamplingSettings(**{**OFF, "perturbed": 0.7}))  # type: ignore[arg-type]
    found = set()
    for seed in range(40):
        for instance in sampler.draw(str(seed), 1).instances:
            found.add(instance.text_of(instance.context.mentions[0]))
            found.add(instance.text_of(instance.context.mentions[1]))
    assert found == {"the old mill", "old mill", "Then the old mill", "Ann Lee", "Lee", "of Ann Lee"}


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"sampling\.types = 1\.5"):
        SamplingSettings(types=1.5)
    with pytest.raises(ValueError, match=r"sampling\.hard = 2"):
        SamplingSettings(hard=2)
    with pytest.raises(ValueError, match=r"unknown label sets: two\. The corpus has: one"):
        LabelSampler([make_corpus()], SamplingSettings(weights={"two": 1.0}))
    with pytest.raises(ValueError, match=r"There is nothing to learn"):
        LabelSampler([make_corpus()], SamplingSettings(weights={"one": 0.0}))


def test_tasks_do_not_depend_on_the_hash_seed() -> None:
    source = (
        "from tests.training.test_label_sampling import draw\n"
        "for task in draw(8, inverse=0.5, neighbors=0.5, examples=1.0):\n"
        "    print(task.schema.to_dict(), [one.to_dict() for one in (*task.instances, *task.examples)])\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", source], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


def test_label_sets_without_relations_are_not_drawn() -> None:
    corpus = make_corpus()
    empty = replace(corpus, name="empty", passages=[replace(one, labels={}) for one in corpus.passages])
    sampler = LabelSampler([empty, corpus], SamplingSettings())
    assert {sampler.draw(str(seed), 4).corpus for seed in range(10)} == {"one"}
    with pytest.raises(ValueError, match="There is nothing to learn"):
        LabelSampler([empty], SamplingSettings())
