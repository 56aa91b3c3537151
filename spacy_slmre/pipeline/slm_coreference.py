"""The component `slm_coreference`: links pronouns and descriptions to the mentions that they refer to.

"Is the same as" is predicted like a relation, between a mention and those before it, by the same kind of model as in
`slm_relations`. The shipped adapter was tuned on this task, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc, Span, Token

from spacy_slmre.coreference import MentionCluster, choose_name, mentions_of, write_clusters
from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.models.base import RelationModel
from spacy_slmre.names import noun_chunks
from spacy_slmre.pipeline.question_pipe import QuestionPipe
from spacy_slmre.schema import NEGATIVE, NEGATIVE_LABEL, LabelSchema, RelationLabel, is_name_type, is_person_type
from spacy_slmre.util.settings import check_minimum, check_probability, check_types, defaults_of, takes_settings

SAME = "same"
SCHEMA = LabelSchema(
    (
        RelationLabel(SAME, "is the same as", "head and tail are the same person, place, organization or thing"),
        NEGATIVE,
    ),
    NEGATIVE_LABEL,
)
_TITLES = frozenset(
    title + dot
    for title in (
        "captain",
        "dr",
        "lady",
        "lord",
        "madame",
        "miss",
        "mr",
        "mrs",
        "ms",
        "prof",
        "professor",
        "sir",
        "the",
    )
    for dot in ("", ".")
)


@dataclass(frozen=True, kw_only=True)
class CoreferenceSettings:
    """Settings of `slm_coreference`.

    Attributes:
        threshold: Minimum probability (0 to 1) that a mention is the same as the most probable one before it.
        max_sentences: Number of sentences that are searched for antecedents: that of the mention, and those before it.
        max_antecedents: Number of preceding mentions that a mention is compared with.
        batch_size: Number of pairs that are scored together, across documents.
        max_context_tokens: Longer windows are truncated around their pair; counted in the model's tokens.

    Raises:
        ValueError: A value is out of range.
    """

    threshold: float = 0.5
    max_sentences: int = 3
    max_antecedents: int = 8
    batch_size: int = 128
    max_context_tokens: int = 512

    def __post_init__(self) -> None:
        check_types(self, "slm_coreference")
        check_minimum(self, "slm_coreference", max_sentences=1, max_antecedents=1, batch_size=1, max_context_tokens=1)
        check_probability(self, "slm_coreference", names=["threshold"])


@dataclass(frozen=True)
class Links:
    """The pairs of a document to score, each of a mention and one before it.

    Attributes:
        mentions: All mentions, in text order.
        pairs: Indices of a mention and one before it.
        instances: The instance of each pair.
        known: The mention before it that a mention certainly is the same as, by index.
    """

    doc: Doc
    mentions: list[Span]
    pairs: list[tuple[int, int]]
    instances: list[RelationInstance]
    known: dict[int, int]


class CoreferenceResolver(QuestionPipe[list[MentionCluster]]):
    """Writes clusters of mentions to `doc.spans["coref_clusters_1"]` and so on; see `CoreferenceSettings`."""

    def __init__(self, model: RelationModel, name: str, settings: CoreferenceSettings) -> None:
        super().__init__(model, name, settings.batch_size, settings.max_context_tokens)
        self.settings = settings

    def predict(self, docs: Iterable[Doc]) -> list[list[MentionCluster]]:
        """Return the clusters of each document, without changing it."""
        docs = list(docs)
        if any(len(doc) and not doc.has_annotation("POS") for doc in docs):
            self._warn_once(
                "tags",
                "the documents have no part-of-speech tags, so pronouns and descriptions are not found. Add a tagger "
                "before it (in spaCy's English pipelines: tagger, attribute_ruler and parser).",
            )
        return self.cluster_mentions(docs, [find_mentions(doc) for doc in docs])

    def cluster_mentions(self, docs: Sequence[Doc], mentions: Sequence[Sequence[Span]]) -> list[list[MentionCluster]]:
        """Return the clusters of given mentions of each document, which are in text order."""
        found = [self._make_links(doc, list(of_doc)) for doc, of_doc in zip(docs, mentions, strict=True)]
        probs = self._score([instance for links in found for instance in links.instances], SCHEMA)
        scores = probs[:, SCHEMA.index[SAME]]
        clusters, start = [], 0
        for links in found:
            clusters.append(self._cluster(links, scores[start : start + len(links.pairs)]))
            start += len(links.pairs)
        return clusters

    def set_annotations(self, docs: Sequence[Doc], clusters: Sequence[Sequence[MentionCluster]]) -> None:
        """Write the clusters, replacing those of other components."""
        for doc, of_doc in zip(docs, clusters, strict=True):
            write_clusters(doc, of_doc)

    def _make_links(self, doc: Doc, mentions: list[Span]) -> Links:
        """Pair each pronoun, description and short name with the mentions before it, in a window of sentences.

        The short name of a person is not paired if only one person before it has such a name.
        """
        sentences = list(doc.sents) if doc.has_annotation("SENT_START") else [doc[:]]
        starts = [sentence.start for sentence in sentences]
        numbers = [bisect_right(starts, mention.start) - 1 for mention in mentions]
        contexts: dict[int, tuple[Context, int]] = {}
        pairs, instances = [], []
        known = _short_names(mentions)
        for one, mention in enumerate(mentions):
            if one in known:
                continue
            first = max(0, numbers[one] - self.settings.max_sentences + 1)
            before = [
                other
                for other in range(max(0, one - self.settings.max_antecedents), one)
                if numbers[other] >= first and _may_refer(mention, mentions[other])
            ]
            if not before:
                continue
            if numbers[one] not in contexts:
                inside = [n for n, number in enumerate(numbers) if first <= number <= numbers[one]]
                window = doc[sentences[first].start : sentences[numbers[one]].end]
                contexts[numbers[one]] = _make_context(window, [mentions[n] for n in inside]), inside[0]
            context, offset = contexts[numbers[one]]
            pairs += [(one, other) for other in before]
            instances += [RelationInstance(context, one - offset, other - offset) for other in before]
        return Links(doc, mentions, pairs, instances, known)

    def _cluster(self, links: Links, scores: np.ndarray) -> list[MentionCluster]:
        """Link each mention to the most probable one before it, the closest of equally probable ones."""
        best = {one: (1.0, other) for one, other in links.known.items()}
        for (one, other), score in zip(links.pairs, scores.tolist(), strict=True):
            if score >= self.settings.threshold:
                best[one] = max(best.get(one, (0.0, -1)), (score, other))
        clusters: dict[int, list[int]] = {}
        cluster_of: dict[int, int] = {}
        for one in sorted(best):  # in text order, so that the mention before it already has a cluster
            other = best[one][1]
            cluster_of[one] = cluster_of.setdefault(other, other)
            clusters.setdefault(cluster_of[one], [cluster_of[one]]).append(one)
        entities = mentions_of(links.doc)
        found = []
        for members in clusters.values():
            spans = [links.mentions[n] for n in dict.fromkeys(members)]
            bounds = tuple((span.start_char, span.end_char) for span in spans)
            found.append(MentionCluster(bounds, choose_name(spans, entities)))
        return found


def find_mentions(doc: Doc) -> list[Span]:
    """Return the mentions of a document that may be the same entity, in text order.

    These are its entities, personal and possessive pronouns of the third person, and noun phrases with a definite
    article, a demonstrative or a possessive ("the firm", "her brother"), as far as the document is tagged and parsed.
    """
    # Pronouns and descriptions do not refer to numbers and dates.
    mentions = [span for span in mentions_of(doc) if is_name_type(span.label_)]
    taken = {token.i for span in mentions for token in span}
    mentions += [doc[token.i : token.i + 1] for token in doc if token.i not in taken and _is_pronoun(token)]
    if doc.has_annotation("DEP"):
        mentions += [
            chunk
            for chunk in noun_chunks(doc)
            if len(chunk) > 1 and chunk.root.i not in taken and not _is_pronoun(chunk.root) and _is_definite(chunk[0])
        ]
    spans = {(span.start, span.end): span for span in mentions}
    return [spans[bounds] for bounds in sorted(spans)]


def _is_pronoun(token: Token) -> bool:
    return token.pos_ == "PRON" and "Prs" in token.morph.get("PronType", []) and "3" in token.morph.get("Person", [])


def _is_definite(token: Token) -> bool:
    morph = token.morph
    return bool("Def" in morph.get("Definite", []) or "Dem" in morph.get("PronType", []) or morph.get("Poss", []))


def _short_names(mentions: Sequence[Span]) -> dict[int, int]:
    """Return for short names of persons the last mention before with the full name, if only one person has it."""
    names = {number: _words(span) for number, span in enumerate(mentions) if is_person_type(span.label_)}
    found = {}
    for one, words in names.items():
        full = {other: longer for other, longer in names.items() if other < one and words and words < longer}
        longest = max(full.values(), key=len, default=set())
        if full and all(longer <= longest for longer in full.values()):
            found[one] = max(full)
    return found


def _may_refer(mention: Span, other: Span) -> bool:
    """Return whether a mention may be the same as one before it."""
    if other.end > mention.start:  # "her" in "her brother", or the other way round
        return False
    if mention.label_ and other.label_:
        # Equal names are the same entity anyway. Of different names, one must be part of the other: "Dr. Lee" of "Ann
        # Lee", but not "Bo Lee".
        short, long = sorted((_words(mention), _words(other)), key=len)
        return mention.text.lower() != other.text.lower() and bool(short) and short <= long
    return _agree(mention, other) and _agree(other, mention)


def _agree(pronoun: Span, name: Span) -> bool:
    """Return whether an English pronoun may refer to a name: "she" is no organization, and "it" is no person.

    In other languages, the gender of a pronoun is often that of a noun.
    """
    if not name.label_ or len(pronoun) > 1 or not _is_pronoun(pronoun[0]) or pronoun.doc.lang_ != "en":
        return True
    gender = pronoun[0].morph.get("Gender", [])
    return not gender or is_person_type(name.label_) in (None, "Neut" not in gender)


def _words(name: Span) -> set[str]:
    """Return the words of a name in lower case, without titles."""
    return {token.lower_ for token in name} - _TITLES


def _make_context(window: Span, mentions: Sequence[Span]) -> Context:
    text = window.text
    offset = window.start_char
    return Context(
        text,
        tuple(
            Mention(max(span.start_char - offset, 0), min(span.end_char - offset, len(text)), "") for span in mentions
        ),
    )


@Language.factory(
    "slm_coreference",
    assigns=["doc.spans"],
    requires=["doc.ents"],
    default_config={"model": {"@architectures": "spacy-slmre.SmallLM.v1"}, **defaults_of(CoreferenceSettings)},
)
@takes_settings(CoreferenceSettings)
def make_slm_coreference(
    nlp: Language, name: str, model: RelationModel, settings: CoreferenceSettings
) -> CoreferenceResolver:
    """Make a component that resolves coreference with a language model, `@architectures = "spacy-slmre.SmallLM.v1"`."""
    return CoreferenceResolver(model, name, settings)
