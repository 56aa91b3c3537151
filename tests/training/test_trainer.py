"""Training an adapter: it learns, keeps the best weights and can be resumed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.schema import LabelSchema
from spacy_slmre.training import trainer
from spacy_slmre.training.config import TrainingSettings, TuningError
from spacy_slmre.training.data import PackedDataset, TuningSet
from spacy_slmre.training.trainer import PackedTrainer, last_checkpoint, score_sets
from spacy_slmre.training.tune import train_adapter

SCHEMA = LabelSchema.from_labels(["place of birth", "employer"])
OTHER = LabelSchema.from_labels(["author", "sibling", "place"], negative_label=None)
LORA = LoraSettings(rank=4, alpha=8, dropout=0.1)


class ArgumentsWithTwoGPUs(TrainingArguments):
    """The arguments as they are on a machine with two GPUs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._n_gpu = 2


def make_instances(number: int, schema: LabelSchema, seed: int) -> list[RelationInstance]:
    """Make sentences that spell out their label."""
    rng = random.Random(seed)
    instances = []
    for _ in range(number):
        label = rng.choice(schema.names)
        text = f"{rng.choice(['Ann', 'Bo', 'Lee'])} {label} {rng.choice(['Rome', 'Paris', 'Mill'])}"
        head, tail = text.split()[0], text.split()[-1]
        mentions = (Mention(0, len(head), "PER"), Mention(len(text) - len(tail), len(text), "LOC"))
        instances.append(RelationInstance(Context(text, mentions), 0, 1, label))
    return instances


def make_set(name: str, schema: LabelSchema, number: int = 24) -> TuningSet:
    train = make_instances(number, schema, 0)
    ids = [f"doc{n}" for n in range(number)]
    return TuningSet(name, schema, train, make_instances(12, schema, 1), ids)


def load(base: Path) -> SmallLM:
    return make_small_lm(base=str(base), quantization=None, dtype="float32", device="cpu")


@pytest.fixture
def lm(tiny_base: Path):
    return load(tiny_base)


@pytest.fixture
def settings():
    def make(**changes) -> TrainingSettings:
        values = {
            "max_tokens": 400,
            "gradient_accumulation_steps": 1,
            "learning_rate": 0.02,
            "eval_steps": 2,
            "max_steps": 6,
            "adapter_dtype": "float32",
        }
        return TrainingSettings(**{**values, **changes})

    return make


def test_training_learns_several_label_sets_and_keeps_the_best_weights(lm, settings, tmp_path: Path) -> None:
    sets = [make_set("one", SCHEMA), make_set("two", OTHER)]
    before = score_sets(lm, sets)["micro_f1"]
    result = train_adapter(lm, sets, settings(max_steps=60, eval_steps=20, learning_rate=0.01), LORA, tmp_path)
    scores = [entry["eval_micro_f1"] for entry in result["history"] if "eval_micro_f1" in entry]
    assert len(scores) == 3 and result["scores"]["micro_f1"] == pytest.approx(max(scores))
    assert result["scores"]["micro_f1"] > max(0.8, before)
    assert set(result["scores"]["sets"]) == {"one", "two"}
    # The exported adapter is the one that was scored.
    assert lm.adapter is not None
    lm.adapter.to_folder(tmp_path / "kept")
    again = make_small_lm(
        base=lm.settings.base, adapter=str(tmp_path / "kept"), quantization=None, dtype="float32", device="cpu"
    )
    assert score_sets(again, sets) == result["scores"]
    assert again.adapter.record.schemas == {"one": SCHEMA, "two": OTHER}


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_bnb_8bit"])
def test_dev_scores_are_those_of_the_current_weights(lm, settings, tmp_path: Path, monkeypatch, optim: str) -> None:
    # The optimizers of bitsandbytes change weights in a way that torch does not notice.
    original, differences = PackedTrainer.scores, []

    def check(self: PackedTrainer) -> dict:
        result = original(self)
        used = lm.log_probs(self.data.sets[0].dev, SCHEMA)
        lm.clear_cache()
        differences.append(abs(used - lm.log_probs(self.data.sets[0].dev, SCHEMA)).max())
        return result

    monkeypatch.setattr(PackedTrainer, "scores", check)
    train_adapter(lm, [make_set("one", SCHEMA)], settings(optim=optim), LORA, tmp_path)
    assert differences == [0.0] * len(differences) and len(differences) == 4


