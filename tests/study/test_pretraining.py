"""`slmre study pretrain`: from texts to a base model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from transformers import AutoTokenizer, PreTrainedModel
from typer.testing import CliRunner

from spacy_slmre.models.causal_lm.loading import load_base
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.study import pretraining
from spacy_slmre.study.commands import study_cli
from spacy_slmre.study.pretraining import PretrainingSettings, make_blocks
from spacy_slmre.training.config import TuningError
from spacy_slmre.util.run_folder import RunFolder

SENTENCE = "Ann Lee was born in Rome and works for the Red Mill in Paris, where her sister lives.\n"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(SENTENCE * 60)
    return folder


@pytest.fixture
def run(texts: Path, tiny_base: Path, tmp_path: Path):
    config = tmp_path / "pretrain.cfg"
    config.write_text(f"""
[model]
base = "{tiny_base}"
device = "cpu"

[training]
block_size = 64
gradient_accumulation_steps = 2
max_steps = 6
save_steps = 2
learning_rate = 0.003
""")

    def run(output: Path, *flags: str, base: Path | None = None, **settings: object) -> Result:
        values = {f"training.{name}": value for name, value in settings.items()}
        if base is not None:
            values["model.base"] = base
        overrides = [str(part) for name, value in values.items() for part in (f"--{name}", value)]
        arguments = ["pretrain", str(config), str(texts), *overrides, "--output", str(output), *flags]
        return CliRunner().invoke(study_cli, arguments, catch_exceptions=False)

    return run


@pytest.mark.parametrize("rank", [0, 4])
def test_the_output_is_a_base_model_with_lower_perplexity_on_the_text(run, tiny_base, tmp_path: Path, rank) -> None:
    output = tmp_path / "out"
    done = run(output, max_steps=30, lora_rank=rank, learning_rate=0.01)
    assert done.exit_code == 0 and "Perplexity" in done.output
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["perplexity_after"] < 0.8 * metrics["perplexity_before"]
    lm = make_small_lm(base=str(output), quantization=None, dtype="float32", device="cpu")
    assert lm.prompts.tokenizer.chat_template
    held_out = np.array([lm.prompts.tokenizer(SENTENCE)["input_ids"]])
    before = make_small_lm(base=str(tiny_base), quantization=None, dtype="float32", device="cpu")
    assert pretraining.perplexity(lm.network, held_out) < pretraining.perplexity(before.network, held_out)
    assert lm.identity().fingerprint != before.identity().fingerprint
    assert not [path for path in output.rglob("*") if path.suffix in (".bin", ".pt", ".pth")]


def test_a_base_in_4_bits_becomes_a_plain_one(run, tiny_base, tmp_path: Path) -> None:
    model, tokenizer = load_base(
        tiny_base, quantization="nf4", dtype=torch.float32, device=torch.device("cpu"), keep_4bit=True
    )
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "nf4")
    output = tmp_path / "out"
    assert run(output, base=tmp_path / "nf4").exit_code == 0
    assert "quantization_config" not in json.loads((output / "config.json").read_text())
    # Training starts from the 4-bit values.
    held_out = np.array([tokenizer(SENTENCE)["input_ids"]])
    began = make_small_lm(base=str(tmp_path / "nf4"), dtype="float32", device="cpu")
    ended = make_small_lm(base=str(output), quantization=None, dtype="float32", device="cpu")
    assert pretraining.perplexity(ended.network, held_out) < pretraining.perplexity(began.network, held_out)


def test_a_base_in_q4_1_becomes_a_plain_one(run, q4_1_base, rounded, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = run(output, base=q4_1_base, max_steps=1, learning_rate=1e-30)
    assert done.exit_code == 0, done.output
    assert "quantization_config" not in json.loads((output / "config.json").read_text())
    lm = make_small_lm(base=str(output), quantization=None, dtype="bfloat16", device="cpu").load()
    for name, tensor in rounded.state_dict().items():
        assert torch.equal(lm.network.get_parameter(name), tensor.bfloat16()), name


def test_an_interrupted_run_ends_with_the_same_weights(run, tmp_path: Path, monkeypatch) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert run(whole).exit_code == 0
    original = pretraining.BlockTrainer.training_step

    def killed(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretraining.BlockTrainer, "training_step", killed)
    assert run(output).exit_code == 130
    monkeypatch.setattr(pretraining.BlockTrainer, "training_step", original)
    assert "an interrupted run with different config" in run(output, seed=1).output
    with monkeypatch.context() as patched:
        patched.setattr(PreTrainedModel, "save_pretrained", full)
        done = run(output)
    assert done.exit_code == 1 and "No space left" in done.output and "to resume" in done.output
    assert run(output).exit_code == 0
    file = "model.safetensors"
    assert (whole / file).read_bytes() == (output / file).read_bytes()
    again = run(output)
    assert again.exit_code == 0 and "already complete" in again.output
    other = run(output, seed=1)
    assert other.exit_code == 1 and "another run (different config)" in other.output
    assert run(output, "--overwrite", seed=1).exit_code == 0
    assert (whole / file).read_bytes() != (output / file).read_bytes()


def test_a_run_killed_after_its_last_step_trains_no_further(run, tmp_path: Path, monkeypatch) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert run(whole, max_steps=5).exit_code == 0

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "publish", killed)
        assert run(output, max_steps=5).exit_code == 130
    assert run(output, max_steps=5).exit_code == 0
    file = "model.safetensors"
    assert (whole / file).read_bytes() == (output / file).read_bytes()
    assert json.loads((output / "metrics.json").read_text())["steps"] == 5


def test_out_of_memory_is_an_error_that_names_settings(run, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("the device is full")

    monkeypatch.setattr(pretraining.BlockTrainer, "compute_loss", full)
    done = run(tmp_path / "out")
    assert done.exit_code == 1 and "training.gradient_checkpointing" in done.output


def test_whole_documents_are_held_out_if_there_are_many(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    texts = [f"{n} " * 100 for n in range(10)]
    settings = PretrainingSettings(block_size=16, holdout=0.25, max_eval_blocks=1000)
    blocks = make_blocks(texts, tokenizer, settings)
    digits = [set(tokenizer.decode(part.ravel())) & set("0123456789") for part in (blocks.train, blocks.held_out)]
    assert all(digits) and not digits[0] & digits[1] and len(digits[0] | digits[1]) == 10
    assert blocks.train.size + blocks.held_out.size <= blocks.tokens
    with pytest.raises(TuningError, match="not enough for blocks of 1024"):
        make_blocks(["short"], tokenizer, PretrainingSettings())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holdout": 0}, "training.holdout = 0"),
        ({"block_size": 1}, "training.block_size = 1"),
        ({"base": "/none"}, "neither an existing folder"),
    ],
)
def test_invalid_settings_are_errors(run, tmp_path: Path, changes, message) -> None:
    done = run(tmp_path / "out", **changes)
    assert done.exit_code == 1 and message in done.output and not (tmp_path / "out").exists()
