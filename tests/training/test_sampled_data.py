"""Training with random labels, from the config to an adapter for any labels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spacy
from click.testing import Result
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.adapter import Adapter
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.schema import LabelSchema
from spacy_slmre.training.config import TrainingSettings, TuningError
from spacy_slmre.training.label_sampling import LabelSampler, SamplingSettings
from spacy_slmre.training.sampled_data import MIN_ROOM, SampledDataset, describe_corpora, dev_sets
from tests.training.test_label_sampling import make_corpus

NAMES = ["Ann", "Bo", "Cy", "Di"]


@pytest.fixture
def lm(tiny_base: Path) -> SmallLM:
    return make_small_lm(base=str(tiny_base), quantization=None, dtype="float32", device="cpu")


def make_dataset(lm: SmallLM, **settings: object) -> SampledDataset:
    corpus = make_corpus()
    values = TrainingSettings(**{"max_tokens": 600, **settings})  # type: ignore[arg-type]
    return SampledDataset(lm, LabelSampler([corpus], SamplingSettings()), dev_sets([corpus], 50), values, 20)


def test_a_sequence_is_determined_by_seed_and_position(lm: SmallLM) -> None:
    one, other, different = make_dataset(lm), make_dataset(lm), make_dataset(lm, seed=1)
    for position in (3, 0, 7):
        first, second = one[position], other[position]
        assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(len(one[n]["input_ids"][0]) != len(different[n]["input_ids"][0]) for n in range(5))
    assert one.doc_ids(3) == other.doc_ids(3) and all(name.startswith("one:") for name in one.doc_ids(3))


def test_sequences_are_no_longer_than_their_labels_require(lm: SmallLM) -> None:
    data = make_dataset(lm)
    sizes = [data[n]["input_ids"].shape[1] for n in range(len(data))]
    assert max(sizes) <= 2 * 600 + MIN_ROOM and min(sizes) > 200
    assert data[data.longest()]["input_ids"].shape[1] == max(sizes[:16])
    counts = data.counts()
    assert counts["tokens_per_epoch"] == sum(sizes) and counts["pairs_per_epoch"] > 100


def test_labels_that_leave_no_room_for_a_text_are_an_error(lm: SmallLM) -> None:
    lm.network.config.max_position_embeddings = 512
    with pytest.raises(TuningError, match=r"None of 1,000 random tasks fits the model.*there is no room for a text"):
        make_dataset(lm)[0]


def test_the_description_changes_with_the_data() -> None:
    corpus = make_corpus()
    first, second = (describe_corpora([make_corpus(number)])["one"] for number in (40, 39))
    assert first == describe_corpora([corpus])["one"]
    assert first["sha256"] != second["sha256"] and (first["passages"], first["labels"]) == (40, 5)


def write_label_set(folder: Path, number: int) -> Path:
    """Passages "Ann LABEL Bo.", and the same in the other direction."""
    wordings = {"likes": "friend", "pays": "employer", "wrote": "author"}
    (folder / "labels").mkdir(parents=True)
    labels = {
        name: {"wording": wording, "definition": "", "symmetric": False, "inverse": None}
        for name, wording in wordings.items()
    }
    (folder / "labels" / "people.json").write_text(json.dumps(labels))
    rows = []
    for n in range(number):
        label = list(wordings)[n % 3]
        head, tail = NAMES[n % 4], NAMES[(n + 1 + n // 4 % 3) % 4]
        text = f"{head} {label} {tail}"
        spans = [(0, len(head)), (len(text) - len(tail), len(text))]
        entities = [{"start": start, "end": end, "type": "PER"} for start, end in spans]
        relations = [{"head": 0, "tail": 1, "label": label}]
        rows.append({"id": str(n), "text": text, "entities": entities, "relations": relations, "exhaustive": True})
    (folder / "people.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def config_file(tmp_path: Path, tiny_base: Path) -> Path:
    train, dev = write_label_set(tmp_path / "train", 60), write_label_set(tmp_path / "dev", 12)
    file = tmp_path / "any.cfg"
    file.write_text(f"""
[model]
@architectures = "spacy-slmre.SmallLM.v1"
base = "{tiny_base}"
quantization = null
dtype = "float32"
device = "cpu"

[lora]
rank = 4

[training]
max_tokens = 400
max_steps = 6
eval_steps = 3
learning_rate = 0.01
gradient_accumulation_steps = 1

[sampling]
types = 0.9

[sampling.weights]
peop* = 2

[corpora]

[corpora.train]
@readers = "spacy-slmre.LabelSets.v1"

[corpora.train.paths]
people = "{train}"
other = null

