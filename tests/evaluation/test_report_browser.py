"""The page of a report in a real browser: light, dark, narrow, and with the keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from spacy_slmre.evaluation.report import ReportOptions, make_report
from spacy_slmre.evaluation.results import find_runs
from tests.evaluation.run_folders import write_run

pytestmark = pytest.mark.slow

# Contrast between the text of an element and its background, as defined by WCAG 2.
CONTRAST = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
const channels = color => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = color => channels(color).slice(0, 3).map(c => c / 255)
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {
  const color = getComputedStyle(element).backgroundColor;
  return channels(color)[3] === 0 && element.parentElement ? behind(element.parentElement) : color;
};
return arguments[0].map(css => [...document.querySelectorAll(css)].map(element => {
  const style = getComputedStyle(element);
  const [a, b] = [light(element.closest("svg") ? style.fill : style.color), light(behind(element))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})).map(found => [found.length, Math.min(...found)]);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    write_run(folder / "runs" / "a", "Skilled", "conll04", 0.8, pairs=80)
    write_run(folder / "runs" / "b", "Fair", "conll04", 0.6, pairs=80, kind="encoder", style="")
    write_run(folder / "runs" / "c", "Poor", "demo", 0.4, pairs=80)
    (folder / "runs" / "d.part").mkdir()
    (folder / "runs" / "d.part" / "predictions.jsonl").touch()
    options = ReportOptions(command="python -m spacy slmre report runs")
    html, *_ = make_report(*find_runs([folder / "runs"]), options).write(folder / "report.html")
    return Path(html).as_uri()


@pytest.fixture
def shown(browser: webdriver.Chrome, page: str) -> Iterator[webdriver.Chrome]:
    browser.get(page)
    yield browser
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_loads_nothing_and_logs_no_errors(shown: webdriver.Chrome) -> None:
    assert shown.execute_script("return performance.getEntriesByType('resource').map(one => one.name)") == []
    assert [entry for entry in shown.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_headings_and_landmarks_structure_the_page(shown: webdriver.Chrome) -> None:
    levels = shown.execute_script(
        "document.querySelectorAll('details').forEach(one => one.open = true);"
        "return [...document.querySelectorAll('h1, h2, h3, h4')].map(one => +one.tagName[1])"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for tag, role in (("header", "banner"), ("main", "main"), ("footer", "contentinfo"), ("nav", "navigation")):
        (found,) = shown.find_elements(By.TAG_NAME, tag)
        assert found.aria_role == role
    assert shown.execute_script("return document.documentElement.lang") == "en"
    for one in shown.find_elements(By.CSS_SELECTOR, "section, nav, aside, [role=region], svg"):
        assert one.accessible_name, one.get_attribute("outerHTML")
    unnamed = "return [...document.querySelectorAll('table')].filter(one => !one.caption.textContent.trim())"
    assert shown.execute_script(unnamed) == []
    assert not shown.find_elements(By.CSS_SELECTOR, "th:not([scope])")


def test_the_page_works_with_the_keyboard(shown: webdriver.Chrome) -> None:
    body = shown.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    skip = shown.switch_to.active_element
    assert skip.text == "Skip to the results" and skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    assert shown.switch_to.active_element.get_attribute("id") == "main"
    # The first stop is the scrollable table, then its headers.
    shown.switch_to.active_element.send_keys(Keys.TAB)
    assert shown.switch_to.active_element.aria_role == "region"
    outline = shown.switch_to.active_element.value_of_css_property("outline-style")
    assert outline == "solid"

    def column(place: int) -> list[str]:
        rows = shown.find_elements(By.CSS_SELECTOR, "section table.sortable")[0]
        return [row.text for row in rows.find_elements(By.CSS_SELECTOR, f"tbody tr > :nth-child({place})")]

    names = column(1)
    assert names[0].startswith("Skilled")
    header = shown.find_element(By.CSS_SELECTOR, "table.sortable th:nth-child(2)")
    button = header.find_element(By.TAG_NAME, "button")
    button.send_keys(Keys.ENTER)
    assert header.get_attribute("aria-sort") == "descending" and column(1)[0].startswith("Skilled")
    button.send_keys(Keys.SPACE)
    # Rows without a number stay at the end.
    assert header.get_attribute("aria-sort") == "ascending" and column(1)[0].startswith("Fair")
    assert column(2)[-1] == "–"
    summary = shown.find_element(By.CSS_SELECTOR, "section figure summary")
    summary.send_keys(Keys.ENTER)
    assert shown.find_element(By.CSS_SELECTOR, "section figure details table").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_markers_have_enough_contrast(scheme: str, shown: webdriver.Chrome) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    shown.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    ground = shown.find_element(By.CSS_SELECTOR, ".slmre").value_of_css_property("background-color")
    assert ground == ("rgba(255, 255, 255, 1)" if scheme == "light" else "rgba(22, 24, 29, 1)")
    texts = [
        "h1",
        "p",
        "a:not(.skip)",
        "caption",
        "small",
        "figcaption",
        "svg text",
        ".matrix td",
        "mark",
        "mark small",
    ]
    for css, (found, least) in zip(texts, shown.execute_script(CONTRAST, texts), strict=True):
        assert found and least >= 4.5, (css, found, least)
    ((found, least),) = shown.execute_script(CONTRAST, [".sign"])
    assert found and least >= 3


def test_a_narrow_page_does_not_scroll_horizontally(shown: webdriver.Chrome) -> None:
    size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    shown.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert shown.execute_script("return document.documentElement.scrollWidth") <= 360
    for plot in shown.find_elements(By.TAG_NAME, "svg"):
        assert plot.rect["x"] + plot.rect["width"] <= 360
