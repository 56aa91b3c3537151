"""What tests of the command extract do."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli


def run(*args: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(slmre_cli, ["extract", *map(str, args)], input=stdin, catch_exceptions=False)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
