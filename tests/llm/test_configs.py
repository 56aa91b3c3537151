from __future__ import annotations

from pathlib import Path

import pytest
import spacy
from spacy.cli.assemble import assemble_cli

from spacy_slmre.llm.component import get_llm_component

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "llm").glob("*.cfg"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_assembles_without_network_or_key(config: Path, tmp_path: Path, monkeypatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPACY_SLMRE_CACHE", str(tmp_path / "cache"))
    assemble_cli(_context(), config, tmp_path / "pipeline", code_path=None, verbose=False)
    nlp = spacy.load(tmp_path / "pipeline")
    name, component = get_llm_component(nlp)
    assert name == "relations" and "spouse" in component.labels
    component.task.load()
    assert not (tmp_path / "cache").exists()
    if config.stem != "local":
        with pytest.raises(ValueError, match="needs an API key"):
            component._model.load()


def test_all_configs_are_tested() -> None:
    assert [path.stem for path in CONFIGS] == ["claude-sonnet-4.6", "gpt-5.4", "local"]


def test_component_of_a_config_can_be_added_to_another_pipeline(blank) -> None:
    config = spacy.util.load_config(next(path for path in CONFIGS if path.stem == "gpt-5.4"))
    nlp = blank()
    nlp.add_pipe("relations", source=spacy.util.load_model_from_config(config, auto_fill=True))
    task = get_llm_component(nlp)[1].task
    doc = nlp("Ann Lee was born in Rome.", disable=["relations"])
    assert {(head.text, tail.text) for head, tail in task.propose(doc)} == {("Ann Lee", "Rome"), ("Rome", "Ann Lee")}


def _context():
    import click

    return click.Context(click.Command("assemble"))
