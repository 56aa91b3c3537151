"""Pages in a real browser: Chromium with its driver, if installed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import spacy
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from spacy.language import Language
from spacy.tokens import Doc

import spacy_slmre
from spacy_slmre.extraction.pipelines import ExtractionPipeline
from spacy_slmre.relations import install_extensions
from spacy_slmre.serve.server import PageServer
from spacy_slmre.serve.service import make_service
from tests.relation_documents import hostile_document, make_document
from tests.serving import serving

pytestmark = pytest.mark.slow

DOCUMENT = make_document(
    "letters",
    ["Ada Brandt", "Uppsala", "Otto Reiss", "Northgate Shipping"],
    ["PER", "LOC", "PER", "ORG"],
    [
        (0, 1, "born in", 0.91),
        (0, 2, "spouse", 0.8),
        (2, 3, "employer", 0.7),
        (0, 3, "employer", 0.6),
        (3, 1, "seat", 0.5),
    ],
)


def show(browser: webdriver.Chrome, page: str | None, folder: Path) -> None:
    assert page is not None
    (folder / "page.html").write_text(page, encoding="utf-8")
    browser.get((folder / "page.html").as_uri())


def all_of(browser: webdriver.Chrome, css: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, css)


def box(element: WebElement) -> tuple[float, float, float, float]:
    rect = element.rect
    return rect["x"], rect["y"], rect["x"] + rect["width"], rect["y"] + rect["height"]


def meet(one: tuple, other: tuple) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_arcs_are_labeled_and_reached_by_keyboard(browser: webdriver.Chrome, tmp_path: Path) -> None:
    show(browser, spacy_slmre.render(DOCUMENT, page=True), tmp_path)
    arcs, labels = all_of(browser, ".arc"), all_of(browser, ".arc .label")
    assert [arc.accessible_name for arc in arcs] == [
        f"{one.head.text} – {one.label} – {one.tail.text}, score {one.score:.2f}" for one in DOCUMENT.relations
    ]
    assert [label.text for label in labels] == [f"{one.label} {one.score:.2f}" for one in DOCUMENT.relations]
    boxes = [box(label) for label in labels]
    assert all(x2 - x1 > 20 and y2 - y1 > 8 for x1, y1, x2, y2 in boxes)
    words = [box(word) for word in all_of(browser, ".words")]
    for number, one in enumerate(boxes):
        assert not any(meet(one, other) for other in [*boxes[:number], *words])
    # The frames that an arc highlights are those of its head and tail.
    frames = arcs[0].find_elements(By.CSS_SELECTOR, ".ends")
    for frame, name in zip(frames, ("Ada Brandt", "Uppsala"), strict=True):
        assert any(meet(box(frame), box(word)) for word in all_of(browser, ".words") if word.text.strip() == name)
    line = arcs[0].find_element(By.CSS_SELECTOR, ".line")
    assert frames[0].value_of_css_property("visibility") == "hidden"
    before = line.value_of_css_property("stroke-width")
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element == arcs[0]
    assert frames[0].value_of_css_property("visibility") == "visible"
    assert line.value_of_css_property("stroke-width") > before
    ActionChains(browser).move_to_element(labels[2]).perform()
    WebDriverWait(browser, 5).until(
        lambda _: (
            float(arcs[3].value_of_css_property("opacity")) < 0.3 < float(arcs[2].value_of_css_property("opacity"))
        )
    )


def test_page_follows_the_color_scheme_of_the_system(browser: webdriver.Chrome, tmp_path: Path) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        show(browser, spacy_slmre.render(DOCUMENT, page=True), tmp_path)
        root = browser.find_element(By.CSS_SELECTOR, ".slmre")
        ink = browser.find_element(By.CSS_SELECTOR, ".words").value_of_css_property("fill")
        grounds[scheme] = root.value_of_css_property("background-color"), ink
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert grounds["light"][0] == "rgba(255, 255, 255, 1)" and grounds["dark"][0] == "rgba(22, 24, 29, 1)"
    assert grounds["light"][1] != grounds["dark"][1]


@pytest.mark.parametrize("style", ["arcs", "graph"])
def test_narrow_window_is_not_scrolled_sideways(browser: webdriver.Chrome, tmp_path: Path, style: str) -> None:
    document = make_document("long", ["Ann" * 20, "Bo" * 30], ["PER", "PER"], [(0, 1, "has_met_" * 12, 0.9)])
    size = {"width": 420, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    show(browser, spacy_slmre.render(document, style=style, page=True), tmp_path)
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 420
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_graph_zooms_and_shows_details(browser: webdriver.Chrome, tmp_path: Path) -> None:
    show(browser, spacy_slmre.render([DOCUMENT, hostile_document()], style="graph", page=True), tmp_path)
    graph, panel = browser.find_element(By.ID, "graph"), browser.find_element(By.ID, "panel")
    graph.send_keys("0")
    whole = graph.get_dom_attribute("viewBox")
    browser.find_element(By.CSS_SELECTOR, "[data-zoom=in]").click()
    assert graph.get_dom_attribute("viewBox") != whole
    browser.find_element(By.CSS_SELECTOR, "[data-zoom=all]").click()
    graph.send_keys("+", Keys.ARROW_LEFT)
    assert graph.get_dom_attribute("viewBox") != whole
    graph.send_keys("0")
    assert graph.get_dom_attribute("viewBox") == whole
    arc = next(arc for arc in all_of(browser, ".arc") if "Ada Brandt – born in" in arc.accessible_name)
    ActionChains(browser).move_to_element(arc.find_element(By.CSS_SELECTOR, ".label")).perform()
    assert DOCUMENT.text.strip() in panel.text and "score 0.91" in panel.text and "letters" in panel.text
    assert "dimmed" in (graph.get_attribute("class") or "")
    node = next(node for node in all_of(browser, ".node") if node.accessible_name.startswith("Otto Reiss"))
    ActionChains(browser).move_to_element(node).click().perform()
    ActionChains(browser).move_to_element(panel).perform()
    assert "Ada Brandt – spouse → Otto Reiss" in panel.text and "born in" not in panel.text
    # Hostile texts are escaped in the panel, too, and the console is free of errors.
    for arc in all_of(browser, ".arc"):
        browser.execute_script("arguments[0].dispatchEvent(new Event('pointerenter'))", arc)
    assert not all_of(browser, "#panel img, #panel script")
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_large_graph_opens_at_a_readable_size(browser: webdriver.Chrome, tmp_path: Path) -> None:
    names = [f"Person {number}" for number in range(90)]
    pairs = [(number, number + 1, "knows", 0.5) for number in range(0, 90, 2)] + [
        (44, number, "met", 0.5) for number in (46, 48)
    ]
    document = make_document("people", names, ["PER"] * 90, pairs)
    show(browser, spacy_slmre.render(document, style="graph", page=True), tmp_path)

    def inside() -> list[str]:
        left, top, right, bottom = box(browser.find_element(By.ID, "graph"))
        boxes = {node.accessible_name.partition(",")[0]: box(node) for node in all_of(browser, ".node")}
        return [name for name, (x1, y1, x2, y2) in boxes.items() if left < x1 < x2 < right and top < y1 < y2 < bottom]

    def height() -> float:
        return all_of(browser, ".node rect")[0].rect["height"]

    assert height() > 17
    # Part of the graph with the entity that has the most relations, and then all of it.
    assert "Person 44" in inside() and len(inside()) < 90
    # The Tab key reaches the rest.
    browser.find_element(By.CSS_SELECTOR, "[data-zoom=in]").send_keys(Keys.SHIFT, Keys.TAB)
    last = browser.switch_to.active_element.accessible_name.partition(",")[0]
    assert last in inside() and "Person 44" not in inside()
    browser.find_element(By.CSS_SELECTOR, "[data-zoom=all]").click()
    assert height() < 15 and len(inside()) == 90


def test_long_chapter_opens_in_two_seconds(browser: webdriver.Chrome, tmp_path: Path) -> None:
    words = [f"Person {number}" for number in range(600)]
    pairs = [(number, number + 1, "knows", 0.5 + number / 2000) for number in range(0, 600, 2)]
    chapter = make_document("chapter", words, ["PER"] * 600, pairs)
    # 300 sentences of about 17 words: 5,000 words.
    filler = "in the long and quiet hours before the rain came, so they said".split()  # noqa: SIM905
    text, entities, relations, bounds = "", [], [], []
    for one in chapter.relations:
        begin, ends = len(text), []
        for side, after in ((one.head, " met "), (one.tail, f" {' '.join(filler)}. ")):
            ends.append(type(side)(len(text), len(text) + len(side.text), side.text, side.type))
            text += side.text + after
        entities += ends
        relations.append(type(one)(*ends, one.label, one.score))
        bounds.append((begin, len(text)))
    chapter = type(chapter)("chapter", text, tuple(entities), tuple(relations), tuple(bounds))
    assert len(text.split()) >= 5000 and len(chapter.relations) == 300
    # CPU seconds, because the clock depends on how busy the machine is.
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds() -> float:
        metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    for style in ("arcs", "graph"):
        browser.get("about:blank")
        before = seconds()
        show(browser, spacy_slmre.render(chapter, style=style, page=True), tmp_path)
        browser.execute_script("document.body.getBoundingClientRect()")
        opened = seconds() - before
        clock = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd / 1000")
        print(f"{style}: {opened:.2f} s of the processor, {clock:.2f} s")
        assert len(all_of(browser, ".arc")) == 300
        assert 0 < opened < 2


@pytest.fixture
def server() -> Iterator[PageServer]:
    def read(doc: Doc) -> Doc:
        if "fail" in doc.text:
            raise RuntimeError("no <b>good</b>")
        if doc.ents:
            doc._.relations = [(doc.ents[0], doc.ents[1], "met", 0.5)]
        return doc

    install_extensions()
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PER", "pattern": name} for name in ("Ann", "Bo")])
    Language.component("test_browser_reader", func=read)
    nlp.add_pipe("test_browser_reader")
    with serving(
        make_service(ExtractionPipeline(nlp, "test_browser_reader", "relations"), example="Ann met Bo.")
    ) as server:
        yield server


def test_live_page_finds_relations_and_recovers_from_a_failure(browser: webdriver.Chrome, server: PageServer) -> None:
    browser.get(server.address)
    text, status = browser.find_element(By.ID, "text"), browser.find_element(By.ID, "status")
    wait = WebDriverWait(browser, 10)

    def send(words: str) -> None:
        text.clear()
        text.send_keys(words, Keys.CONTROL, Keys.ENTER)

    browser.find_element(By.TAG_NAME, "button").click()
    wait.until(lambda _: all_of(browser, "#result .arc"))
    assert all_of(browser, "#result .arc")[0].accessible_name == "Ann – met – Bo, score 0.50"
    send("fail")
    wait.until(lambda _: "RuntimeError: no <b>good</b>" in status.text)
    assert "failed" in (status.get_attribute("class") or "")
    send("<img src=x onerror=alert(1)> Bo and Ann")
    wait.until(lambda _: all_of(browser, "#result .arc") and "Bo – met – Ann" in browser.page_source)
    time.sleep(0.1)
    assert not all_of(browser, "#result img")
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert all("favicon" in message for message in severe), severe
