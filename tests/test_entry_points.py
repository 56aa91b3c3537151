"""All entry points of this package can be resolved."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution

import pytest
import spacy
from spacy.util import registry

POINTS = [
    point for point in distribution("spacy-slmre").entry_points if point.group.startswith(("spacy_", "thinc_llm_"))
]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point.group}:{point.name}")
def test_entry_point_resolves(point) -> None:
    assert callable(point.load())
    if point.group == "spacy_factories":
        assert spacy.blank("en").has_factory(point.name)
    elif point.group == "spacy_cli":
        assert "slmre" in registry.cli.get_all()
    else:
        spacy.blank("en").has_factory("llm")  # creates the registries of spacy-llm
        assert registry.get(point.group.partition("_")[2], point.name) is point.load()


def test_entry_points_cover_all_registries() -> None:
    groups = {"factories", "architectures", "misc", "scorers", "readers", "batchers", "cli"}
    assert {f"spacy_{group}" for group in groups} <= {point.group for point in POINTS}


def test_importing_entry_points_loads_nothing_heavy() -> None:
    # spaCy imports every factory and command at start; torch comes with thinc wherever it is installed.
    modules = {point.module for point in POINTS if point.group in ("spacy_factories", "spacy_cli")}
    heavy = ("transformers", "peft", "bitsandbytes", "datasets", "spacy_llm")
    code = f"import sys, {', '.join(modules)}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
