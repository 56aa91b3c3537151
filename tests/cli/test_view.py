from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from tests.cli.test_export import source

__all__ = ["source"]


def run(*args: object) -> Result:
    return CliRunner().invoke(slmre_cli, ["view", *map(str, args)], catch_exceptions=False)


@pytest.mark.parametrize("style", ["arcs", "graph"])
def test_page_is_written(style: str, source: Path, tmp_path: Path) -> None:
    result = run(source, "-o", tmp_path / "page.html", "--style", style, "--title", "My <texts>")
    assert result.exit_code == 0 and "3 documents, 2 relations" in result.output
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>My &lt;texts&gt;</title>" in page and "place of birth" in page
    assert sorted(os.listdir(tmp_path)) == ["page.html", "relations.jsonl"]


def test_bad_input_says_what_to_do_and_loses_nothing(source: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine", encoding="utf-8")
    cases = [
        ((), "--serve PIPELINE"),
        ((source,), "Give a file of relations and --output"),
        ((source, "-o", page), "give --overwrite"),
        ((source, "-o", tmp_path / "page.txt"), "must end with .html"),
        ((source, "-o", source / "page.html"), "cannot be written"),
        ((tmp_path / "no.jsonl", "-o", page, "--overwrite"), "does not exist"),
        ((source, "-o", page, "--overwrite", "--style", "dep"), "use one of arcs, graph"),
        ((source, "-o", page, "--overwrite", "--theme", "blue"), "use one of auto, light, dark"),
        ((source, "--serve", "x"), "takes a pipeline and no input"),
        (("--serve", "no_such_pipeline"), "neither an installed package nor a folder"),
    ]
    for args, says in cases:
        result = run(*args)
        assert result.exit_code == 1 and says in result.output, (args, result.output)
    assert page.read_text(encoding="utf-8") == "mine" and sorted(os.listdir(tmp_path)) == [
        "page.html",
        source.name,
    ]
    result = run(source, "-o", tmp_path / "none.html", "--min-score", "0.99")
    assert result.exit_code == 0 and "no relation to show with these settings" in result.output


@pytest.mark.slow
def test_served_page_ends_cleanly(tmp_path: Path, tiny_base: Path) -> None:
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PER", "pattern": "Ann"}])
    model = {"@architectures": "spacy-slmre.SmallLM.v1", "base": str(tiny_base), "quantization": None}
    nlp.add_pipe("slm_relations", config={"model": model, "labels": ["knows"]})
    nlp.to_disk(tmp_path / "pipeline")
    command = [
        sys.executable,
        "-m",
        "spacy",
        "slmre",
        "view",
        "--serve",
        str(tmp_path / "pipeline"),
        "--port",
        "0",
    ]

    def interruptible() -> None:
        # What runs in the background of a shell ignores the signal, and so would all that it starts.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible) as process:
        assert process.stderr is not None
        address = None
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                address = found[0]
                break
        assert address
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert b"Find relations" in answer.read()
        process.send_signal(signal.SIGINT)
        assert "Ended." in process.stderr.read()
        assert process.wait(30) == 0
