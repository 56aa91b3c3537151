from __future__ import annotations

import os
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


def test_bad_input_gets_one_clear_error_and_changes_nothing(source: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine", encoding="utf-8")
    cases = [
        ((source, "-o", page), "already exists"),
        ((source, "-o", tmp_path / "page.txt"), "must end in .html"),
        ((source, "-o", source / "page.html"), "cannot be written"),
        ((tmp_path / "no.jsonl", "-o", page, "--overwrite"), "does not exist"),
        ((source, "-o", page, "--overwrite", "--style", "dep"), "Use one of arcs, graph"),
        ((source, "-o", page, "--overwrite", "--merge", "type"), "--merge has no effect with --style arcs"),
        ((source, "-o", page, "--overwrite", "--style", "graph", "--only-related"), "no effect with --style graph"),
        ((source, "-o", page, "--overwrite", "--theme", "blue"), 'must be one of "auto", "light", "dark"'),
    ]
    for args, says in cases:
        result = run(*args)
        assert result.exit_code == 1 and says in result.output, (args, result.output)
    assert page.read_text(encoding="utf-8") == "mine" and sorted(os.listdir(tmp_path)) == ["page.html", source.name]
    result = run(source, "-o", tmp_path / "none.html", "--min-score", "0.99")
    assert result.exit_code == 0 and "no relations to show with these settings" in result.output
    result = run(source, "-o", tmp_path / "none.html", "--label", "spose", "--overwrite")
    assert result.exit_code == 0 and "No relation has the label spose." in result.output