def test_a_resumed_run_ends_with_the_same_weights(tiny_base, settings, tmp_path: Path, monkeypatch) -> None:
    def run(folder: Path) -> bytes:
        lm = load(tiny_base)
        sets = [make_set("one", SCHEMA), make_set("two", OTHER)]
        result = train_adapter(lm, sets, settings(max_steps=7, early_stopping_patience=5), LORA, folder)
        assert result["steps"] == 7
        times = [entry["seconds"] for entry in result["history"]]
        assert times == sorted(times) and times[-1] <= result["seconds"] + 0.1  # rounded
        assert lm.adapter is not None
        return lm.adapter.weights

    whole = run(tmp_path / "whole")
    original = PackedTrainer.training_step
    for kill_at in (1, 3, 6):
        folder = tmp_path / f"killed{kill_at}"

        def killed(self, *args, step=kill_at, **kwargs):
            if self.state.global_step == step:
                raise KeyboardInterrupt
            return original(self, *args, **kwargs)

        monkeypatch.setattr(PackedTrainer, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
        monkeypatch.setattr(PackedTrainer, "training_step", original)
        # A process that is killed while writing leaves an incomplete checkpoint.
        (folder / "checkpoint-999").mkdir()
        assert run(folder) == whole


def test_the_loss_of_a_resumed_run_is_the_mean_of_its_own_steps(
    tiny_base, settings, tmp_path: Path, monkeypatch
) -> None:
    original, losses = PackedTrainer.training_step, []

    def step(self, *args, **kwargs):
        if self.state.global_step == kill_at:
            raise KeyboardInterrupt
        losses.append(float(original(self, *args, **kwargs)))
        return torch.tensor(losses[-1])

    monkeypatch.setattr(PackedTrainer, "training_step", step)
    arguments = [make_set("one", SCHEMA)], settings(max_steps=7), LORA, tmp_path
    kill_at = 5
    with pytest.raises(KeyboardInterrupt):
        train_adapter(load(tiny_base), *arguments)
    kill_at = None
    losses.clear()
    history = train_adapter(load(tiny_base), *arguments)["history"]
    assert 0 < len(losses) < 7
    assert history[-1]["train_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_incomplete_checkpoints_are_ignored(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none") is None
    for step, state in ((8, '{"best_met'), (6, ""), (4, None), (2, "{}")):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        if state is not None:
            (checkpoint / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"max_steps": 5}, 5),
        # Nothing is learned at this rate, so no evaluation is better than the first.
        ({"learning_rate": 1e-12, "early_stopping_patience": 2, "max_steps": 20}, 6),
        ({"target_loss": 50.0, "max_steps": 20}, 10),
    ],
)
def test_a_run_interrupted_after_its_last_step_is_not_trained_further(
    tiny_base, settings, tmp_path: Path, changes, steps: int
) -> None:
    found = []
    for _ in range(2):
        lm = load(tiny_base)
        one = make_set("one", SCHEMA)
        result = train_adapter(lm, [one], settings(**changes), LORA, tmp_path)
        assert result["steps"] == steps and lm.adapter is not None
        found.append((lm.adapter.weights, result["best_step"], result["scores"]))
    assert found[0] == found[1]


def test_training_stops_at_the_target_loss_with_an_evaluation(lm, settings, tmp_path: Path) -> None:
    sets = [make_set("one", SCHEMA)]
    chosen = settings(target_loss=0.02, max_steps=60, eval_steps=25)
    result = train_adapter(lm, sets, chosen, LORA, tmp_path)
    losses = {entry["step"]: entry["loss"] for entry in result["history"] if "loss" in entry}
    evaluated = [entry["step"] for entry in result["history"] if "eval_micro_f1" in entry]
    assert 10 < result["steps"] < 60 and max(losses) == result["steps"] == evaluated[-1]
    assert [step for step, loss in losses.items() if loss < 0.02] == [result["steps"]]


