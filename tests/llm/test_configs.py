from __future__ import annotations

from pathlib import Path

import pytest
import spacy
from spacy.cli.assemble import assemble_cli

from spacy_slmre.llm.component import zero_shot_component

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "zero_shot").glob("*.cfg"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_assembles_without_network_or_key(config: Path, tmp_path: Path, monkeypatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPACY_SLMRE_CACHE", str(tmp_path / "cache"))
    assemble_cli(_context(), config, tmp_path / "pipeline", code_path=None, verbose=False)
    nlp = spacy.load(tmp_path / "pipeline")
    name, component, task = zero_shot_component(nlp)
    assert name == "relations" and "spouse" in task.labels
    task.ready()
    assert not (tmp_path / "cache").exists()
    if config.stem != "local":
        with pytest.raises(ValueError, match="needs a key"):
            component._model.ready()


def test_all_configs_are_here() -> None:
    assert [path.stem for path in CONFIGS] == ["claude-sonnet-4.6", "gpt-5.4", "local"]


def test_component_of_a_config_goes_into_a_pipeline_of_ones_own(blank) -> None:
    config = spacy.util.load_config(next(path for path in CONFIGS if path.stem == "gpt-5.4"))
    nlp = blank()
    nlp.add_pipe("relations", source=spacy.util.load_model_from_config(config, auto_fill=True))
    task = zero_shot_component(nlp)[2]
    doc = nlp("Ann Lee was born in Rome.", disable=["relations"])
    assert [(head.text, tail.text) for head, tail in task.propose(doc)] == [("Ann Lee", "Rome")]


def _context():
    import click

    return click.Context(click.Command("assemble"))
