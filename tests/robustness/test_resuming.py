"""A run is only resumed with what it was begun with, and results that were lost meanwhile are computed again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
import torch
from safetensors.torch import load_file, save_file
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_slmre.evaluation.runs import PREDICTIONS_FILE, EvaluationError, Prediction, RunWriter, read_run
from spacy_slmre.extraction.shards import ShardFolder
from spacy_slmre.extraction.worker import ShardWorker
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.util.run_folder import RunFolder
from tests.cli.extracting import run
from tests.conftest import TEXTS

MODEL = {"@architectures": "spacy-slmre.SmallLM.v1", "quantization": None, "dtype": "float32", "device": "cpu"}


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path, blank: Callable[[], Language]) -> Path:
    """A pipeline whose labels, base model and adapter are files of their own."""
    shutil.copytree(tiny_base, tmp_path / "base")
    (tmp_path / "schema.json").write_text(json.dumps({"labels": ["knows", "employer"], "negative_label": None}))
    model = {**MODEL, "base": str(tmp_path / "base"), "adapter": None}
    lm = blank().add_pipe("slm_relations", config={"model": model}).model
    lm.begin_training({}, LoraSettings(rank=2))
    lm.export_adapter().to_folder(tmp_path / "adapter")
    nlp = blank()
    model["adapter"] = str(tmp_path / "adapter")
    nlp.add_pipe("slm_relations", config={"model": model, "schema": str(tmp_path / "schema.json")})
    nlp.to_disk(tmp_path / "pipeline")
    nlp.remove_pipe("entity_ruler")  # a config has no patterns
    nlp.config.to_disk(tmp_path / "adapted.cfg")
    nlp.config["components"]["slm_relations"]["model"]["adapter"] = None
    nlp.config.to_disk(tmp_path / "base.cfg")
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    return tmp_path


def calibrate_component(folder: Path) -> None:
    nlp = spacy.load(folder / "pipeline")
    nlp.get_pipe("slm_relations").label_thresholds = {"knows": 0.9}
    nlp.to_disk(folder / "pipeline")


def add_patterns(folder: Path) -> None:
    with (folder / "pipeline" / "entity_ruler" / "patterns.jsonl").open("a") as file:
        file.write('\n{"label": "PERSON", "pattern": "Nobody"}')


def change_labels(folder: Path) -> None:
    (folder / "schema.json").write_text(json.dumps({"labels": ["knows", "sibling"], "negative_label": None}))


def change_weights(file: Path) -> None:
    """Store other weights in a file of the same size."""
    weights = {name: torch.flip(tensor, (0,)).contiguous() for name, tensor in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


CHANGES = {
    "thresholds": ("pipeline", calibrate_component),
    "entity patterns": ("pipeline", add_patterns),
    "labels": ("adapted.cfg", change_labels),
    "adapter": ("adapted.cfg", lambda folder: change_weights(folder / "adapter" / "adapter_model.safetensors")),
    "base": ("base.cfg", lambda folder: change_weights(folder / "base" / "model.safetensors")),
}


def interrupt(monkeypatch: pytest.MonkeyPatch, *args: object, stdin: bytes | None = None) -> None:
    """Run the command and stop it after the first shard."""
    compute = ShardWorker._compute

    def stop(self: ShardWorker, number: int, *rest: object) -> object:
        if number:
            raise KeyboardInterrupt
        return compute(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWorker, "_compute", stop)
        assert run(*args, stdin=stdin).exit_code == 130


@pytest.mark.parametrize("change", CHANGES)
def test_run_is_not_resumed_with_another_pipeline(change: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, make_change = CHANGES[change]
    args = (folder / source, folder / "in.jsonl", "-o", folder / "out.jsonl", "--shard-size", 2)
    interrupt(monkeypatch, *args)
    make_change(folder)
    refused = run(*args)
    assert refused.exit_code == 1 and "an interrupted run with different pipeline" in refused.output
    assert run(*args, "--overwrite").exit_code == 0


def test_run_is_resumed_with_a_copy_of_the_pipeline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = (folder / "in.jsonl", "-o", folder / "out.jsonl", "--shard-size", 2)
    interrupt(monkeypatch, folder / "pipeline", *args)
    shutil.copytree(folder / "pipeline", folder / "copy")
    resumed = run(folder / "copy", *args)
    assert resumed.exit_code == 0 and "Resuming an interrupted run" in resumed.output


def test_other_standard_input_is_never_taken_for_the_same(pipeline: str, tmp_path: Path) -> None:
    for suffix in (".jsonl", ".spacy"):
        args = (pipeline, "-", "-o", tmp_path / f"out{suffix}", "--format", "lines")
        assert run(*args, stdin=b"Ann Lee met Bo Lee.").exit_code == 0
        again = run(*args, stdin=b"Marie Curie met Ada Byron.\nAnn Lee met Bo Lee.")
        assert again.exit_code == 1 and "exists" in again.output


def test_run_of_files_is_not_discarded_by_standard_input(pipeline: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    args = ("-o", tmp_path / "out.jsonl", "--shard-size", 2)
    interrupt(monkeypatch, pipeline, tmp_path / "in.jsonl", *args)
    refused = run(pipeline, "-", *args, stdin=b"{}")
    assert refused.exit_code == 1 and "interrupted run with different inputs" in refused.output
    assert ShardFolder(tmp_path / "out.jsonl").finished()


def make_prediction(number: int) -> Prediction:
    spans = {"head": (0, 3), "tail": (8, 10), "head_type": "PER", "tail_type": "PER"}
    return Prediction(f"d/{number}", "d", "Ann met Bo", **spans, gold=("knows",), predicted="knows")


# -- lost results ------------------------------------------------------------------------------------------


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [Path.unlink, cut])
@pytest.mark.parametrize("file", ["00000.jsonl", "00000.spacy", "00000.json"])
def test_lost_results_are_computed_again(
    pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None], file: str
) -> None:
    suffix = ".jsonl" if file.endswith(".jsonl") else ".spacy"
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    args = (pipeline, tmp_path / "in.jsonl", "--shard-size", 2, "-o")
    assert run(*args, tmp_path / f"whole{suffix}").exit_code == 0
    output = tmp_path / f"out{suffix}"
    interrupt(monkeypatch, *args, output)
    damage(ShardFolder(output).results / file)
    assert run(*args, output).exit_code == 0
    if suffix == ".jsonl":
        assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    else:
        assert sum(len(DocBin().from_disk(shard)) for shard in output.glob("*.spacy")) == len(TEXTS)
        assert len(list(output.glob("*.json"))) == 4


@pytest.mark.parametrize("suffix", [".jsonl", ".spacy"])
def test_result_lost_during_the_run_is_noticed(pipeline: str, tmp_path: Path, monkeypatch, suffix: str) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    args = (pipeline, tmp_path / "in.jsonl", "--shard-size", 2, "-o", tmp_path / f"out{suffix}")
    folder = ShardFolder(tmp_path / f"out{suffix}")
    compute = ShardWorker.compute

    def lose(self: ShardWorker, number: int) -> object:
        if number == 2:
            cut(folder.results / f"00000{suffix}")
        return compute(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWorker, "compute", lose)
        failed = run(*args)
    assert failed.exit_code == 1 and "1 of 3 results" in failed.output and not (tmp_path / f"out{suffix}").exists()
    assert run(*args).exit_code == 0


@pytest.mark.parametrize("damage", [Path.unlink, cut])
@pytest.mark.parametrize("file", ["00001.spacy", "00001.json"])
def test_finished_folder_with_a_lost_file_is_not_complete(
    pipeline: str, tmp_path: Path, damage: Callable[[Path], None], file: str
) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    args = (pipeline, tmp_path / "in.jsonl", "--shard-size", 2, "-o", tmp_path / "out.spacy")
    assert run(*args).exit_code == 0 and "already complete" in run(*args).output
    damage(tmp_path / "out.spacy" / file)
    refused = run(*args)
    assert refused.exit_code == 1 and f"incomplete: {file}" in refused.output.replace("\n", "")
    assert run(*args, "-F").exit_code == 0 and "already complete" in run(*args).output


def test_shards_are_joined_in_order_whatever_their_number(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path / "out.spacy")
    names = [folder._result_files(number)[0].name for number in (9, 99_998, 99_999, 100_000, 100_001, 2_000_000)]
    assert names == sorted(names)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_evaluation_with_lost_predictions_is_refused(tmp_path: Path, kept: int) -> None:
    run_folder = RunFolder(tmp_path / "run")
    with run_folder:
        writer = RunWriter(run_folder, {"a": 1})
        writer.add([make_prediction(number) for number in range(4)], 4, 1.0)
        file = run_folder.partial / PREDICTIONS_FILE
        rows = file.read_text().splitlines(keepends=True)
        file.write_text("".join(rows[:kept]))
        with pytest.raises(EvaluationError, match=f"only {kept} of 4 recorded predictions"):
            writer.predictions()
        with pytest.raises(EvaluationError, match=f"only {kept} of 4 recorded predictions"):
            RunWriter(run_folder, {"a": 1})
        file.write_text("".join(rows))
        finished = writer.finish({"pairs": 4}, {})
    assert len(list(finished.predictions())) == 4
    (finished.folder / PREDICTIONS_FILE).write_text("".join(rows[:kept]))
    with pytest.raises(EvaluationError, match=f"only {kept} of 4 recorded predictions"):
        read_run(finished.folder)
