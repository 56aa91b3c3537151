"""Training tasks with random labels, which teach a model to predict labels that it was not trained on.

Each task has passages of one corpus and a random selection of its labels, in random order and with varying wordings.
Nothing here depends on a model.
"""

from __future__ import annotations

import fnmatch
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

from spacy_slmre.corpus.label_sets import LabelSetCorpus, PairIndices, Paraphrases, Passage
from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.schema import NEGATIVE, NEGATIVE_LABEL, LabelSchema, RelationLabel, wording_of
from spacy_slmre.util.settings import check_minimum, check_probability

NEGATIVE_WORDINGS = ("no relation", "no relation", "no relation", "none", "unrelated", "none of these", "other")
MAX_POSITIVES = 6
"""Maximum number of pairs of a passage that have a relation, so that no passage dominates a task."""
MAX_ATTEMPTS = 1000
"""Number of random tasks to try before giving up."""
_INVERSE = "inverse of "
_SENTENCES = re.compile(r"(.+)-s(\d+)(?:-(\d+))?")
# Minimum length of a word that a perturbed mention may begin with.
_SHORTEST_EXTENSION = 2


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """The section [sampling] of a config. All values but the first four are probabilities.

    Attributes:
        weights: Sampling weight of each label set, by name or pattern ("written_*"; names take precedence). Sets
            that are not listed have weight 1; 0 excludes a set.
        min_labels: Minimum number of labels of a task.
        max_labels: Maximum number of labels of a task, without the negative label and inverses. Small numbers are more
            frequent.
        negatives: Number of pairs without a relation per pair with one.
        negative_label: A task has a negative label.
        dropped: Fraction of a task's passages that are drawn regardless of its labels, so that most of their pairs are
            negative.
        hard: The other labels resemble those that occur: they connect entities of the same types, or have a similar
            wording and definition.
        definitions: Labels have definitions.
        types: Mentions have entity types.
        paraphrases: A label has a paraphrase instead of its own wording.
        inverse: A label is replaced by its inverse, or its inverse is added.
        examples: A task has few-shot examples, 1 to 3 for each label.
        neighbors: Texts consist of two passages: neighboring sentences of a document where the corpus has them, with
            unknown relations between them, otherwise any two, whose entities are unrelated to each other.
        perturbed: A mention is shorter or longer than annotated, as it may be with an entity recognizer.
    """

    weights: dict[str, float] = field(default_factory=dict)
    min_labels: int = 2
    max_labels: int = 40
    negatives: float = 2.0
    negative_label: float = 0.8
    dropped: float = 0.3
    hard: float = 0.7
    definitions: float = 0.5
    types: float = 0.5
    paraphrases: float = 0.4
    inverse: float = 0.2
    examples: float = 0.33
    neighbors: float = 0.33
    perturbed: float = 0.1

    def __post_init__(self) -> None:
        check_minimum(self, "sampling", min_labels=2, max_labels=self.min_labels, negatives=0)
        others = ("weights", "min_labels", "max_labels", "negatives")
        check_probability(self, "sampling", names=[name for name in vars(self) if name not in others])
        if bad := [name for name, weight in self.weights.items() if weight < 0]:
            raise ValueError(f"sampling.weights.{bad[0]} = {self.weights[bad[0]]}, but it must not be negative.")


@dataclass(frozen=True)
class LabelTask:
    """Labeled instances of one corpus under a random selection of its labels.

    Attributes:
        corpus: Name of the label set.
        examples: Few-shot examples.
        ids: Id of the passage of each instance.
    """

    corpus: str
    schema: LabelSchema
    instances: list[RelationInstance]
    examples: list[RelationInstance]
    ids: list[str]


@dataclass(frozen=True)
class _Choice:
    """A label of a task: the annotated label, read from head to tail or, if inverse, from tail to head."""

    name: str
    label: RelationLabel
    inverse: bool


