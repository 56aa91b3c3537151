"""`slmre tune --data` and `slmre init-config`: settings that suit the amount of data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from click.testing import Result
from spacy.tokens import Doc
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.corpus.gold_docs import holdout_positions, holdout_share
from spacy_slmre.corpus.readers import relation_corpus
from spacy_slmre.models.cascade import Cascade
from spacy_slmre.training import tune
from spacy_slmre.training.config import parse_config, read_config, resolve_config
from spacy_slmre.training.data import PackedDataset, read_sets
from spacy_slmre.training.own_data import make_config

NAMES = ("Ann Lee", "Bo Lind", "Cy Ray", "Di Fox", "Eva Holm", "Finn Moe")
PLACES = ("Rome", "Oslo", "Lima")


def run(*args: object) -> Result:
    return CliRunner().invoke(slmre_cli, [str(arg) for arg in args], catch_exceptions=False)


def write_annotations(path: Path, number: int, has_relations: Callable[[int], bool] = lambda _: True) -> Path:
    """Write documents in the neutral form: a person is born in a place and teaches another person."""
    lines = []
    for n in range(number):
        person, other, place = NAMES[n % 6], NAMES[(n + 1 + n // 6 % 4) % 6], PLACES[n % 3]
        text = f"No. {n}: {person} was born in {place} and taught {other}."
        ents = [
            {"start": text.index(name), "end": text.index(name) + len(name), "type": kind}
            for name, kind in ((person, "PER"), (place, "LOC"), (other, "PER"))
        ]
        found = [(0, 1, "born_in"), (2, 0, "teacher")] if has_relations(n) else []
        labeled = [{"head": ents[head], "tail": ents[tail], "label": label} for head, tail, label in found]
        lines.append(json.dumps({"text": text, "entities": ents, "relations": labeled}))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    return write_annotations(tmp_path / "annotations.jsonl", 30)


@pytest.fixture
def tiny(tiny_base: Path) -> list[str]:
    """Return overrides for the tiny model, which has no adapter to start from."""
    return [
        *("--model.base", str(tiny_base), "--model.adapter", "null", "--model.quantization", "null"),
        *("--model.dtype", "float32", "--model.device", "cpu", "--training.max_tokens", "300"),
    ]


@pytest.mark.slow
def test_thirty_sentences_get_a_hundred_short_steps(annotations: Path, tmp_path: Path, real_base: str) -> None:
    output = tmp_path / "own.cfg"
    done = run("init-config", annotations, "--output", output)
    assert done.exit_code == 0
    assert "24 documents to train on, 6 to choose" in done.output and "labels: born_in, teacher" in done.output
    config = resolve_config(read_config(output), "own.cfg")
    assert (config.training.max_steps, config.training.eval_steps) == (100, 30)
    assert config.training.max_tokens < 512 and config.model.adapter is not None
    (data,) = read_sets(config)
    assert len({*data.train_ids}) == 24 and len(data.train) == 24 * 6 and len(data.dev) == 6 * 6


def test_a_config_is_not_replaced_without_being_asked(annotations: Path, tmp_path: Path) -> None:
    done = run("init-config", annotations, "--output", annotations)
    assert done.exit_code == 1 and "would replace the input" in done.output
    output = tmp_path / "own.cfg"
    output.write_text("mine")
    done = run("init-config", annotations, "--output", output)
    assert done.exit_code == 1 and "already exists" in done.output and output.read_text() == "mine"


def test_annotations_are_tuned_on_without_a_config(annotations: Path, tmp_path: Path, tiny) -> None:
    output = tmp_path / "model"
    arguments = ["tune", "--data", annotations, "--output", output, *tiny, "--training.max_steps", 4]
    done = run(*arguments)
    assert done.exit_code == 0 and "micro-F1" in done.output
    assert spacy.load(output).get_pipe("slm_relations").labels == ("born_in", "no_relation", "teacher")
    card = (output / "README.md").read_text()
    assert "annotations.jsonl" in card and "| born_in | 24 | 6 |" in card
    assert "nothing to do" in run(*arguments).output


@pytest.mark.slow
def test_an_encoder_is_trained_on_the_same_data(
    annotations: Path, tmp_path: Path, tiny, real_encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model"
    arguments = ["tune", "--data", annotations, "--output", output, *tiny, "--training.max_steps", 2]
    arguments += ["--encoder.weight", "0.75", "--encoder.max_steps", 50]
    write = tune._write_output
    monkeypatch.setattr(tune, "_write_output", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(*arguments)
    monkeypatch.setattr(tune, "_write_output", write)
    # The trained encoder of the interrupted run is used.
    done = run(*arguments)
    assert done.exit_code == 0 and "Training the encoder" not in done.output
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["models"]["encoder"] == metrics["scores"]["micro_f1"] == 1.0  # the language model is random
    pipe = spacy.load(output).get_pipe("slm_relations")
    assert isinstance(pipe.model, Cascade) and pipe.model.weight == 0.75
    assert pipe.labels == ("born_in", "no_relation", "teacher")
    assert (output / "slm_relations" / "model" / "second" / "adapter").is_dir()
    card = (output / "README.md").read_text()
    assert (
        "slm_relations/model/second/adapter" in card and "encoder 1.000" in card and "| encoder.weight | 0.75 |" in card
    )


def test_a_pipeline_with_entities_makes_the_result_read_raw_text(annotations: Path, tmp_path: Path, tiny) -> None:
    ner = spacy.blank("en")
    ner.add_pipe("entity_ruler").add_patterns(
        [{"label": "PER", "pattern": "Ann Lee"}, {"label": "LOC", "pattern": "Rome"}]
    )
    ner.to_disk(tmp_path / "ner")
    output = tmp_path / "model"
    ending = ["--output", output, *tiny, "--training.max_steps", 2]
    assert run("tune", "--data", annotations, "--ner", tmp_path / "ner", *ending).exit_code == 0
    nlp = spacy.load(output)
    assert nlp.pipe_names == ["entity_ruler", "slm_relations"]
    assert nlp("Ann Lee was born in Rome.")._.relations_report["scored"] == 2


def test_mistakes_end_with_a_message(annotations: Path, tmp_path: Path, tiny) -> None:
    few = write_annotations(tmp_path / "few.jsonl", 1)
    none = write_annotations(tmp_path / "none.jsonl", 30, lambda _: False)
    same_id = tmp_path / "same.jsonl"
    line = json.dumps({"id": "a", **json.loads(few.read_text(encoding="utf-8"))})
    same_id.write_text("\n".join([line] * 3), encoding="utf-8")
    rare = write_annotations(tmp_path / "rare.jsonl", 30, lambda n: n == 7)
    variable = write_annotations(tmp_path / "an$notes.jsonl", 30)
    one_label = tmp_path / "one.csv"
    rows = [f"{name} taught Bo.,{name},Bo,taught" for name in NAMES]
    one_label.write_text("\n".join(["text,entity1,entity2,relation", *rows]), encoding="utf-8")
    blank = tmp_path / "blank"
    spacy.blank("en").to_disk(blank)
    related = tmp_path / "related"
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler")
    nlp.add_pipe("rel_classifier", name="relations")
    nlp.to_disk(related)
    for arguments, message in [
        ([], "either a config or annotations"),
        (["--data", annotations, tmp_path / "own.cfg"], "either a config or annotations"),
        ([tmp_path / "own.cfg", "--ner", "en"], "--ner is only for --data"),
        ([tmp_path / "own.cfg", "--lang", "de"], "--lang is only for --data"),
        (["--data", tmp_path / "missing.jsonl"], "does not exist"),
        (["--data", few], "only 1 annotated document"),
        (["--data", same_id], "only 1 annotated document (in 3 parts with the same id or text)"),
        (["--data", none], "has a relation"),
        (["--data", rare], "or pass dev data that have relations"),
        (["--data", annotations, "--dev", annotations], "are also the training data"),
        (["--data", variable], 'an$notes.jsonl contains "$"'),
        (["--data", one_label], "--corpora.train.negatives 2"),
        (["--data", annotations, "--ner", "no_such_pipeline"], 'tune.ner = "no_such_pipeline" cannot be loaded'),
        (["--data", annotations, "--ner", blank], "has no component that sets doc.ents"),
        (["--data", annotations, "--ner", related], "already has the component relations"),
        (["--data", annotations, "--schema", tmp_path / "missing.json"], "missing.json"),
        (["--data", annotations, "--encoder.min_prob", "2"], "encoder.min_prob = 2"),
    ]:
        done = run("tune", *arguments, "--output", tmp_path / "out", *tiny)
        assert done.exit_code == 1 and message in done.output, (arguments, done.output)
        assert not (tmp_path / "out").exists()
    done = run("tune", "--data", annotations)
    assert done.exit_code == 1 and "--output" in done.output


def placed_docs(path: Path) -> list[tuple[Doc, float]]:
    return list(holdout_positions(example.reference for example in relation_corpus(path)(spacy.blank("en"))))


def test_as_many_documents_are_held_out_as_asked_for(annotations: Path) -> None:
    placed = placed_docs(annotations)
    for number, share, expected in ((30, 0.2, 6), (5, 0.2, 1), (2, 0.2, 1), (3, 0.9, 2)):
        chosen = holdout_share(placed[:number], share)
        assert sum(position < chosen for _, position in placed[:number]) == expected


def test_a_rare_relation_is_held_out_if_possible(tmp_path: Path) -> None:
    for place in range(10):
        placed = placed_docs(write_annotations(tmp_path / "rare.jsonl", 30, lambda n, place=place: n % 10 == place))
        share, half = (holdout_share(placed, wanted) for wanted in (0.2, 0.5))
        held_out = [doc for doc, position in placed if position < share]
        n_related = sum(bool(doc._.relations) for doc in held_out)
        # At most half of the documents are held out.
        assert 6 <= len(held_out) <= 15 and n_related < 3
        assert n_related or not any(doc._.relations and position < half for doc, position in placed)


def test_many_negatives_are_sampled_and_steps_grow_with_the_data(tmp_path: Path, tiny_base: Path) -> None:
    overrides = {"model.base": str(tiny_base), "model.adapter": None, "model.quantization": None}
    overrides |= {"model.dtype": "float32", "model.device": "cpu"}

    def choose(number: int, has_relations: Callable[[int], bool] = lambda _: True) -> tuple[bool, int, float]:
        """Return whether negatives are sampled, the steps, and how often these pass through the data."""
        path = write_annotations(tmp_path / "own.jsonl", number, has_relations)
        text = make_config(path, overrides=overrides)
        config = resolve_config(parse_config(text, overrides), "own.cfg")
        dataset = PackedDataset(config.model, read_sets(config), config.training)
        passes = config.training.max_steps * config.training.max_tokens / dataset.counts()["tokens_per_epoch"]
        return "negatives = 10.0" in text, config.training.max_steps, passes

    is_sampled, steps, _ = choose(30)
    assert not is_sampled and steps == 100
    is_sampled, steps, passes = choose(1500)
    assert not is_sampled and steps > 100 and 3 <= passes < 4
    # One sentence in ten has two relations; there are 29 other pairs for each of them.
    is_sampled, steps, _ = choose(60, lambda n: n % 10 == 0)
    assert is_sampled and steps == 100


def test_what_cannot_be_converted_is_counted(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "annotations.jsonl", 3)
    path.write_text(path.read_text() + '\n{"id": "x", "error": "failed"}')
    with pytest.warns(UserWarning, match="failed in extraction: 1"):
        assert len(list(relation_corpus(path)(spacy.blank("en")))) == 3


@pytest.mark.slow
def test_an_encoder_reads_long_contexts_and_any_definition(tmp_path: Path, tiny, real_encoder: str) -> None:
    lines = [json.loads(line) for line in write_annotations(tmp_path / "a.jsonl", 8).read_text().splitlines()]
    for line in lines:  # longer than the encoder reads
        line["text"] += " and so on" * 300
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    labels = [{"name": "born_in", "definition": "born in ${place}: the tail"}, {"name": "teacher"}]
    (tmp_path / "labels.json").write_text(json.dumps({"labels": [*labels, {"name": "no_relation"}]}))
    arguments = ["--data", tmp_path / "a.jsonl", "--schema", tmp_path / "labels.json", "-o", tmp_path / "model"]
    short = ["--training.max_steps", 2, "--encoder.weight", "0.5", "--encoder.max_steps", 2]
    done = run("tune", *arguments, *tiny, *short)
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert set(metrics["models"]) == {"language model", "encoder"}
    assert metrics["scores"]["sets"]["corpus"]["instances"] > 0
