"""The README's code prints what the README shows, its commands run, and everything that it names exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer

from spacy_slmre.cli.app import slmre_cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# These need a network, and are executed by `make`.
INSTALLATION = ("pip install", "make ")
# Enough to see that tuning runs; the quality of tuned models is tested elsewhere.
SHORTER = {"tune": " --training.max_steps 2 --encoder.max_steps 25"}
# Rounding differs between processors.
TOLERANCE = 0.06
SCORE = re.compile(r"\((\d\.\d\d)\)$")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = "".join(blocks("bash")).splitlines()
    return [line for line in lines if not line.startswith(INSTALLATION)]


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def assert_same_output(printed: str, shown: str) -> None:
    printed_lines, shown_lines = printed.splitlines(), shown.splitlines()
    assert [SCORE.sub("", line) for line in printed_lines] == [SCORE.sub("", line) for line in shown_lines]
    for line, expected in zip(printed_lines, shown_lines, strict=True):
        if match := SCORE.search(expected):
            found = SCORE.search(line)
            assert found and float(found[1]) == pytest.approx(float(match[1]), abs=TOLERANCE), line


@pytest.mark.slow
def test_python_examples_print_what_the_readme_shows(tmp_path: Path, real_base: str, real_encoder: str) -> None:
    examples, outputs = blocks("python"), blocks("text")
    assert len(examples) == len(outputs) > 0
    for example, output in zip(examples, outputs, strict=True):
        # The first example imports spaCy for all.
        source = example if "import spacy" in example else f"import spacy\n{example}"
        assert_same_output(run([sys.executable, "-c", source], tmp_path), output)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands_run_in_their_order(tmp_path: Path, real_base: str) -> None:
    for folder in ("assets", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for command in commands():
        program, *words = shlex.split(command + SHORTER.get(shlex.split(command)[4], ""))
        assert program == "python"
        run([sys.executable, *words], tmp_path)
    lines = (tmp_path / "relations.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(list((tmp_path / "assets" / "demo").glob("*.txt")))
    assert any(json.loads(line)["relations"] for line in lines)
    for name in ("page.html", "graph.html", "report.html", "relations.ttl"):
        assert (tmp_path / name).stat().st_size, name
    assert (tmp_path / "tuned" / "config.cfg").is_file()


def test_commands_and_their_options_exist() -> None:
    group = typer.main.get_command(slmre_cli)
    assert commands()
    for command in commands():
        words = shlex.split(command)
        assert words[:4] == ["python", "-m", "spacy", "slmre"], command
        known = {option for parameter in group.commands[words[4]].params for option in parameter.opts}  # type: ignore[attr-defined]
        used = {word for word in words if word.startswith("-") and "." not in word and word != "-m"}
        assert used <= known, f"{command}: unknown options {used - known}"


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_files_and_make_targets_that_the_readme_names_exist() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", README) + re.findall(r'src(?:set)?="([^"]+)"', README)
    for link in links:
        url = urlsplit(link)
        if not url.scheme:
            assert (ROOT / url.path).exists(), link
            if url.fragment:
                page = (ROOT / url.path).read_text(encoding="utf-8")
                headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
                assert url.fragment in {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