class LabelSampler:
    """Draws tasks from corpora.

    Args:
        corpora: The corpora.
        settings: The settings.

    Raises:
        ValueError: A weight names an unknown corpus, or all weights are 0.
    """

    def __init__(self, corpora: Sequence[LabelSetCorpus], settings: SamplingSettings) -> None:
        self.settings = settings
        names = [corpus.name for corpus in corpora]
        if unknown := [pattern for pattern in settings.weights if not fnmatch.filter(names, pattern)]:
            raise ValueError(
                f"sampling.weights has unknown label sets: {', '.join(unknown)}. The corpus has: {', '.join(names)}."
            )
        patterns = sorted(settings.weights, key=lambda pattern: pattern not in names)
        weights = [
            next((settings.weights[pattern] for pattern in patterns if fnmatch.fnmatchcase(name, pattern)), 1.0)
            for name in names
        ]
        sampled = [_SampledCorpus(corpus, settings) for corpus in corpora]
        # Sets with fewer than two labels and no negative label offer no choice; those without relations have no labels.
        usable = [
            (corpus, weight)
            for corpus, weight in zip(sampled, weights, strict=True)
            if weight and corpus.with_label and (settings.negative_label or len(corpus.corpus.labels) > 1)
        ]
        if not usable:
            raise ValueError("There is nothing to learn: no label set has relations and a weight above 0.")
        self._corpora, self._weights = [corpus for corpus, _ in usable], [weight for _, weight in usable]

    def draw(self, seed: str, n_passages: int, *, with_examples: bool = True) -> LabelTask:
        """Return the task of a seed, with instances of about `n_passages` passages.

        Raises ValueError if no task can be drawn.
        """
        rng = random.Random(seed)
        for _ in range(MAX_ATTEMPTS):
            corpus = rng.choices(self._corpora, self._weights)[0]
            task = corpus.draw(rng, n_passages, with_examples)
            if task is not None:
                return task
        names = ", ".join(corpus.corpus.name for corpus in self._corpora)
        raise ValueError(
            f"{MAX_ATTEMPTS:,} random tasks had fewer than two labels, two labels with the same wording, or no "
            f"relation. Check the wordings of the labels, or leave out label sets: {names}."
        )


