from __future__ import annotations

import colorsys
import json
import re
import sys
import types
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import spacy
from lxml import html as lxml_html
from spacy import displacy

import spacy_slmre
from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.relations import install_extensions
from spacy_slmre.visual.pages import stylesheet
from tests.relation_documents import HOSTILE, hostile_document, make_document

DOCUMENT = make_document(
    "a", ["Ann", "Rome", "Bo"], ["PER", "LOC", "PER"], [(0, 1, "born in", 0.9), (0, 2, "sibling", 0.4)]
)


class _Tags(HTMLParser):
    """Collects tags, attributes and texts like a browser."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("style", ["arcs", "graph"])
def test_hostile_texts_are_escaped(style: str) -> None:
    plain, hostile = DOCUMENT, hostile_document()
    options = {"title": HOSTILE[6]}
    page = spacy_slmre.render([plain, hostile], style=style, page=True, options=options)
    assert page is not None
    read, expected = _Tags(page), _Tags(spacy_slmre.render([plain], style=style, page=True) or "")
    assert {"img", "b"}.isdisjoint(read.tags) and not {name for name in read.attributes if name.startswith("on")}
    assert read.tags.count("script") == expected.tags.count("script")
    assert HOSTILE[5] in read.texts or any(HOSTILE[5] in text for text in read.texts)
    assert "{{ 7 * 7 }} {% raw %}" in "".join(read.texts)


@pytest.mark.parametrize("style", ["arcs", "graph"])
def test_page_is_self_contained(style: str) -> None:
    page = spacy_slmre.render([DOCUMENT], style=style, page=True) or ""
    tree = lxml_html.document_fromstring(page)
    assert not tree.xpath("//link|//img|//script[@src]|//iframe") and not re.search(r"https?://|@import|url\(", page)


def test_options_select_relations_and_colors() -> None:
    page = spacy_slmre.render(DOCUMENT, options={"min_score": 0.5}) or ""
    assert "born in" in page and "sibling" not in page
    page = (
        spacy_slmre.render(
            DOCUMENT, options={"labels": ["sibling"], "scores": False, "colors": {"PER": "#123456", "sibling": "teal"}}
        )
        or ""
    )
    assert "born in" not in page and "#123456" in page and "--relation: teal" in page
    with pytest.raises(ValueError, match='Unknown option "hue"'):
        spacy_slmre.render(DOCUMENT, options={"hue": 1})
    with pytest.raises(ValueError, match="is not a CSS color"):
        spacy_slmre.render(DOCUMENT, options={"colors": {"PER": "red; background: url(x)"}})
    with pytest.raises(ValueError, match="Use one of arcs, graph"):
        spacy_slmre.render(DOCUMENT, style="dep")


def test_colors_of_other_packages_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "spacy_slmre.visual.colors.registry",
        types.SimpleNamespace(displacy_colors=types.SimpleNamespace(get_all=lambda: {"x": lambda: {"PER": "#00ff01"}})),
    )
    assert "#00ff01" in (spacy_slmre.render(DOCUMENT) or "")


def test_displacy_knows_our_colors() -> None:
    doc = spacy.blank("en")("Ann lives.")
    doc.set_ents([spacy.tokens.Span(doc, 0, 1, "PER")])
    assert "#aa9cfc" in displacy.render(doc, style="ent", jupyter=False)


def test_page_explains_missing_relations_and_failures() -> None:
    failed = RelationDocument("b", "", error="not UTF-8")
    empty = make_document("c", ["Ann"], ["PER"], [])
    page = spacy_slmre.render([failed, empty]) or ""
    assert "Extraction failed: not UTF-8" in page and "No relations to show in this text." in page
    assert "There are no documents" in (spacy_slmre.render([]) or "")
    assert "There are no relations to show" in (spacy_slmre.render([failed], style="graph", page=True) or "")


def test_docs_and_spans_are_drawn() -> None:
    install_extensions()
    nlp = spacy.blank("en")
    doc = nlp("Ann met Bo. Cy met Di.")
    doc.set_ents([spacy.tokens.Span(doc, i, i + 1, "PER") for i in (0, 2, 4, 6)])
    doc._.relations = [(doc.ents[0], doc.ents[1], "met", 0.5), (doc.ents[2], doc.ents[3], "knows", 0.5)]
    assert "met" in (spacy_slmre.render(doc) or "")
    part = spacy_slmre.render(doc[4:8]) or ""
    assert "Cy – knows – Di, score 0.50" in part and "Ann" not in part


@pytest.mark.parametrize("style", ["arcs", "graph"])
def test_symmetric_relations_are_drawn_once_without_an_arrowhead(style: str) -> None:
    pairs = [(0, 1, "spouse", 0.9), (1, 0, "spouse", 0.9), (0, 1, "boss", 0.5)]
    document = replace(make_document("a", ["Ann", "Bo"], ["PER", "PER"], pairs), inverse_of={"spouse": "spouse"})
    page = lxml_html.document_fromstring(spacy_slmre.render(document, style=style, page=True) or "")
    tips = {
        arc.xpath(".//text[@class='label']")[0].text.strip(): arc.xpath(".//path[@class='tip']/@d")
        for arc in _arcs(page)
    }
    assert len(_arcs(page)) == 2 and tips.keys() == {"spouse", "boss"}
    assert tips["spouse"] in ([], [""]) and tips["boss"][0].startswith("M")


def _arcs(page: lxml_html.HtmlElement) -> list[lxml_html.HtmlElement]:
    return page.xpath("//*[name()='g' and contains(concat(' ', @class, ' '), ' arc ')]")


def test_graph_page_has_sentences_and_scores() -> None:
    documents = [DOCUMENT, make_document("b", ["ANN", "Rome"], ["PER", "LOC"], [(0, 1, "born in", 0.7)])]
    page = spacy_slmre.render(documents, style="graph", page=True) or ""
    data = json.loads(lxml_html.document_fromstring(page).xpath("//script[@id='data']/text()")[0])
    assert (data[0]["label"], data[0]["count"], data[0]["score"]) == ("born in", 2, 0.9)
    assert "".join(words for words, _ in data[0]["sources"][0]["parts"]) == documents[0].text
    assert [words for words, side in data[0]["sources"][0]["parts"] if side] == ["Ann", "Rome"]
    page = spacy_slmre.render(documents, style="graph", page=True, options={"max_relations": 1}) or ""
    assert "1 more are hidden" in page
    frame = spacy_slmre.render(documents, style="graph") or ""
    assert frame.startswith("<iframe sandbox") and frame.count("<") == 2


@pytest.mark.parametrize(("level", "n_relations", "n_nodes"), [(None, 1, 2), ("facts", 2, 4), ("mentions", 3, 6)])
def test_nodes_of_a_graph_are_entities_or_mentions(level: str | None, n_relations: int, n_nodes: int) -> None:
    again = [(0, 1, "born in", 0.7), (2, 3, "born in", 0.6)]
    other = make_document("b", ["Ann", "Rome", "ANN", "rome"], ["PER", "LOC", "PER", "LOC"], again)
    one = make_document("a", ["Ann", "Rome"], ["PER", "LOC"], [(0, 1, "born in", 0.9)])
    page = spacy_slmre.render([one, other], style="graph", page=True, options={"level": level}) or ""
    drawn = lxml_html.document_fromstring(page)
    data = json.loads(drawn.xpath("//script[@id='data']/text()")[0])
    assert len(data) == n_relations and sum(one["count"] for one in data) == 3
    assert len(drawn.xpath("//*[name()='g' and contains(concat(' ', @class, ' '), ' node ')]")) == n_nodes


def test_text_outside_of_sentences_and_the_outermost_entities_are_shown() -> None:
    text = "First part. Ann Lee met Bo. New York University."
    entities = tuple(EntityMention(text.index(one), text.index(one) + len(one), one, "X") for one in ("New York", "Bo"))
    university = EntityMention(28, 47, "New York University", "ORG")
    document = RelationDocument("a", text, (*entities, university), (), sentences=((12, 27),))
    page = lxml_html.document_fromstring(spacy_slmre.render(document, page=True) or "")
    shown = " ".join(page.text_content().split())
    assert "First part." in shown and "Ann Lee met Bo" in shown
    assert [mark.text for mark in page.xpath("//mark")] == ["Bo", "New York University"]


def test_words_of_right_to_left_text_are_drawn_in_that_direction() -> None:
    # Otherwise, the period would be drawn to the right of its word.
    text = "דני גר ב Rome."
    head, tail = EntityMention(0, 3, "דני", "PER"), EntityMention(9, 13, "Rome", "GPE")
    document = RelationDocument("a", text, (head, tail), (DocumentRelation(head, tail, "residence", 1.0),))
    for drawn, direction in ((document, {"rtl"}), (DOCUMENT, {None})):
        page = lxml_html.document_fromstring(spacy_slmre.render(drawn, page=True) or "")
        assert {words.get("direction") for words in page.xpath("//text[@class='words']")} == direction


def test_nested_arguments_are_both_marked_in_the_sentences_of_a_graph() -> None:
    text = "The Bank of England sits in England."
    head, tail = EntityMention(4, 19, "Bank of England"), EntityMention(12, 19, "England")
    document = RelationDocument("a", text, (head, tail), (DocumentRelation(head, tail, "in", 1.0),))
    page = spacy_slmre.render(document, style="graph", page=True) or ""
    data = json.loads(lxml_html.document_fromstring(page).xpath("//script[@id='data']/text()")[0])
    parts = [["The ", ""], ["Bank of ", "head"], ["England", "head tail"], [" sits in England.", ""]]
    assert data[0]["sources"][0]["parts"] == parts


def test_notebook_displays_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    display = types.ModuleType("IPython.display")
    display.HTML, display.display = str, shown.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert spacy_slmre.render(DOCUMENT, jupyter=True) is None
    with monkeypatch.context() as patched:
        patched.setattr("spacy_slmre.visual.rendering.is_in_jupyter", lambda: True)
        assert spacy_slmre.render(DOCUMENT) is None
        assert "<html" in (spacy_slmre.render(DOCUMENT, page=True) or "")
    assert "born in" in shown[0] and "<html" not in shown[0]


@pytest.mark.parametrize("style", ["arcs", "graph"])
def test_relation_of_white_space_is_in_the_table(style: str) -> None:
    document = make_document("a", ["Ann", "  "], ["PER", ""], [(0, 1, "saw nothing", 0.9)])
    assert "saw nothing" in (spacy_slmre.render(document, style=style, page=True) or "")


def _luminance(red: float, green: float, blue: float) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_labels_and_errors_have_enough_contrast_in_both_themes() -> None:
    css = str(stylesheet())
    for rule in re.findall(r"--ground: [^}]*", css):
        values = dict(re.findall(r"--(\w+): ([^;]+);", rule))
        hexed = {
            name: _luminance(*(int(values[name][i : i + 2], 16) / 255 for i in (1, 3, 5)))
            for name in ("ground", "failed")
        }
        light = float(values["light"].rstrip("%")) / 100
        texts = [_luminance(*colorsys.hls_to_rgb(hue / 360, light, 0.62)) for hue in range(360)]
        for text in (*texts, hexed["failed"]):
            low, high = sorted((text, hexed["ground"]))
            assert (high + 0.05) / (low + 0.05) >= 4.5


def test_missing_networkx_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "spacy_slmre.visual.graph_page", raising=False)
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ValueError, match=r"networkx.*pip install 'spacy-slmre\[export\]'"):
        spacy_slmre.render(DOCUMENT, style="graph")
