"""Sentences with `<e1>…</e1>` and `<e2>…</e2>` in them: the form of SemEval-2010 Task 8 and of its kin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from spacy_slmre.corpus.records import UNTYPED, Malformed, Pair, Record, Reject
from spacy_slmre.corpus.sources import read_lines
from spacy_slmre.instances import Mention

_TAG = re.compile(r"</?e[12]>")
_SENTENCE = re.compile(r"(\d+)\t(.*)")


def read_marked_file(source: str | Path, split: str) -> Iterator[Record | Reject]:
    """Records of a file of blocks: a number and a marked sentence in quotes, the label, perhaps a comment.

    Args:
        source: The file.
        split: The split, part of each record's identifier.
    """
    open_sentence: tuple[int, str, str] | None = None
    for line, content in read_lines(source):
        content = content.strip()
        if match := _SENTENCE.fullmatch(content):
            if open_sentence:
                yield _without_label(open_sentence)
            open_sentence = (line, f"{split}-{match[1]}", match[2])
        elif open_sentence and content:
            start, name, sentence = open_sentence
            open_sentence = None
            try:
                text, head, tail = parse_marked(unquoted(sentence))
                yield Record(name, start, text, (Pair(head, tail, content),))
            except Malformed as error:
                yield Reject(start, name, "malformed record", str(error))
        elif content and not content.startswith("Comment"):
            yield Reject(line, split, "unexpected line", f"{content[:80]!r} belongs to no sentence")
    if open_sentence:
        yield _without_label(open_sentence)


def parse_marked(sentence: str) -> tuple[str, Mention, Mention]:
    """A marked sentence without its marks, the mention of `e1` and that of `e2`.

    Raises:
        Malformed: A mark is missing, or stands there more than once.
    """
    text = ""
    edges: dict[str, int] = {}
    position = 0
    for match in _TAG.finditer(sentence):
        text += sentence[position : match.start()]
        if match[0] in edges:
            raise Malformed(f"the mark {match[0]} stands there more than once")
        edges[match[0]] = len(text)
        position = match.end()
    text += sentence[position:]
    if missing := {"<e1>", "</e1>", "<e2>", "</e2>"} - edges.keys():
        raise Malformed(f"the mark {min(missing)} is missing")
    head = Mention(edges["<e1>"], edges["</e1>"], UNTYPED)
    tail = Mention(edges["<e2>"], edges["</e2>"], UNTYPED)
    return text, head, tail


def unquoted(sentence: str) -> str:
    """A sentence without the quotes that the format puts around it."""
    sentence = sentence.strip()
    if len(sentence) > 1 and sentence[0] == sentence[-1] == '"':
        return sentence[1:-1]
    return sentence


def _without_label(sentence: tuple[int, str, str]) -> Reject:
    return Reject(sentence[0], sentence[1], "no label", "no label follows the sentence")
