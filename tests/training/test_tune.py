"""`slmre tune`, from the config to the pipeline."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import spacy
from click import unstyle as strip_ansi
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from spacy_slmre.cli import output as cli_output
from spacy_slmre.cli import slmre_cli
from spacy_slmre.training.trainer import PackedTrainer
from tests.training.conftest import LABELS


def run(*args: object) -> Result:
    return CliRunner().invoke(slmre_cli, ["tune", *map(str, args)], catch_exceptions=False)


def test_the_output_is_a_pipeline_with_card_metrics_config_and_hashes(config_file, tmp_path: Path) -> None:
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
    assert record["key"]["data"]["corpus"]["train"]["instances"] == 30 and record["versions"]["peft"]
    assert "shots = 2" in (output / "tune.cfg").read_text()
    card = (output / "README.md").read_text()
    assert "| train.spacy | see its source | 3 | 30 |" in card and "28 of these 30 pairs were trained on" in card
    assert "max_steps | 20" in card
    assert not list(tmp_path.glob("*.part"))
    assert not [path for path in output.rglob("*") if path.suffix in (".pt", ".pth", ".pkl")]


def test_a_misspelled_option_is_named(config_file, tmp_path: Path) -> None:
    done = run(config_file, "--output", tmp_path / "out", "--overwite")
    assert done.exit_code == 2 and "No such option" in done.output and "--overwite" in done.output
    assert not (tmp_path / "out").exists()


def test_a_terminal_shows_the_number_of_documents_read(config_file, tmp_path: Path, monkeypatch) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, highlight=False)
    monkeypatch.setattr(cli_output, "console", terminal)
    assert run(config_file, "--output", tmp_path / "out").exit_code == 0
    assert "39/?" in strip_ansi(shown.getvalue())


@pytest.fixture
def killed(monkeypatch):
    """Interrupt training before a step."""

    @contextmanager
    def killed(step: int) -> Iterator[None]:
        original = PackedTrainer.training_step

        def training_step(self, *args, **kwargs):
            if self.state.global_step == step:
                raise KeyboardInterrupt
            return original(self, *args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(PackedTrainer, "training_step", training_step)
            yield

    return killed


def test_repeating_an_interrupted_run_resumes_it(config_file, tmp_path: Path, killed) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert run(config_file, "--output", whole).exit_code == 0
    with killed(step=3):
        done = run(config_file, "--output", output)
    assert done.exit_code == 130 and "Repeat the command" in done.output and not output.exists()
    other = run(config_file, "--output", output, "--lora.rank", 2)
    assert other.exit_code == 1 and "interrupted run with different config" in other.output
    with killed(step=1):  # which is not repeated
        assert run(config_file, "--output", output).exit_code == 0
    weights = "slm_relations/model/adapter/adapter_model.safetensors"
    assert (output / weights).read_bytes() == (whole / weights).read_bytes()


def test_an_interrupted_replacement_is_resumed(config_file, tmp_path: Path, killed) -> None:
    output = tmp_path / "out"
    assert run(config_file, "--output", output).exit_code == 0
    with killed(step=3):
        assert run(config_file, "--output", output, "--overwrite", "--lora.rank", 2).exit_code == 130
    assert "rank = 4" in (output / "tune.cfg").read_text()
    with killed(step=1):
        assert run(config_file, "--output", output, "--lora.rank", 2).exit_code == 0
    assert "rank = 2" in (output / "tune.cfg").read_text()


def test_a_complete_run_is_not_repeated(config_file, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run(config_file, "--output", output).exit_code == 0
    written = (output / "metrics.json").stat().st_mtime_ns
    again = run(config_file, "--output", output)
    assert again.exit_code == 0 and "nothing to do" in again.output and "micro-F1" in again.output
    other = run(config_file, "--output", output, "--lora.rank", 2)
    assert other.exit_code == 1 and "another run (different config)" in other.output
    assert (output / "metrics.json").stat().st_mtime_ns == written
    (output / "run.json").write_text("")
    damaged = run(config_file, "--output", output)
    assert damaged.exit_code == 1 and "run.json is missing or damaged" in damaged.output


def test_an_interrupted_run_without_a_checkpoint_blocks_no_other(config_file, tmp_path: Path, killed) -> None:
    with killed(step=0):
        assert run(config_file, "--output", tmp_path / "out").exit_code == 130
    assert (tmp_path / "out.part").exists()
    assert run(config_file, "--output", tmp_path / "out", "--lora.rank", 2).exit_code == 0


def test_other_folders_are_never_replaced(config_file, tmp_path: Path) -> None:
    thesis = tmp_path / "home" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years")
    for arguments in ((), ("--overwrite",)):
        refused = run(config_file, "--output", thesis.parent, *arguments)
        assert refused.exit_code == 1 and "will not be replaced" in refused.output
    assert thesis.read_text() == "years"


def test_the_base_model_is_not_replaced(config_file, tiny_base: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / "run.json").write_text("{}")  # as continued pretraining writes it
    refused = run(config_file, "--output", base, "--model.base", base, "--overwrite")
    assert refused.exit_code == 1 and "would replace the input" in refused.output
    assert (base / "config.json").exists()


def test_a_run_is_resumed_after_the_disk_was_full(config_file, tmp_path: Path, monkeypatch) -> None:
    original = PackedTrainer._save

    def full(self, *args, **kwargs):
        if not isinstance(self, PackedTrainer) or self.state.global_step == 4:
            raise OSError(28, "No space left on device")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(PackedTrainer, "_save", full)
    output = tmp_path / "out"
    done = run(config_file, "--output", output)
    assert done.exit_code == 1 and "No space left" in done.output and "repeat the command" in done.output
    monkeypatch.setattr(PackedTrainer, "_save", original)
    with monkeypatch.context() as patched:
        patched.setattr(spacy.Language, "to_disk", full)
        done = run(config_file, "--output", output)
    assert done.exit_code == 1 and "No space left" in done.output and "repeat the command" in done.output
    assert str(tmp_path) in done.output and not output.exists()
    assert run(config_file, "--output", output).exit_code == 0


def test_an_unreachable_tracker_is_not_taken_for_a_full_disk(config_file, tmp_path: Path, monkeypatch) -> None:
    def unreachable(*_, **__):
        raise requests.ConnectionError("no tracker at port 1")

    monkeypatch.setattr(PackedTrainer, "log", unreachable)
    done = run(config_file, "--output", tmp_path / "out")
    assert done.exit_code == 1 and "no tracker at port 1" in done.output and "cannot be written" not in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model.base", "/none"), 'model.base = "/none"'),
        (("--model.templates", "nowhere"), 'model.templates = "nowhere"'),
        (("--training.warmup_ratio", "5"), "training.warmup_ratio = 5"),
        (("--corpora.dev.path", "none.spacy"), "none.spacy"),
        (("--training.nothing.here", "1"), "nothing"),
    ],
)
def test_mistakes_end_with_a_message(config_file, tmp_path: Path, arguments, message) -> None:
    done = run(config_file, "--output", tmp_path / "out", *arguments)
    assert done.exit_code == 1 and message in done.output
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


def test_an_adapter_can_be_tuned_further(config_file, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(config_file, "--output", first).exit_code == 0
    text = config_file.read_text().replace('device = "cpu"', 'device = "cpu"\nadapter = null')
    config_file.write_text(text)
    adapter = first / "slm_relations" / "model" / "adapter"
    assert run(config_file, "--output", second, "--model.adapter", adapter).exit_code == 0
    refused = run(config_file, "--output", tmp_path / "third", "--model.adapter", adapter, "--tune.shots", 2)
    assert refused.exit_code == 1 and "already has few-shot examples, from its adapter" in refused.output
    assert spacy.load(second).get_pipe("slm_relations").model.adapter is not None


def test_code_and_gpu_options(config_file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    code = tmp_path / "code.py"
    code.write_text(f"import spacy\n@spacy.registry.misc('own_labels')\ndef own_labels():\n    return {list(LABELS)}\n")
    config_file.write_text(
        config_file.read_text().replace("schema = null", "").replace('device = "cpu"', 'device = "auto"')
        + "\n[tune.schema]\n@misc = 'own_labels'\n".replace("'", '"')
    )
    output = tmp_path / "out"
    done = run(config_file, "--output", output, "--code", code, "--gpu-id", -1)
    assert done.exit_code == 0, done.output
    assert spacy.load(output).get_pipe("slm_relations").labels == LABELS
    # Where it was trained says nothing about where it will be used.
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "" and 'device = "auto"' in (output / "tune.cfg").read_text()
    assert spacy.load(output).config["components"]["slm_relations"]["model"]["device"] == "auto"
