"""Training is only resumed, and a finished run only reused, with the same base model, prompts and other pipelines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from click.testing import Result
from spacy.language import Language
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.models import hub
from spacy_slmre.models.base import ModelError
from spacy_slmre.study import classifiers, commands, pretraining  # noqa: F401  (registers `study`)
from spacy_slmre.training import tune
from tests.robustness.test_resuming import change_weights
from tests.training.conftest import ROOT, config_file, write_corpus

__all__ = ["config_file", "write_corpus"]


def run(*args: object) -> Result:
    result = CliRunner().invoke(slmre_cli, [*map(str, args)])
    return result


def stop(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


def refuse(monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], change: Callable, what: str, *args: object) -> None:
    """Interrupt a run, change something, and check that the run is not resumed."""
    with monkeypatch.context() as patch:
        patch.setattr(*place, stop)
        assert run(*args).exit_code == 130
        # Without a change, it is resumed.
        assert run(*args).exit_code == 130
        change()
        changed = run(*args)
    assert changed.exit_code == 1, changed.output
    assert f"is an interrupted run with different {what}." in " ".join(changed.output.split())


def test_classifiers_are_not_resumed_with_other_base_weights(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = shutil.copytree(tiny_encoder, tmp_path / "base")
    assert run("study", "convert-all", ROOT / "assets", "-o", tmp_path / "corpora", "-b", "demo").exit_code == 0
    config = ROOT / "configs" / "rel_classifier_cpu.cfg"
    args = ("study", "train-classifiers", config, tmp_path / "corpora", "-o", tmp_path / "out", "-b", "demo")
    setting = ("--components.rel_classifier.model.base", base)
    weights = base / "model.safetensors"
    refuse(monkeypatch, (classifiers, "_train"), lambda: change_weights(weights), "base", *args, *setting)


def test_pretraining_is_not_resumed_with_other_base_weights(
    tmp_path: Path, tiny_base: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    config = tmp_path / "x.cfg"
    config.write_text(f'[model]\nbase = "{base}"\ndevice = "cpu"\n[training]\nblock_size = 8\n')
    args = ("study", "pretrain", config, texts, "-o", tmp_path / "out")
    weights = base / "model.safetensors"
    refuse(monkeypatch, (pretraining, "pretrain"), lambda: change_weights(weights), "base", *args)


@pytest.mark.parametrize("what", ["base", "prompts", "ner"])
def test_tuning_is_not_resumed_with_other_files_of_the_same_names(
    what: str,
    tmp_path: Path,
    tiny_base: Path,
    config_file: Path,
    blank: Callable[[], Language],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "system.jinja").write_text("Answer.")
    blank().to_disk(tmp_path / "ner")

    def change() -> None:
        if what == "base":
            change_weights(base / "model.safetensors")
        elif what == "prompts":
            (templates / "system.jinja").write_text("Answer!")
        else:
            nlp = spacy.load(tmp_path / "ner")
            nlp.get_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Nobody"}])
            nlp.to_disk(tmp_path / "ner")

    # Without a checkpoint, there would be nothing to resume.
    monkeypatch.setattr(tune, "last_checkpoint", lambda folder: "a checkpoint" if folder.parent.exists() else None)
    args = ("tune", config_file, "-o", tmp_path / "out", "--model.base", base, "--model.templates", templates)
    refuse(monkeypatch, (tune, "train_adapter"), change, what, *args, "--tune.ner", tmp_path / "ner")


# -- revisions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", ["slm_relations", "rel_classifier", "slm_coreference"])
def test_a_revision_of_a_local_folder_is_refused(factory: str, tiny_model: dict, tiny_classifier: dict) -> None:
    model = tiny_classifier if factory == "rel_classifier" else tiny_model
    labels = {} if factory == "slm_coreference" else {"labels": ["knows"]}
    pipe: Any = spacy.blank("en").add_pipe(factory, config={"model": {**model, "revision": "v2"}, **labels})
    with pytest.raises(ModelError, match=r'model\.revision = "v2", but model\.base = ".*" is a local model'):
        pipe.model.start(["a", "b"], []) if factory == "rel_classifier" else pipe.model.load()


def test_a_revision_of_a_packaged_model_is_refused(tmp_path: Path, tiny_base: Path, monkeypatch) -> None:
    monkeypatch.setenv(hub.CACHE_VARIABLE, str(tmp_path))
    shutil.copytree(tiny_base, hub.packaged_folder())
    assert hub.locate_base(hub.PACKAGED_BASE) == hub.packaged_folder()
    with pytest.raises(ModelError, match=r'model\.revision = "main"'):
        hub.locate_base(hub.PACKAGED_BASE, "main")


def test_a_snapshot_of_the_hub_has_its_own_revision(tmp_path: Path, tiny_base: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "snapshots" / "0123abc")
    info = hub.identify(folder, str(folder))
    assert hub.locate_base(info.name, info.revision) == folder


def test_a_local_copy_of_an_adapters_base_does_not_need_its_revision() -> None:
    info = hub.BaseModelInfo("owner/model", "0123abc", "f")
    assert info.override(None, None) == info.override("owner/model", None) == ("owner/model", "0123abc")
    assert info.override("/models/copy", None) == ("/models/copy", None)
    assert info.override("owner/model", "v2") == ("owner/model", "v2")