[corpora.dev]
@readers = "spacy-slmre.LabelSets.v1"
max_pairs = 20

[corpora.dev.paths]
people = "{dev}"
""")
    return file


def tune(*args: object) -> Result:
    return CliRunner().invoke(slmre_cli, ["tune", *map(str, args)], catch_exceptions=False)


def test_tuning_with_random_labels_makes_an_adapter_for_any_labels(config_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = tune(config_file, "-o", output)
    assert done.exit_code == 0, done.output
    assert "people: 60 training passages, 3 labels" in done.output
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["steps"] == 6 and metrics["scores"]["sets"]["people"]["instances"] == 20
    card = (output / "README.md").read_text()
    assert "| people | 60 | 3 | 60 |" in card and "sampling.types | 0.9" in card

    folder = output / "slm_relations" / "model" / "adapter"
    record = Adapter.from_folder(folder).record
    assert record is not None and record.is_for_any_labels
    assert record.threshold == metrics["scores"]["threshold"]
    nlp = spacy.load(output)
    component = nlp.get_pipe("slm_relations")
    assert component.model.default_threshold == record.threshold
    assert len(component.labels) == 44, "without labels, the general schema"
    component.set_schema(["rival", "boss"])
    nlp.add_pipe("entity_ruler", first=True).add_patterns([{"label": "PER", "pattern": name} for name in NAMES])
    assert nlp("Ann likes Bo")._.relations_report["scored"] == 2


def test_an_adapter_for_any_labels_takes_examples_and_no_definitions(config_file: Path, tmp_path: Path) -> None:
    assert tune(config_file, "-o", tmp_path / "out").exit_code == 0
    adapter = tmp_path / "out" / "slm_relations" / "model" / "adapter"
    shown = {"text": "Ann fears Bo", "head": [0, 3, "PERSON"], "tail": [10, 12, "PERSON"], "label": "fears"}
    (tmp_path / "shown.jsonl").write_text(json.dumps(shown))
    lm = make_small_lm(adapter=str(adapter), examples=str(tmp_path / "shown.jsonl"), definitions=False)
    # Labels are fitted to the examples, which are not part of the prompt.
    assert not lm.style.definitions and lm.style.examples == ()
    pair = RelationInstance.from_dict({**shown, "label": None})
    schema = LabelSchema.from_labels(["fears", "likes"])
    plain = make_small_lm(adapter=str(adapter), definitions=False)
    assert lm.log_probs([pair], schema)[0, 0] > plain.log_probs([pair], schema)[0, 0]
    with pytest.raises(ModelError, match=r"model\.label_list conflicts with the adapter"):
        make_small_lm(adapter=str(adapter), label_list=False).load()


def test_checkpoints_are_compared_with_the_best_threshold(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The labels that are most probable get worse, but a threshold finds more of them.
    scores = iter([(0.5, 0.5), (0.4, 0.6), (0.4, 0.6)])

    def scored(lm: SmallLM, sets: list) -> dict:
        micro, best = next(scores)
        return {"micro_f1": micro, "best_micro_f1": best, "sets": {}, "threshold": 0.2, "micro_f1_at_threshold": best}

    monkeypatch.setattr("spacy_slmre.training.trainer.score_sets", scored)
    assert tune(config_file, "-o", tmp_path / "out").exit_code == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["best_step"] == 6


def test_an_interrupted_run_is_resumed(config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spacy_slmre.training.trainer import PackedTrainer

    assert tune(config_file, "-o", tmp_path / "whole").exit_code == 0
    original = PackedTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(PackedTrainer, "training_step", interrupted)
        assert tune(config_file, "-o", tmp_path / "out").exit_code == 130
    assert tune(config_file, "-o", tmp_path / "out").exit_code == 0
    weights = "slm_relations/model/adapter/adapter_model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


@pytest.mark.slow
def test_each_of_several_processes_trains_on_sequences_of_its_own(config_file: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command = [*launch, "-m", "spacy", "slmre", "tune", config_file, "-o", tmp_path / "out"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["steps"] == 6
    assert metrics["history"][-1]["epoch"] == 1, "no sequence is used twice"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.max_steps": -1}, "set training.max_steps"),
        ({"sampling.types": 2.0}, "sampling.types = 2.0"),
        ({"corpora.train.paths.people": "nowhere"}, "nowhere has no file SET.jsonl"),
    ],
)
def test_wrong_configs_are_explained(config_file: Path, tmp_path: Path, changes: dict, message: str) -> None:
    options = [part for name, value in changes.items() for part in (f"--{name}", value)]
    done = tune(config_file, "-o", tmp_path / "out", *options)
    assert done.exit_code == 1 and message in " ".join(done.output.split())
