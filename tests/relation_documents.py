"""Documents with relations, for tests of exports and pictures."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from spacy_slmre.coreference import MentionCluster
from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument

HOSTILE = [
    'He said "no", twice',
    "it's O'Brien's",
    "two\nlines",
    "a\r\nWindows line",
    "tab\there",
    "<script>alert('x')</script>",
    "</script><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "https://example.org/<evil>#a b",
    "_:blank \\u0022 . <a> <b> <c> .",
    '=HYPERLINK("http://x","y")',
    "+1",
    "-1+2",
    "@SUM(1)",
    "'=1",
    "＝1",
    "'}) DETACH DELETE n //",
    "\\' RETURN 1 //",
    "\\u0027 RETURN 1 //",
    "back\\",
    "`tick`",
    "a;b|c,d",
    "&amp; &lt;",
    "]]>",
    "🦊 Zoë e\u0301",
    "\u202ertl\u202c שלום",
    "\ufeffmark",
    "null",
    "%2F%00",
]


def make_document(
    id: str, words: list[str], types: list[str], pairs: list[tuple[int, int, str, float]], model: str = ""
) -> RelationDocument:
    """Make a document whose entities are the words, joined by plain text, with relations between them by number."""
    text, entities = "Then ", []
    for word, type_ in zip(words, types, strict=True):
        entities.append(EntityMention(len(text), len(text) + len(word), word, type_))
        text += f"{word} and "
    relations = tuple(
        DocumentRelation(entities[head], entities[tail], label, score) for head, tail, label, score in pairs
    )
    return RelationDocument(id, text, tuple(entities), relations, ((0, len(text)),), model=model)


def hostile_document(id: str = "hostile") -> RelationDocument:
    """Make a document with every hostile text as an entity, related to the next by a hostile label."""
    count = len(HOSTILE)
    pairs = [(n, (n + 1) % count, HOSTILE[-n], 0.5 + n / 100) for n in range(count)]
    types = ["PER", "A;B", ""] * (count // 3) + ["X`"] * (count % 3)
    return make_document(id, HOSTILE, types, pairs, 'model "1"\n')


TEXTS = st.one_of(
    st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
)


@st.composite
def _clusters(draw: st.DrawFn, document: RelationDocument) -> tuple[MentionCluster, ...]:
    mentions = st.sampled_from([(entity.start, entity.end) for entity in document.entities])
    members = draw(st.lists(st.lists(mentions, min_size=1, unique=True), max_size=2))
    return tuple(MentionCluster(tuple(sorted(cluster)), draw(st.one_of(st.just(""), TEXTS))) for cluster in members)


@st.composite
def documents(draw: st.DrawFn) -> list[RelationDocument]:
    """Draw documents with arbitrary texts, types, labels and scores, and unique ids."""
    made = []
    for number in range(draw(st.integers(0, 3))):
        words = draw(st.lists(TEXTS, min_size=1, max_size=4))
        types = [draw(st.sampled_from(["PER", "LOC", "", "a b"])) for _ in words]
        index = st.integers(0, len(words) - 1)
        pairs = draw(
            st.lists(
                st.tuples(index, index, TEXTS, st.floats(0, 1, allow_subnormal=False)),
                max_size=4,
                unique_by=lambda pair: pair[:3],
            )
        )
        id, model = f"{draw(TEXTS)} {number}", draw(st.sampled_from(["", "m 1"]))
        document = make_document(id, words, types, pairs, model)
        labels = sorted({label for _, _, label, _ in pairs})
        # The first label is symmetric, or inverse to another one.
        inverses = draw(st.dictionaries(st.sampled_from(labels[:1]), st.sampled_from(labels))) if labels else {}
        made.append(replace(document, inverse_of=inverses, clusters=draw(_clusters(document))))
    return made
