"""Find spans of a document that may be entities: names and noun phrases."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from spacy.tokens import Doc, Span, Token


def find_names(doc: Doc) -> list[Span]:
    """Return possible names, which may overlap, in no particular order.

    In a tagged document, these are sequences of proper nouns ("Red Mill") and, if it is parsed, noun phrases that end
    in one, from their first capitalized word ("Old Town Hall"). In an untagged document, they are sequences of
    capitalized words without stop words at their edges. One that only consists of the first word of a sentence is
    left out, because any word is capitalized there.
    """
    if not doc.has_annotation("POS"):
        return [span for span in _sequences(doc, _is_capitalized, _trim_stop_words) if not _is_first_word(span)]
    names = _sequences(doc, lambda token: token.pos_ == "PROPN", lambda span: span)
    if doc.has_annotation("DEP"):
        names += [name for chunk in noun_chunks(doc) if (name := _name_in(chunk)) is not None]
    return names


def find_noun_phrases(doc: Doc) -> list[Span]:
    """Return noun phrases that end in a common noun ("the surgeon", "her brother"); the document must be parsed."""
    if not doc.has_annotation("DEP"):
        return []
    return [chunk for chunk in noun_chunks(doc) if chunk.root.pos_ == "NOUN"]


def noun_chunks(doc: Doc) -> Iterator[Span]:
    """Yield the noun phrases of a parsed document."""
    try:
        yield from doc.noun_chunks
    except NotImplementedError:  # spaCy has no rules for the language
        return


def _sequences(doc: Doc, belongs: Callable[[Token], bool], trim: Callable[[Span], Span]) -> list[Span]:
    """Return the longest sequences of tokens that belong together, within sentences, after trimming."""
    spans = []
    start = None
    for token in doc:
        inside = belongs(token)
        if start is not None and (not inside or token.is_sent_start):
            spans.append(doc[start : token.i])
            start = None
        if inside and start is None:
            start = token.i
    if start is not None:
        spans.append(doc[start:])
    return [trimmed for span in spans if len(trimmed := trim(span))]


def _is_capitalized(token: Token) -> bool:
    return token.text[:1].isupper()


def _trim_stop_words(span: Span) -> Span:
    while len(span) and span[0].is_stop:
        span = span[1:]
    while len(span) and span[-1].is_stop:
        span = span[:-1]
    return span


def _is_first_word(span: Span) -> bool:
    """Return whether a span is one word at the start of a sentence; sentences are guessed if they are unknown."""
    if len(span) > 1:
        return False
    token = span[0]
    if token.i == 0 or token.doc.has_annotation("SENT_START"):
        return token.i == 0 or bool(token.is_sent_start)
    before = token.nbor(-1)
    return before.is_space or (before.is_punct and before.text not in ",;-–()")


def _name_in(chunk: Span) -> Span | None:
    """Return the end of a noun phrase from its first capitalized word, if the phrase ends in a proper noun."""
    if chunk[-1].pos_ != "PROPN":
        return None
    start = 0
    for position, token in enumerate(chunk):
        if token.tag_ == "POS" or token.pos_ == "PUNCT":
            start = position + 1  # "Rome's Red Mill"
    while start < len(chunk) and (not _is_capitalized(chunk[start]) or chunk[start].pos_ in ("DET", "PRON")):
        start += 1
    return chunk[start:] if start < len(chunk) else None
