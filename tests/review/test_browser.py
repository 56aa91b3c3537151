"""The review page in a real browser: Chromium with its driver, if installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from spacy_slmre.review.session import ReviewSession
from spacy_slmre.serve.server import PageServer

pytestmark = pytest.mark.slow

PROBABILITIES = {
    ("Cy", "img"): {"<b>bold</b>": 0.52, "employer": 0.2},
    ("Bo", "Acme"): {"no_relation": 0.55, "employer": 0.45},
    ("Ann", "Acme"): {"employer": 0.6, "no_relation": 0.3},
    ("Ann", "Bo"): {"parent": 0.7, "spouse": 0.2},
    ("Acme", "Ann"): {"employer": 0.9},
}


def test_all_pairs_are_reviewed_with_keys(browser: webdriver.Chrome, server: PageServer, tmp_path: Path) -> None:
    wait = WebDriverWait(browser, 10)

    def arc() -> str:
        try:
            return " ".join(one.accessible_name for one in browser.find_elements(By.CSS_SELECTOR, "#figure .arc"))
        except StaleElementReferenceException:  # the next figure has just replaced this one
            return ""

    def shows(words: str) -> None:
        wait.until(lambda _: words in arc(), f"{words} is not in: {arc()}")

    def text(id: str) -> str:
        return browser.find_element(By.ID, id).text

    def press(*keys: str) -> None:
        browser.switch_to.active_element.send_keys(*keys)

    browser.get(server.address)
    wait.until(lambda _: text("count") == "0 of 5 pairs decided")
    # The page shows all keys.
    assert {one.text for one in browser.find_elements(By.CSS_SELECTOR, ".row kbd")} >= set("ldarsb")

    shows("Cy – <b>bold</b> – <img src=x onerror=alert(1)>")
    assert not browser.find_elements(By.CSS_SELECTOR, "#pair img, #pair b")
    assert text("kind") == "Predicted relation" and text("document") == "in doc"
    press("s")
    shows("Bo – employer – Acme & Sons")
    assert text("kind") == "Near miss"
    press("r")
    shows("Ann – employer – Acme & Sons")
    # Another label by its number and by the list, the other direction, and back.
    browser.find_element(By.TAG_NAME, "body").send_keys("d")
    shows("Acme & Sons – employer – Ann")
    press("l")
    assert browser.switch_to.active_element.get_attribute("id") == "label"
    press("s", Keys.ENTER)
    shows("Acme & Sons – spouse – Ann")
    assert browser.switch_to.active_element.tag_name == "body"
    press("1")
    shows("Acme & Sons – employer – Ann")
    press("d")
    shows("Ann – employer – Acme & Sons")
    press("a")
    shows("Ann – parent – Bo")
    assert text("count") == "2 of 5 pairs decided"
    press("b")
    shows("Ann – employer – Acme & Sons")
    assert "Your decision was: accept" in text("status")
    press("k")
    shows("Ann – parent – Bo")
    assert text("count") == "2 of 5 pairs decided" and not text("keep")
    press("k", "b")  # without a decision there is nothing to keep
    shows("Ann – employer – Acme & Sons")
    press("d", "a")
    shows("Ann – parent – Bo")
    browser.find_element(By.CSS_SELECTOR, "[data-action=accept]").click()
    # The last pair was decided with its other direction, so only the skipped one is left.
    shows("Cy – <b>bold</b>")
    assert text("count") == "4 of 5 pairs decided"
    press("2")
    shows("Cy – employer")
    press("a")
    wait.until(lambda _: "All pairs are decided" in text("done"))
    assert not browser.find_element(By.ID, "pair").is_displayed()
    press("b")
    shows("Cy – employer")
    # The pairs before are known after the page was closed, too.
    press("k")
    browser.refresh()
    wait.until(lambda _: "All pairs are decided" in text("done"))
    press("a", "b")
    shows("Cy – employer")
    assert "Your decision was: accept" in text("status") and text("count") == "5 of 5 pairs decided"
    press("b")
    shows("Ann – parent – Bo")
    press("k")
    wait.until(lambda _: "All pairs are decided" in text("done"))
    (document,) = map(json.loads, (tmp_path / "reviewed.jsonl").read_text("utf-8").splitlines())
    assert [(row["head"]["text"], row["label"], row["tail"]["text"]) for row in document["pairs"]] == [
        ("Ann", "parent", "Bo"),
        ("Ann", "no_relation", "Acme & Sons"),
        ("Bo", "child", "Ann"),
        ("Bo", "no_relation", "Acme & Sons"),
        ("Acme & Sons", "employer", "Ann"),
        ("Cy", "employer", "<img src=x onerror=alert(1)>"),
    ]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_unreachable_server_is_reported_and_the_decision_can_be_repeated(
    browser: webdriver.Chrome, server: PageServer, session: ReviewSession
) -> None:
    wait = WebDriverWait(browser, 10)
    browser.get(server.address)
    wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "#figure .arc"))
    status, body = browser.find_element(By.ID, "status"), browser.find_element(By.TAG_NAME, "body")
    browser.execute_cdp_cmd("Network.enable", {})
    for offline in (True, False):
        network = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", network)
        body.send_keys("a")
        if offline:
            wait.until(lambda _: "Is the server still running?" in status.text)
            assert browser.find_elements(By.CSS_SELECTOR, "#figure .arc")
            assert session.n_decided == 0
    wait.until(lambda _: browser.find_element(By.ID, "count").text == "1 of 5 pairs decided")
    assert status.text == "" and session.n_decided == 1