class _SampledCorpus:
    def __init__(self, corpus: LabelSetCorpus, settings: SamplingSettings) -> None:
        self.corpus = corpus
        self.settings = settings
        self.with_label: dict[str, list[Passage]] = defaultdict(list)
        self.types: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for passage in corpus.passages:
            for (head, tail), names in passage.labels.items():
                kinds = passage.context.mentions[head].type, passage.context.mentions[tail].type
                for name in sorted(names):  # the order of a set differs between processes
                    self.types[name].add(kinds)
                    if not (of_label := self.with_label[name]) or of_label[-1] is not passage:
                        of_label.append(passage)
        self.similarity = _similarity(list(corpus.labels.values()))
        self.neighbors = _find_neighbors(corpus.passages)
        # Rare labels are drawn more often than they occur, but not as often as frequent ones.
        self.frequency = {name: len(passages) ** 0.5 for name, passages in self.with_label.items()}

    def draw(self, rng: random.Random, n_passages: int, with_examples: bool) -> LabelTask | None:
        settings = self.settings
        choices, occurring = self._draw_labels(rng)
        has_negative = rng.random() < settings.negative_label
        if len(choices) + has_negative < 2:
            return None
        has_types = rng.random() < settings.types
        instances: list[RelationInstance] = []
        ids: list[str] = []
        joined = rng.random() < settings.neighbors
        used: set[str] = set()
        for number in range(n_passages):
            passage = self._draw_passage(rng, occurring[number % len(occurring)], has_negative)
            if passage.id in used:  # small corpora have fewer passages than a task has room for
                continue
            parts, unrelated = self._add_neighbor(rng, passage, used) if joined else ([passage], True)
            used.update(part.id for part in parts)
            passage = _join(parts, unrelated)
            new = list(self._label(rng, passage, choices, has_negative))
            context = self._vary(rng, passage.context, has_types)
            instances += [replace(instance, context=context) for instance in new]
            ids += [passage.id] * len(new)
        if all(instance.label == NEGATIVE_LABEL for instance in instances):
            return None
        schema = self._make_schema(rng, choices, has_negative)
        if schema is None:
            return None
        examples: list[RelationInstance] = []
        if with_examples and rng.random() < settings.examples:
            examples = self._draw_examples(rng, choices, has_negative, has_types, used)
        return LabelTask(self.corpus.name, schema, instances, examples, ids)

    def _draw_labels(self, rng: random.Random) -> tuple[list[_Choice], list[str]]:
        """Draw the labels of a task; return them and the names of those whose passages are drawn."""
        settings, labels = self.settings, self.corpus.labels
        # Uniform in the logarithm: with 2 to 40 labels, half of the tasks have at most nine.
        size = round(settings.min_labels * (settings.max_labels / settings.min_labels) ** rng.random())
        size = min(size, len(labels))
        occurring = self._sample_labels(rng, rng.randint((size + 1) // 2, size))
        chosen = list(occurring)
        others = [name for name in labels if name not in occurring]
        rng.shuffle(others)
        if rng.random() < settings.hard:
            kinds = set().union(*(self.types[name] for name in occurring))
            # With random factors, so that the same labels are not always chosen.
            likeness = {name: rng.random() * max(self.similarity[name, one] for one in occurring) for name in others}
            others.sort(key=lambda name: (not kinds & self.types[name], -likeness[name]))
        # The inverse of a label is the hardest to distinguish from it.
        inverses = [labels[name].inverse for name in occurring if rng.random() < 0.5]
        others = [name for name in inverses if name in labels and name not in occurring] + others
        chosen += list(dict.fromkeys(others))[: max(size - len(chosen), 0)]
        choices = []
        for name in chosen:
            label, other = labels[name], self.corpus.paraphrases.get(name, Paraphrases())
            has_inverse = label.inverse in chosen or label.symmetric or not other.inverse_wordings
            draw = 1.0 if has_inverse else rng.random()
            if draw >= settings.inverse / 2:
                choices.append(_Choice(name, self._word(rng, label, other), False))
            if draw < settings.inverse:
                wording = rng.choice(other.inverse_wordings)
                inverse = RelationLabel(_INVERSE + name, wording, other.inverse_definition)
                choices.append(_Choice(name, inverse, True))
        rng.shuffle(choices)
        return choices, occurring

    def _sample_labels(self, rng: random.Random, number: int) -> list[str]:
        # Weighted sampling without replacement (Efraimidis and Spirakis 2006).
        keys = {name: rng.random() ** (1 / frequency) for name, frequency in self.frequency.items()}
        return sorted(keys, key=keys.__getitem__, reverse=True)[:number]

    def _word(self, rng: random.Random, label: RelationLabel, other: Paraphrases) -> RelationLabel:
        wording, definition = label.wording, label.definition
        if rng.random() < self.settings.paraphrases:
            wording = rng.choice([*other.wordings, wording_of(label.name)] if other.wordings else [wording])
        if other.definitions and rng.random() < self.settings.paraphrases:
            definition = rng.choice(other.definitions)
        return replace(label, wording=wording, definition=definition)

    def _make_schema(self, rng: random.Random, choices: Sequence[_Choice], has_negative: bool) -> LabelSchema | None:
        labels = [choice.label for choice in choices]
        if has_negative:
            labels.append(replace(NEGATIVE, wording=rng.choice(NEGATIVE_WORDINGS)))
            if rng.random() < 0.2:
                rng.shuffle(labels)
        if rng.random() >= self.settings.definitions:
            labels = [replace(label, definition="") for label in labels]
        if len({label.wording.lower() for label in labels}) < len(labels):
            return None
        return LabelSchema(tuple(labels), NEGATIVE_LABEL if has_negative else None)

    def _add_neighbor(self, rng: random.Random, passage: Passage, used: set[str]) -> tuple[list[Passage], bool]:
        """Return a passage with a neighboring sentence of its document, or else with any other passage.

        Also returns whether the two are unrelated.
        """
        before, after = self.neighbors.get(passage.id, (None, None))
        pairs = [[one, other] for one, other in ((before, passage), (passage, after)) if one and other]
        if pairs := [pair for pair in pairs if used.isdisjoint(one.id for one in pair)]:
            return rng.choice(pairs), False
        other = rng.choice(self.corpus.passages)
        pair = [passage] if other is passage or other.id in used else [passage, other]
        rng.shuffle(pair)
        return pair, True

    def _draw_passage(self, rng: random.Random, name: str, has_negative: bool) -> Passage:
        is_random = has_negative and rng.random() < self.settings.dropped
        return rng.choice(self.corpus.passages if is_random else self.with_label[name])

    def _label(
        self, rng: random.Random, passage: Passage, choices: Sequence[_Choice], has_negative: bool
    ) -> Iterator[RelationInstance]:
        """Yield labeled pairs of a passage: those with a label of the task, and a sample of those without."""
        labels = _labels_of(passage, choices)
        positives = rng.sample(sorted(labels), min(len(labels), MAX_POSITIVES))
        for pair in positives:
            yield RelationInstance(passage.context, *pair, rng.choice(labels[pair]))
        if not has_negative:
            return
        names = frozenset(choice.name for choice in choices)
        # Pairs with other labels, and the other direction of any pair, are the negatives that models get wrong.
        confusable = [
            pair for head, tail in passage.labels for pair in ((head, tail), (tail, head)) if passage.is_known(pair)
        ]
        excluded = [pair for pair in passage.excluded if passage.is_negative(pair, names)]
        if names <= passage.checked:
            n = len(passage.context.mentions)
            excluded += [(head, tail) for head in range(n) for tail in range(n) if head != tail]
        confusable = [pair for pair in dict.fromkeys(confusable) if pair not in labels]
        others = [pair for pair in dict.fromkeys((*passage.negatives, *excluded)) if pair not in passage.labels]
        number = round(self.settings.negatives * max(len(positives), 1))
        n_confusable = min(len(confusable), number if not others else (number + 1) // 2)
        sampled = rng.sample(confusable, n_confusable)
        others = [pair for pair in others if pair not in labels and pair not in sampled]
        sampled += rng.sample(others, min(len(others), number - n_confusable))
        for pair in sampled:
            yield RelationInstance(passage.context, *pair, NEGATIVE_LABEL)

    def _vary(self, rng: random.Random, context: Context, has_types: bool) -> Context:
        """Return a context with changed boundaries of mentions and, unless `has_types`, without types."""
        annotated = [mention if has_types else replace(mention, type="") for mention in context.mentions]
        mentions = [
            self._perturb(rng, context.text, mention) if rng.random() < self.settings.perturbed else mention
            for mention in annotated
        ]
        # Instances refer to mentions by position, so they must remain in order and distinct.
        is_valid = sorted(mentions) == mentions and len(set(mentions)) == len(mentions)
        return Context(context.text, tuple(mentions if is_valid else annotated))

    @staticmethod
    def _perturb(rng: random.Random, text: str, mention: Mention) -> Mention:
        words = text[mention.start : mention.end].split(" ")
        before = text[: mention.start].rstrip().rpartition(" ")[2]
        if len(words) > 1 and rng.random() < 0.7:
            return replace(mention, start=mention.start + len(words[0]) + 1)
        if len(before) >= _SHORTEST_EXTENSION and before.isalnum() and text[: mention.start].endswith(f"{before} "):
            return replace(mention, start=mention.start - len(before) - 1)
        return mention

    def _draw_examples(
        self, rng: random.Random, choices: Sequence[_Choice], has_negative: bool, has_types: bool, used: set[str]
    ) -> list[RelationInstance]:
        """Return 1 to 3 examples for each label that has enough passages."""
        shots = rng.randint(1, 3)
        examples = []
        for choice in choices:
            pool = [passage for passage in self.with_label[choice.name] if passage.id not in used]
            for passage in rng.sample(pool, min(shots, len(pool))):
                labels = _labels_of(passage, choices)
                pair = rng.choice([pair for pair in sorted(labels) if choice.label.name in labels[pair]])
                examples.append(_alone(passage.context, pair, choice.label.name, has_types))
                reverse = pair[::-1]
                if has_negative and rng.random() < 0.5 and reverse not in labels and passage.is_known(reverse):
                    examples.append(_alone(passage.context, reverse, NEGATIVE_LABEL, has_types))
        rng.shuffle(examples)
        return examples


def _labels_of(passage: Passage, choices: Sequence[_Choice]) -> dict[PairIndices, list[str]]:
    """Return the labels of a task that pairs of a passage have."""
    by_name: dict[str, list[_Choice]] = defaultdict(list)
    for choice in choices:
        by_name[choice.name].append(choice)
    labels: dict[PairIndices, list[str]] = defaultdict(list)
    for (head, tail), names in passage.labels.items():
        for choice in (choice for name in sorted(names) for choice in by_name[name]):
            labels[(tail, head) if choice.inverse else (head, tail)].append(choice.label.name)
    return dict(labels)


def _alone(context: Context, pair: PairIndices, label: str, has_types: bool) -> RelationInstance:
    """Return an instance whose context has no other mentions."""
    head, tail = (context.mentions[index] for index in pair)
    sides = [(mention.start, mention.end, mention.type if has_types else "") for mention in (head, tail)]
    return RelationInstance.from_offsets(context.text, sides[0], sides[1], label)


def _join(passages: Sequence[Passage], unrelated: bool) -> Passage:
    """Return one or two passages as one text. Pairs that cross passages are negative if these are `unrelated`."""
    if len(passages) == 1:
        return passages[0]
    first, second = passages
    shift = len(first.context.text) + 1
    moved = [
        replace(mention, start=mention.start + shift, end=mention.end + shift) for mention in second.context.mentions
    ]
    n = len(first.context.mentions)

    def move(pairs: Mapping[PairIndices, frozenset[str]]) -> dict[PairIndices, frozenset[str]]:
        return {(head + n, tail + n): names for (head, tail), names in pairs.items()}

    # A label of a mention with itself is an entity type, which pairs of different mentions cannot have.
    has_types = any(head == tail for head, tail in first.labels)
    across = [(head, n + tail) for head in range(n) for tail in range(len(moved)) if unrelated and not has_types]
    # Take only a few, so that they do not outnumber the pairs within a passage.
    across = across[:: max(1, len(across) // 4)]
    # What is known about each passage remains known: the other directions of pairs, unless negatives are listed.
    negatives = [*_known_negatives(first), *((head + n, tail + n) for head, tail in _known_negatives(second))]
    return Passage(
        f"{first.id}+{second.id}",
        Context(f"{first.context.text} {second.context.text}", (*first.context.mentions, *moved)),
        dict(first.labels) | move(second.labels),
        tuple([*negatives, *across, *(pair[::-1] for pair in across)]),
        dict(first.excluded) | move(second.excluded),
        first.checked & second.checked if unrelated else frozenset(),
    )


def _find_neighbors(passages: Sequence[Passage]) -> dict[str, tuple[Passage | None, Passage | None]]:
    """Return the previous and the next sentence of a passage's document, by its id, where there is one.

    Passages that are sentences have ids such as "DOCUMENT-s7", or "DOCUMENT-s7-9" for several.
    """
    starts: dict[tuple[str, int], Passage] = {}
    ends: dict[tuple[str, int], Passage] = {}
    for passage in passages:
        if found := _SENTENCES.fullmatch(passage.id):
            starts[found[1], int(found[2])] = ends[found[1], int(found[3] or found[2])] = passage
    before: dict[str, Passage] = {}
    after: dict[str, Passage] = {}
    for (document, number), passage in ends.items():
        if other := starts.get((document, number + 1)):
            after[passage.id], before[other.id] = other, passage
    return {one: (before.get(one), after.get(one)) for one in before.keys() | after.keys()}


def _similarity(labels: Sequence[RelationLabel]) -> dict[tuple[str, str], float]:
    """Return how similar two labels are: the share of words that both have in wording and definition.

    Rare words count more, by their inverse document frequency.
    """
    words = {one.name: {*re.findall(r"\w+", f"{one.wording} {one.definition}".lower())} for one in labels}
    counts = Counter(word for of_label in words.values() for word in of_label)
    weight = {word: math.log(len(labels) / count) for word, count in counts.items()}

    def total(chosen: set[str]) -> float:
        return sum(weight[word] for word in sorted(chosen))  # the order of a set differs between processes

    return {
        (one, other): total(first & second) / (total(first | second) or 1.0)
        for (one, first), (other, second) in permutations(words.items(), 2)
    }


def _known_negatives(passage: Passage) -> list[PairIndices]:
    """Return the pairs of a passage that have none of the set's labels."""
    reverse = [pair[::-1] for pair in passage.labels if pair[::-1] not in passage.labels]
    return [*passage.negatives, *(pair for pair in reverse if passage.is_known(pair))]