def test_a_moved_run_finds_its_best_checkpoint(tiny_base, settings, tmp_path: Path, monkeypatch) -> None:
    scores = iter([0.9, 0.1, 0.2])

    def evaluated(self, *args, **kwargs):
        metrics = {"eval_micro_f1": next(scores)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    monkeypatch.setattr(PackedTrainer, "evaluate", evaluated)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    found = []
    moved = tmp_path / "here" / "moved"
    for folder in (Path("checkpoints"), moved):
        lm = load(tiny_base)
        result = train_adapter(lm, [make_set("one", SCHEMA)], settings(), LORA, folder)
        assert result["best_step"] == 2 and lm.adapter is not None
        found.append(lm.adapter.weights)
        if folder != moved:
            moved.parent.mkdir()
            folder.rename(moved)
            monkeypatch.chdir(tmp_path)
    assert found[0] == found[1]


def test_a_loss_that_is_not_finite_names_step_and_documents(lm, settings, tmp_path: Path) -> None:
    sets, steep = [make_set("one", SCHEMA)], {"learning_rate": 1e30, "max_grad_norm": 1e30}
    with pytest.raises(TuningError, match=r"loss at step \d+ is (nan|inf).*one:doc\d+.*learning_rate"):
        train_adapter(lm, sets, settings(eval_steps=5, **steep), LORA, tmp_path)


def test_weights_that_are_not_finite_are_an_error(lm, settings, tmp_path: Path) -> None:
    peft_model = lm.begin_training(SCHEMA, LORA)
    data = PackedDataset(lm, [make_set("one", SCHEMA)], settings())
    packed_trainer = PackedTrainer(lm, data, settings(), tmp_path, model=peft_model)
    lm.trainable_parameters()[0].data.fill_(torch.nan)
    with pytest.raises(TuningError, match=r"adapter at step 0 .*learning_rate"):
        packed_trainer.evaluate()


def test_a_process_with_several_gpus_trains_one_sequence_at_a_time(lm, settings, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(trainer, "TrainingArguments", ArgumentsWithTwoGPUs)
    result = train_adapter(lm, [make_set("one", SCHEMA)], settings(max_steps=2), LORA, tmp_path)
    assert result["steps"] == 2


def test_a_model_on_another_gpu_than_the_first_is_refused() -> None:
    check = trainer.check_device
    with pytest.raises(TuningError, match="CUDA_VISIBLE_DEVICES=1"):
        check(torch.device("cuda:1"), torch.device("cuda:0"))
    for loaded, used in (("cuda:0", "cuda:0"), ("cuda", "cuda:0"), ("cpu", "cpu")):
        check(torch.device(loaded), torch.device(used))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_longest_sequence_is_tried_as_it_will_be_trained(
    lm, settings, tmp_path: Path, monkeypatch, checkpointing: bool
) -> None:
    peft_model = lm.begin_training(SCHEMA, LORA)
    settings = settings(gradient_checkpointing=checkpointing)
    data = PackedDataset(lm, [make_set("one", SCHEMA, number=60)], settings)
    packed_trainer = PackedTrainer(lm, data, settings, tmp_path, model=peft_model)
    seen, packed_loss = [], trainer.packed_loss

    def recorded(network, batch):
        seen.append((network.training, lm.network.is_gradient_checkpointing, batch["input_ids"].shape[1]))
        return packed_loss(network, batch)

    monkeypatch.setattr(trainer, "packed_loss", recorded)
    before = torch.random.get_rng_state()
    packed_trainer.try_longest_sequence()
    assert seen == [(True, checkpointing, max(map(data.size, range(len(data)))))]
    assert all(weights.grad is None or not weights.grad.any() for weights in lm.trainable_parameters())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_out_of_memory_during_training_names_the_settings(
    lm, settings, tmp_path: Path, monkeypatch, checkpointing: bool
) -> None:
    monkeypatch.setattr(PackedTrainer, "compute_loss", out_of_memory)
    with pytest.raises(TuningError, match=r"sequences of 400 tokens.*training\.max_tokens") as raised:
        train_adapter(lm, [make_set("one", SCHEMA)], settings(gradient_checkpointing=checkpointing), LORA, tmp_path)
    assert ("training.gradient_checkpointing = true" in str(raised.value)) != checkpointing


def test_out_of_memory_during_scoring_names_the_settings(lm, settings, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(trainer, "score_sets", out_of_memory)
    with pytest.raises(TuningError, match=r"dev set was scored.*model\.max_batch_tokens below \d+"):
        train_adapter(lm, [make_set("one", SCHEMA)], settings(), LORA, tmp_path)


def out_of_memory(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("the device is full")


def test_a_pair_with_several_labels_is_predicted_once(lm, monkeypatch) -> None:
    one = make_set("one", SCHEMA)
    first = one.dev[0]
    labels = [name for name in SCHEMA.positive_names]
    one.dev = [RelationInstance(first.context, 0, 1, label) for label in labels]
    predicted, log_probs = [], lm.log_probs

    def counted(instances, schema, **kwargs):
        predicted.extend(instances)
        return log_probs(instances, schema, **kwargs)

    monkeypatch.setattr(lm, "log_probs", counted)
    scores = score_sets(lm, [one])["sets"]["one"]
    assert scores["instances"] == 2 and len(predicted) == 1


def test_dev_scores_decide_both_directions_together(lm, monkeypatch) -> None:
    schema = LabelSchema.from_any({"labels": [{"name": "spouse", "symmetric": True}, {"name": "employer"}]})
    context = Context("Ann married Bo", (Mention(0, 3, "PER"), Mention(12, 14, "PER")))
    dev = [RelationInstance(context, head, 1 - head, "spouse") for head in (0, 1)]
    probabilities = np.array([[0.9, 0.06, 0.04], [0.5, 0.02, 0.48]])
    calls = []

    def log_probs(instances, *_, k=None, **__):
        calls.append(len(instances))
        rows = np.log(probabilities[[one.head for one in instances]])
        return rows if k is None else np.where(np.exp(rows) >= 0.6, rows, -np.inf)

    monkeypatch.setattr(lm, "log_probs", log_probs)
    scores = score_sets(lm, [TuningSet("one", schema, [], dev, [])])
    # The second direction is scored completely, because the first one needs it: their mean is 0.67.
    assert calls == [2, 2] and scores["micro_f1"] == scores["best_micro_f1"] == 1.0


def test_empty_data_are_an_error(lm, settings, tmp_path: Path) -> None:
    one = make_set("one", SCHEMA)
    one.dev = []
    with pytest.raises(TuningError, match="one has no dev instances"):
        train_adapter(lm, [one], settings(), LORA, tmp_path)
    with pytest.raises(TuningError, match="no annotated pairs"):
        train_adapter(lm, [], settings(), LORA, tmp_path)
    with pytest.raises(TuningError, match=r"training\.max_tokens"):
        train_adapter(lm, [make_set("one", SCHEMA)], settings(max_tokens=70), LORA, tmp_path)
