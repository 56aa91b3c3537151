"""Tuning with `Trainer`: learns, keeps the best, goes on where it was killed, and says what is wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.schema import LabelSchema
from spacy_slmre.training import trainer as packed_trainer
from spacy_slmre.training import tuning
from spacy_slmre.training.data import TuningData, TuningSet, evaluate
from spacy_slmre.training.settings import TuningError, TuningSettings
from spacy_slmre.training.trainer import PackedTrainer, last_checkpoint

SCHEMA = LabelSchema.from_labels(["place of birth", "employer"])
OTHER = LabelSchema.from_labels(["author", "sibling", "place"], negative_label=None)
LORA = LoraSettings(rank=4, alpha=8, dropout=0.1)


def make_instances(number: int, schema: LabelSchema, seed: int) -> list[RelationInstance]:
    """Sentences whose words say the label."""
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
    def make(**changes) -> TuningSettings:
        values = {
            "max_tokens": 400,
            "sequences_per_step": 1,
            "learning_rate": 0.02,
            "evaluate_every": 2,
            "max_steps": 6,
            "adapter_dtype": "float32",
        }
        return TuningSettings(**{**values, **changes})

    return make


def test_learns_several_schemas_and_keeps_the_best(lm, settings, tmp_path: Path) -> None:
    sets = [make_set("one", SCHEMA), make_set("two", OTHER)]
    before = evaluate(lm, sets)["micro_f1"]
    result = tuning.tune(
        lm, sets, settings(max_steps=60, evaluate_every=20, learning_rate=0.01), LORA, tmp_path
    )
    scores = [entry["eval_micro_f1"] for entry in result.history if "eval_micro_f1" in entry]
    assert len(scores) == 3 and result.scores["micro_f1"] == pytest.approx(max(scores))
    assert result.scores["micro_f1"] > max(0.8, before)
    assert set(result.scores["sets"]) == {"one", "two"}
    # What is kept is what was scored.
    assert lm.adapter is not None
    lm.adapter.to_folder(tmp_path / "kept")
    again = make_small_lm(
        base=lm.settings.base,
        adapter=str(tmp_path / "kept"),
        quantization=None,
        dtype="float32",
        device="cpu",
    )
    assert evaluate(again, sets) == result.scores
    assert again.adapter.record.schemas == {"one": SCHEMA, "two": OTHER}


def test_a_killed_run_ends_with_the_same_weights(tiny_base, settings, tmp_path: Path, monkeypatch) -> None:
    def run(folder: Path, resume: bool = False) -> bytes:
        lm = load(tiny_base)
        sets = [make_set("one", SCHEMA), make_set("two", OTHER)]
        result = tuning.tune(lm, sets, settings(max_steps=7, patience=5), LORA, folder, resume=resume)
        assert result.steps == 7
        times = [entry["seconds"] for entry in result.history]
        assert times == sorted(times) and times[-1] <= result.seconds + 0.1  # rounded
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
        # A process that is killed while it writes leaves a checkpoint without an end.
        (folder / "checkpoint-999").mkdir()
        assert run(folder, resume=True) == whole


def test_incomplete_checkpoints_are_not_resumed_from(tmp_path: Path) -> None:
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
        # Nothing is learnt at this rate, so no evaluation is better than the first.
        ({"learning_rate": 1e-12, "patience": 2, "max_steps": 20}, 6),
    ],
)
def test_a_run_that_ends_early_is_not_gone_on_with(
    tiny_base, settings, tmp_path: Path, changes, steps: int
) -> None:
    """Killed behind its last step, it has no more to do than to score."""
    found = []
    for resume in (False, True):
        lm = load(tiny_base)
        one = make_set("one", SCHEMA)
        result = tuning.tune(lm, [one], settings(**changes), LORA, tmp_path, resume=resume)
        assert result.steps == steps and lm.adapter is not None
        found.append((lm.adapter.weights, result.best_step, result.scores))
    assert found[0] == found[1]


def test_the_best_checkpoint_is_found_from_elsewhere(
    tiny_base, settings, tmp_path: Path, monkeypatch
) -> None:
    scores = iter([0.9, 0.1, 0.2])

    def evaluated(self, *args, **kwargs):
        metrics = {"eval_micro_f1": next(scores)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    monkeypatch.setattr(PackedTrainer, "evaluate", evaluated)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    found = []
    for folder, resume in ((Path("checkpoints"), False), (tmp_path / "here" / "moved", True)):
        lm = load(tiny_base)
        result = tuning.tune(lm, [make_set("one", SCHEMA)], settings(), LORA, folder, resume=resume)
        assert result.best_step == 2 and lm.adapter is not None
        found.append(lm.adapter.weights)
        if not resume:
            (tmp_path / "here").mkdir()
            folder.rename(tmp_path / "here" / "moved")
            monkeypatch.chdir(tmp_path)
    assert found[0] == found[1]


def test_a_loss_that_is_no_number_names_step_and_documents(lm, settings, tmp_path: Path) -> None:
    sets, steep = [make_set("one", SCHEMA)], {"learning_rate": 1e30, "max_grad_norm": 1e30}
    with pytest.raises(TuningError, match=r"loss at step \d+ is (nan|inf).*one:doc\d+.*learning_rate"):
        tuning.tune(lm, sets, settings(evaluate_every=5, **steep), LORA, tmp_path)


def test_weights_that_are_no_numbers_are_not_evaluated(lm, settings, tmp_path: Path) -> None:
    peft_model = lm.begin_training(SCHEMA, LORA)
    data = TuningData(lm, [make_set("one", SCHEMA)], settings())
    trainer = PackedTrainer(lm, data, settings(), tmp_path, model=peft_model)
    lm.trainable_parameters()[0].data.fill_(torch.nan)
    with pytest.raises(TuningError, match=r"weights at step 0 .*learning_rate"):
        trainer.evaluate()


def test_out_of_memory_halves_the_sequences(lm, settings, tmp_path: Path, monkeypatch, caplog) -> None:
    original, seen = PackedTrainer.compute_loss, []

    def limited(self, model, inputs, **kwargs):
        seen.append(inputs["input_ids"].shape[1])
        if seen[-1] > 320:
            raise torch.OutOfMemoryError("the device is full")
        return original(self, model, inputs, **kwargs)

    monkeypatch.setattr(PackedTrainer, "compute_loss", limited)
    result = tuning.tune(lm, [make_set("one", SCHEMA)], settings(max_tokens=600), LORA, tmp_path)
    assert result.max_tokens == 300 and result.steps == 6 and max(seen[1:]) <= 320
    assert "300 tokens" in caplog.text
    with pytest.raises(TuningError, match="memory does not suffice"):
        monkeypatch.setattr(PackedTrainer, "compute_loss", lambda *_, **__: limited_always())
        tuning.tune(lm, [make_set("one", SCHEMA)], settings(), LORA, tmp_path / "again")


def limited_always() -> None:
    raise torch.OutOfMemoryError("the device is full")


def test_a_run_killed_after_halving_goes_on_with_what_it_halved(
    tiny_base, settings, tmp_path: Path, monkeypatch
) -> None:
    original = PackedTrainer.compute_loss
    kill = False

    def limited(self, model, inputs, **kwargs):
        halved = self.data.size(0) <= 320
        if not halved and self.state.global_step == 3:
            raise torch.OutOfMemoryError("the device is full")
        if halved and kill and self.state.global_step == 1:
            raise KeyboardInterrupt
        return original(self, model, inputs, **kwargs)

    monkeypatch.setattr(PackedTrainer, "compute_loss", limited)

    def run(folder: Path, resume: bool = False) -> tuple[bytes, int, int]:
        lm = load(tiny_base)
        sets = [make_set("one", SCHEMA, 60)]
        result = tuning.tune(lm, sets, settings(max_tokens=600), LORA, folder, resume=resume)
        assert lm.adapter is not None
        return lm.adapter.weights, result.best_step, result.sequences_per_step

    whole = run(tmp_path / "whole")
    assert whole[2] == 2
    kill = True
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    assert last_checkpoint(tmp_path / "killed") is None
    kill = False
    assert run(tmp_path / "killed", resume=True) == whole


def test_out_of_memory_while_scoring_halves_what_is_scored(
    lm, settings, tmp_path: Path, monkeypatch, caplog
) -> None:
    def limited(lm, sets):
        if lm.settings.max_batch_tokens > most:
            raise torch.OutOfMemoryError("the device is full")
        return evaluate(lm, sets)

    monkeypatch.setattr(packed_trainer, "evaluate", limited)
    most, given = 300, lm.settings.max_batch_tokens
    result = tuning.tune(lm, [make_set("one", SCHEMA)], settings(), LORA, tmp_path)
    assert result.max_tokens == 400 and lm.settings.max_batch_tokens == given // 4 <= most
    assert "model.max_batch_tokens" in caplog.text
    most = 0
    with pytest.raises(TuningError, match="scoring"):
        tuning.tune(lm, [make_set("one", SCHEMA)], settings(), LORA, tmp_path / "again")


def test_long_instances_are_shortened_and_counted(lm, settings) -> None:
    one = make_set("one", SCHEMA)
    long = RelationInstance.from_offsets(
        "Rome " * 300 + "Ann met Bo" + " Rome" * 300, (1500, 1503, "PER"), (1508, 1510, "PER"), "employer"
    )
    far = RelationInstance.from_offsets("Ann" + " Rome" * 500, (0, 3, "PER"), (2499, 2503, "LOC"), "employer")
    one.train += [long, far]
    one.train_ids += ["long", "far"]
    data = TuningData(lm, [one], settings())
    assert (data.truncated, data.dropped) == (1, 1)
    ids = {id for position in range(len(data)) for id in data.ids(position)}
    assert "one:long" in ids and "one:far" not in ids
    assert all(data[n]["input_ids"].shape[1] <= 400 + 64 for n in range(len(data)))


def test_a_pair_with_several_labels_is_asked_about_once(lm, monkeypatch) -> None:
    one = make_set("one", SCHEMA)
    first = one.dev[0]
    labels = [name for name in SCHEMA.positive_names]
    one.dev = [RelationInstance(first.context, 0, 1, label) for label in labels]
    asked, best = [], lm.best

    def counted(instances, schema):
        asked.extend(instances)
        return best(instances, schema)

    monkeypatch.setattr(lm, "best", counted)
    scores = evaluate(lm, [one])["sets"]["one"]
    assert scores["instances"] == 2 and len(asked) == 1


def test_nothing_to_tune_on(lm, settings, tmp_path: Path) -> None:
    one = make_set("one", SCHEMA)
    one.dev = []
    with pytest.raises(TuningError, match="one has no dev instances"):
        tuning.tune(lm, [one], settings(), LORA, tmp_path)
    with pytest.raises(TuningError, match="corpus is empty"):
        tuning.tune(lm, [], settings(), LORA, tmp_path)
    with pytest.raises(TuningError, match=r"training\.max_tokens"):
        tuning.tune(lm, [make_set("one", SCHEMA)], settings(max_tokens=70), LORA, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "mlm"},
        {"max_tokens": 1},
        {"epochs": 0},
        {"warmup": 3},
        {"schedule": "steep"},
        {"adapter_dtype": "int8"},
    ],
)
def test_settings_out_of_range(changes) -> None:
    with pytest.raises(TuningError, match=f"training.{next(iter(changes))}"):
        TuningSettings(**changes)
