"""`slmre tune` from its config to the pipeline."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import requests
import spacy
import torch
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from spacy_slmre.cli import output as cli_output
from spacy_slmre.cli import slmre_cli
from spacy_slmre.training.folders import alone_at
from spacy_slmre.training.trainer import PackedTrainer


def run(*args: object) -> Result:
    return CliRunner().invoke(slmre_cli, ["tune", *map(str, args)], catch_exceptions=False)


def test_output_is_a_pipeline_with_card_metrics_config_and_hashes(config_file, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = run(config_file, "--output", output, "--tune.shots", 2, "--training.max_steps", 20)
    assert done.exit_code == 0 and "micro-F1" in done.output
    nlp = spacy.load(output)
    component = nlp.get_pipe("slm_relations")
    assert component.labels == ("employer", "no_relation", "place of birth")
    assert len(component.model.style.examples) == 2
    nlp.add_pipe("entity_ruler", before="slm_relations").add_patterns(
        [{"label": "PER", "pattern": "Ann77"}, {"label": "GPE", "pattern": "Rome"}]
    )
    doc = nlp("Ann77 employer Rome")
    assert doc._.relations_report["scored"] == 2
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["steps"] == 20 and metrics["scores"]["sets"]["corpus"]["instances"] == 9
    record = json.loads((output / "run.json").read_text())
    assert record["data"]["corpus"]["train"]["instances"] == 30 and record["versions"]["peft"]
    assert "shots = 2" in (output / "tune.cfg").read_text()
    card = (output / "README.md").read_text()
    assert "| corpus | see its source | 3 | 30 |" in card and "An epoch has 28 of these 30 pairs:" in card
    assert "max_steps | 20" in card
    assert not list(tmp_path.glob("*.part"))
    assert not [path for path in output.rglob("*") if path.suffix in (".pt", ".pth", ".pkl")]


def test_a_terminal_shows_how_many_documents_are_read(config_file, tmp_path: Path, monkeypatch) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, highlight=False)
    monkeypatch.setattr(cli_output, "console", terminal)
    assert run(config_file, "--output", tmp_path / "out").exit_code == 0
    assert "39 documents" in shown.getvalue()


def test_an_interrupted_run_goes_on(config_file, tmp_path: Path, monkeypatch) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert run(config_file, "--output", whole).exit_code == 0
    original = PackedTrainer.training_step

    def killed(self, *args, **kwargs):
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(PackedTrainer, "training_step", killed)
    done = run(config_file, "--output", output)
    assert done.exit_code == 130 and "--resume" in done.output and not output.exists()
    monkeypatch.setattr(PackedTrainer, "training_step", original)
    for arguments, message in (
        ((), "holds an interrupted run"),
        (("--resume", "--overwrite"), "either"),
        (("--resume", "--lora.rank", 2), "another config"),
    ):
        done = run(config_file, "--output", output, *arguments)
        assert done.exit_code == 1 and message in done.output
    assert run(config_file, "--output", output, "--resume").exit_code == 0
    weights = "slm_relations/model/adapter/adapter_model.safetensors"
    assert (output / weights).read_bytes() == (whole / weights).read_bytes()
    assert "is there already" in run(config_file, "--output", output).output
    # What would replace it goes on too.
    monkeypatch.setattr(PackedTrainer, "training_step", killed)
    assert run(config_file, "--output", output, "--overwrite", "--lora.rank", 2).exit_code == 130
    monkeypatch.setattr(PackedTrainer, "training_step", original)
    assert run(config_file, "--output", output, "--resume", "--lora.rank", 2).exit_code == 0
    assert "rank = 2" in (output / "tune.cfg").read_text()


def test_a_complete_run_is_not_done_again(config_file, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run(config_file, "--output", output, "--resume").exit_code == 0
    made = (output / "metrics.json").stat().st_mtime_ns
    again = run(config_file, "--output", output, "--resume")
    assert again.exit_code == 0 and "complete already" in again.output
    other = run(config_file, "--output", output, "--resume", "--lora.rank", 2)
    assert other.exit_code == 1 and "another config" in other.output
    assert (output / "metrics.json").stat().st_mtime_ns == made
    (output / "run.json").write_text("")
    damaged = run(config_file, "--output", output, "--resume")
    assert damaged.exit_code == 1 and "run.json is missing or damaged" in damaged.output


def test_without_a_checkpoint_there_is_nothing_to_protect(config_file, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(PackedTrainer, "training_step", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config_file, "--output", tmp_path / "out")
    assert (tmp_path / "out.part").exists()
    assert run(config_file, "--output", tmp_path / "out", "--lora.rank", 2).exit_code == 0


def test_only_outputs_of_runs_are_replaced(config_file, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    thesis = home / "thesis.txt"
    thesis.write_text("years")
    for arguments in ((), ("--overwrite",), ("--resume",)):
        refused = run(config_file, "--output", home, *arguments)
        assert refused.exit_code == 1 and "will not be replaced" in refused.output
    assert thesis.read_text() == "years"
    thesis.unlink()
    assert run(config_file, "--output", home, "--overwrite").exit_code == 0


def test_one_process_at_a_time(config_file, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("spacy_slmre.training.folders._PATIENCE", 0.1)
    with alone_at(tmp_path / "out"):
        refused = run(config_file, "--output", tmp_path / "out", "--overwrite")
    assert refused.exit_code == 1 and "Another process" in refused.output
    assert not (tmp_path / "out.part").exists()


def test_a_full_disk_keeps_the_checkpoint_before(config_file, tmp_path: Path, monkeypatch) -> None:
    original = PackedTrainer._save

    def full(self, *args, **kwargs):
        if not isinstance(self, PackedTrainer) or self.state.global_step == 4:
            raise OSError(28, "No space left on device")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(PackedTrainer, "_save", full)
    output = tmp_path / "out"
    done = run(config_file, "--output", output)
    assert done.exit_code == 1 and "No space left" in done.output and "--resume" in done.output
    monkeypatch.setattr(PackedTrainer, "_save", original)
    with monkeypatch.context() as patched:
        patched.setattr(spacy.Language, "to_disk", full)
        done = run(config_file, "--output", output, "--resume")
    assert done.exit_code == 1 and "No space left" in done.output and "--resume" in done.output
    assert str(tmp_path) in done.output and not output.exists()
    assert run(config_file, "--output", output, "--resume").exit_code == 0


def test_the_card_has_the_settings_that_memory_allowed(config_file, tmp_path: Path, monkeypatch) -> None:
    original = PackedTrainer.compute_loss

    def limited(self, model, inputs, **kwargs):
        if self.data.size(0) > 200:
            raise torch.OutOfMemoryError("the device is full")
        return original(self, model, inputs, **kwargs)

    monkeypatch.setattr(PackedTrainer, "compute_loss", limited)
    output = tmp_path / "out"
    assert run(config_file, "--output", output, "--training.max_tokens", 320).exit_code == 0
    card = (output / "README.md").read_text()
    assert "max_tokens | 160" in card and "sequences_per_step | 2" in card


def test_a_service_out_of_reach_is_no_full_disk(config_file, tmp_path: Path, monkeypatch) -> None:
    def unreachable(*_, **__):
        raise requests.ConnectionError("no tracker at port 1")

    monkeypatch.setattr(PackedTrainer, "log", unreachable)
    done = run(config_file, "--output", tmp_path / "out")
    assert done.exit_code == 1 and "no tracker at port 1" in done.output and "written" not in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model.base", "/none"), "no such folder"),
        (("--model.templates", "nowhere"), "found none"),
        (("--training.warmup", "5"), "training.warmup = 5"),
        (("--training.optimizer", "adam"), 'training.optimizer = "adam"'),
        (("--training.trackers", '["nothing"]'), "training.trackers: nothing cannot be used"),
        (("--corpora.dev.path", "none.spacy"), "none.spacy"),
        (("--training.nothing.here", "1"), "nothing"),
    ],
)
def test_mistakes_end_with_a_message(config_file, tmp_path: Path, arguments, message) -> None:
    done = run(config_file, "--output", tmp_path / "out", *arguments)
    assert done.exit_code == 1 and message in done.output
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


def test_a_tuned_adapter_is_tuned_further(config_file, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(config_file, "--output", first).exit_code == 0
    text = config_file.read_text().replace('device = "cpu"', 'device = "cpu"\nadapter = null')
    config_file.write_text(text)
    adapter = first / "slm_relations" / "model" / "adapter"
    assert run(config_file, "--output", second, "--model.adapter", adapter).exit_code == 0
    assert (
        "demonstrations"
        in run(
            config_file, "--output", tmp_path / "third", "--model.adapter", adapter, "--tune.shots", 2
        ).output
    )
    assert spacy.load(second).get_pipe("slm_relations").model.adapter is not None
