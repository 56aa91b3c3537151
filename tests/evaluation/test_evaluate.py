"""Evaluation runs: of pipelines and of predictions made elsewhere, interrupted or not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.corpus.conversion import convert
from spacy_slmre.corpus.docbin import ShardWriter, read_docs
from spacy_slmre.corpus.gold_docs import BENCHMARK, ID, SPLIT
from spacy_slmre.evaluation import evaluate as evaluating
from spacy_slmre.evaluation.evaluate import evaluate_pipeline, read_gold
from spacy_slmre.evaluation.runs import EvaluationError, Prediction, read_run
from spacy_slmre.evaluation.selection import select_runs
from spacy_slmre.evaluation.systems import EvaluationSettings
from spacy_slmre.relations import install_extensions
from spacy_slmre.study.benchmarks.card import get_benchmark

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first documents of the demo corpus's test split."""
    folder = tmp_path_factory.mktemp("corpora")
    install_extensions()
    convert(get_benchmark("demo"), ASSETS / "demo_corpus" / "test.txt", folder / "all.spacy", split="test")
    with ShardWriter(folder / "test.spacy") as writer:
        for number, doc in enumerate(read_docs(folder / "all.spacy", spacy.blank("en").vocab)):
            if number < 6:
                writer.add(doc)
    return folder / "test.spacy"


@pytest.fixture
def pipeline(tmp_path: Path, blank: Callable[[], Language], tiny_model: dict) -> Path:
    """A saved pipeline with a tiny random language model."""
    nlp = blank()
    nlp.add_pipe("slm_relations", config={"model": tiny_model})
    nlp.to_disk(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(slmre_cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_run_folder(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    shown = run("evaluate", pipeline, corpus, "-o", tmp_path / "runs", "--top", 2)
    assert "all (micro)" in shown and "95 %" in shown
    (found,) = select_runs([tmp_path / "runs"]).runs
    assert found.folder.name == "demo-test"
    assert found.info["benchmark"] == "demo" and found.info["split"] == "test"
    assert found.info["kind"] == "slm" and found.info["decoding"] == "scored"
    assert found.info["style"] == "0-shot" and found.info["prompt"] == "schema"
    # A model that is tied to no labels of its own is asked for the benchmark's.
    assert "born_in" in found.info["labels"]
    predictions = list(found.predictions())
    assert len(predictions) == found.info["pairs"] == len({one.id for one in predictions})
    for one in predictions:
        assert len(one.top) == 2 and one.score == one.top[0][1] and one.answered
        assert one.text[slice(*one.head)] and one.text[slice(*one.tail)]
    gold = [label for one in predictions for label in one.gold]
    assert gold and "no_relation" not in gold
    assert found.metrics["micro"]["tp"] + found.metrics["micro"]["fn"] == len(gold)
    assert found.info["seconds"] > 0 and found.info["tokens"] > 50 * len(predictions)


def test_scores_are_those_of_the_component(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    nlp = spacy.load(pipeline)
    gold = read_gold(corpus, nlp)
    found = evaluate_pipeline(nlp, str(pipeline), gold, tmp_path / "run", EvaluationSettings())
    pipe = nlp.get_pipe("slm_relations")
    examples = list(evaluating.relation_corpus(corpus)(nlp))
    for example in examples:
        pipe(example.predicted)
    assert pipe.score(examples)["rel_micro_f"] == pytest.approx(found.metrics["micro"]["f"])


def test_a_killed_run_goes_on(
    pipeline: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "CHUNK", 4)
    nlp = spacy.load(pipeline)
    gold = read_gold(corpus, nlp)
    whole = evaluate_pipeline(nlp, str(pipeline), gold, tmp_path / "whole", EvaluationSettings())

    def killed(docs: int) -> None:
        raise KeyboardInterrupt

    settings = EvaluationSettings()
    with pytest.raises(KeyboardInterrupt):
        evaluate_pipeline(nlp, str(pipeline), gold, tmp_path / "run", settings, progress=killed)
    assert not (tmp_path / "run").exists()
    with pytest.raises(EvaluationError, match="no complete evaluation run"):
        select_runs([tmp_path / "run.part"])
    # A line that was cut off in writing is not taken.
    with (tmp_path / "run.part" / "predictions.jsonl").open("a") as file:
        file.write('{"id": "half')
    with pytest.raises(EvaluationError, match=r"another one \(top changed\)"):
        evaluate_pipeline(nlp, str(pipeline), gold, tmp_path / "run", EvaluationSettings(top=1))
    said: list[str] = []
    resumed = evaluate_pipeline(nlp, str(pipeline), gold, tmp_path / "run", settings, say=said.append)
    assert "Going on after" in said[0]
    assert [one.id for one in resumed.predictions()] == [one.id for one in whole.predictions()]
    assert resumed.metrics["micro"] == whole.metrics["micro"]
    assert not (tmp_path / "run.part").exists()


def test_done_is_not_done_again(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    run("evaluate", pipeline, corpus, "-o", tmp_path)
    stamp = (tmp_path / "demo-test" / "run.json").stat().st_mtime_ns
    assert "is evaluated already" in run("evaluate", pipeline, corpus, "-o", tmp_path)
    assert (tmp_path / "demo-test" / "run.json").stat().st_mtime_ns == stamp
    run("evaluate", pipeline, corpus, "-o", tmp_path, "--overwrite")
    assert (tmp_path / "demo-test" / "run.json").stat().st_mtime_ns != stamp


def test_only_runs_are_replaced(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    notes = tmp_path / "demo-test" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("years")
    told = run("evaluate", pipeline, corpus, "-o", tmp_path, "--overwrite", code=1)
    assert "will not be replaced" in told.replace("\n", " ") and notes.read_text() == "years"


def test_what_is_done_is_of_the_same_pipeline_corpus_and_settings(
    pipeline: Path, corpus: Path, tmp_path: Path
) -> None:
    run("evaluate", pipeline, corpus, "-o", tmp_path / "runs")
    assert "top changed" in run("evaluate", pipeline, corpus, "-o", tmp_path / "runs", "--top", 1, code=1)
    nlp = spacy.load(pipeline)
    nlp.get_pipe("slm_relations").threshold = 0.9
    nlp.to_disk(pipeline)
    assert "pipeline changed" in run("evaluate", pipeline, corpus, "-o", tmp_path / "runs", code=1)
    # A copy of a pipeline is the same pipeline.
    shutil.copytree(pipeline, tmp_path / "copy")
    run("evaluate", pipeline, corpus, "-o", tmp_path / "runs", "--overwrite")
    assert "evaluated already" in run("evaluate", tmp_path / "copy", corpus, "-o", tmp_path / "runs")
    # What follows a training is evaluated again.
    said: list[str] = []
    nlp.get_pipe("slm_relations").threshold = 0.1
    nlp.to_disk(pipeline)
    nlp = spacy.load(pipeline)
    target, settings = tmp_path / "runs" / "demo-test", EvaluationSettings()
    before = read_run(target).info["marks"]["pipeline"]
    evaluate_pipeline(
        nlp, str(pipeline), read_gold(corpus, nlp), target, settings, renew=True, say=said.append
    )
    assert "evaluating again" in said[0] and read_run(target).info["marks"]["pipeline"] != before


def test_two_corpora_of_one_name(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    twice = ("evaluate", pipeline, corpus, corpus, "-o", tmp_path / "runs")
    assert "would have their run in" in run(*twice, code=1)
    # Corpora of one's own are called after their folders.
    nlp = spacy.blank("en")
    for name in ("a", "b"):
        doc = nlp("Ann met Bo.")
        doc.set_ents([spacy.tokens.Span(doc, place, place + 1, label="PERSON") for place in (0, 2)])
        doc._.relations = [(doc[0:1], doc[2:3], name)]
        with ShardWriter(tmp_path / name / "test.spacy") as writer:
            writer.add(doc)
    run("evaluate", pipeline, *(tmp_path / name / "test.spacy" for name in "ab"), "-o", tmp_path / "runs")
    for name in ("a", "b"):
        found = read_run(tmp_path / "runs" / f"{name}-test")
        assert found.info["benchmark"] == name and found.info["split"] == "test"


def test_documents_of_one_id(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    docs = list(read_docs(corpus, spacy.blank("en").vocab))
    with ShardWriter(tmp_path / "twice.spacy") as writer:
        for doc in (*docs, docs[0]):
            writer.add(doc)
    assert "1 document ids more than once" in run("evaluate", pipeline, tmp_path / "twice.spacy", code=1)


def test_a_limit_counts_relations_where_no_pairs_are_annotated(tmp_path: Path) -> None:
    install_extensions()
    nlp = spacy.blank("en")
    with ShardWriter(tmp_path / "own.spacy") as writer:
        for _ in range(5):
            doc = nlp("Ann met Bo.")
            doc._.relations = [(doc[0:1], doc[2:3], "met")]
            writer.add(doc)
    assert len(read_gold(tmp_path / "own.spacy", limit=2).examples) == 2


def test_free_generation_without_label_list(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    options = ("--decoding", "generated", "--prompt", "generic", "--max-new-tokens", 3, "--name", "tiny")
    run("evaluate", pipeline, corpus, "-o", tmp_path, *options)
    found = read_run(tmp_path / "demo-test")
    assert found.info["prompt"] == "generic" and found.info["decoding"] == "generated"
    assert found.info["system"] == "tiny"
    predictions = list(found.predictions())
    # A random model writes no label: what it wrote is kept, and counted as the study does.
    assert all(one.answer is not None and one.score is None for one in predictions)
    assert found.metrics["out_of_schema"] == sum(one.predicted is not None for one in predictions) > 0
    assert found.metrics["calibration"] is None


def test_proposed_pairs(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    run("evaluate", pipeline, corpus, "-o", tmp_path / "given")
    run("evaluate", pipeline, corpus, "-o", tmp_path / "proposed", "--pairs", "proposed")
    given, proposed = (read_run(tmp_path / name / "demo-test") for name in ("given", "proposed"))
    assert {one.id for one in given.predictions()} <= {one.id for one in proposed.predictions()}
    golds = [[label for one in found.predictions() for label in one.gold] for found in (given, proposed)]
    assert golds[0] == golds[1]


def test_labels_that_the_pipeline_lacks(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    shown = run("evaluate", pipeline, corpus, "-o", tmp_path, "--labels", "pipeline")
    assert "unknown to the pipeline" in shown and "recall is at most" in shown


def test_questions_and_predictions_made_elsewhere(corpus: Path, tmp_path: Path) -> None:
    run("questions", corpus, tmp_path / "questions.jsonl")
    questions = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert all("gold" not in one and "no_relation" in one["labels"] for one in questions)
    gold = {
        question.id: question.gold
        for number, example in enumerate(read_gold(corpus).examples)
        for question in evaluating.ask(example, number, evaluating.format_of(example.reference).schema)
    }
    answers = tmp_path / "answers.jsonl"
    lines = [
        {"id": one["id"], "answer": f' "{" ".join((*gold[one["id"]], "no_relation")[0].split("_"))}"\nsure'}
        for one in questions
    ]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run("evaluate", answers, corpus, "-o", tmp_path / "runs", "--name", "oracle")
    found = read_run(tmp_path / "runs" / "demo-test")
    assert found.metrics["micro"]["f"] == 1.0 and found.info["kind"] == "external"
    # As a table, with one answer that is no label.
    table = tmp_path / "answers.csv"
    rows = [f"{one['id']},{(*gold[one['id']], '')[0]},0.9" for one in questions]
    rows[0] = rows[0].replace(",", ",some nonsense,", 1).rpartition(",")[0].rpartition(",")[0] + ",0.5"
    table.write_text("id,label,score\n" + "\n".join(rows))
    run("evaluate", table, corpus, "-o", tmp_path / "runs", "--overwrite")
    found = read_run(tmp_path / "runs" / "demo-test")
    assert found.metrics["out_of_schema"] == 1 and found.metrics["calibration"] is not None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"id": "elsewhere/0", "answer": "born_in"}', "for pairs that are not in"),
        ('{"id": "x", "answer": "a"}\n{"id": "x", "answer": "b"}', 'the id "x" occurs twice'),
        ('{"id": "x"}', 'has an "id" and an "answer"'),
        ('{"id": "x", "answer": "a", "score": "high"}', "is no number"),
        ('{"id": "x", "answer": "a", "score": 2}', "no probability"),
        ("not json", "answers.jsonl:1: the line is no JSON"),
        ("", "no predictions"),
    ],
)
def test_bad_predictions(corpus: Path, tmp_path: Path, lines: str, message: str) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(lines)
    assert message in run("evaluate", answers, corpus, "-o", tmp_path / "runs", code=1)
    assert not (tmp_path / "runs").exists()


def test_predictions_leave_an_interrupted_run_alone(corpus: Path, tmp_path: Path) -> None:
    run("questions", corpus, tmp_path / "questions.jsonl")
    answers = tmp_path / "answers.jsonl"
    questions = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    answers.write_text("".join(json.dumps({"id": one["id"], "answer": "\ud83d"}) + "\n" for one in questions))
    (tmp_path / "runs" / "demo-test.part").mkdir(parents=True)
    (tmp_path / "runs" / "demo-test.part" / "predictions.jsonl").write_text("hours of work")
    run("evaluate", answers, corpus, "-o", tmp_path / "runs")
    assert (tmp_path / "runs" / "demo-test.part" / "predictions.jsonl").read_text() == "hours of work"
    # Half a character is replaced, and another file of predictions is not taken for this one.
    assert next(read_run(tmp_path / "runs" / "demo-test").predictions()).answer == "\ufffd"
    answers.write_text("".join(json.dumps({"id": one["id"], "answer": "x"}) + "\n" for one in questions))
    assert "predictions changed" in run("evaluate", answers, corpus, "-o", tmp_path / "runs", code=1)


def test_a_label_that_says_no_relation_is_the_negative_one(tmp_path: Path) -> None:
    install_extensions()
    nlp = spacy.blank("en")
    with ShardWriter(tmp_path / "own.spacy") as writer:
        for label in ("met", "NA", "NA"):
            doc = nlp("Ann met Bo.")
            doc._.relation_pairs = [(doc[0:1], doc[2:3], label)]
            writer.add(doc)
    answers = [{"id": f"{number}/0", "answer": label} for number, label in enumerate(("met", "NA", "NA"))]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    run("evaluate", tmp_path / "answers.jsonl", tmp_path / "own.spacy", "-o", tmp_path / "runs")
    found = read_run(tmp_path / "runs" / "own")
    assert found.metrics["micro"]["f"] == 1.0 and found.info["negative_label"] == "NA"


def test_missing_predictions(corpus: Path, tmp_path: Path) -> None:
    run("questions", corpus, tmp_path / "questions.jsonl")
    first = json.loads((tmp_path / "questions.jsonl").read_text().splitlines()[0])
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"id": first["id"], "answer": "other"}))
    assert "no prediction for" in run("evaluate", answers, corpus, code=1)
    run("evaluate", answers, corpus, "--allow-missing", "-o", tmp_path / "runs")
    found = read_run(tmp_path / "runs" / "demo-test")
    assert found.metrics["unanswered"] == found.info["pairs"] - 1


def test_bad_input(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    spacy.blank("en").to_disk(tmp_path / "empty")
    assert "no relation component, only: nothing" in run("evaluate", tmp_path / "empty", corpus, code=1)
    assert "neither an installed package nor a folder" in run("evaluate", "nope", corpus, code=1)
    assert "There is no file" in run("evaluate", tmp_path / "none.jsonl", corpus, code=1)
    assert "There is no corpus" in run("evaluate", pipeline, tmp_path / "none.spacy", code=1)
    assert '"scored" or "generated"'.replace('"', "'") in run(
        "evaluate", pipeline, corpus, "--decoding", "sampled", code=1
    )
    nlp = spacy.blank("en")
    for name, docs in (("none", []), ("bare", [nlp("Nothing here.")]), ("two", _two_benchmarks(nlp))):
        with ShardWriter(tmp_path / f"{name}.spacy") as writer:
            for doc in docs:
                writer.add(doc)
    assert "has no relation to find" in run("evaluate", pipeline, tmp_path / "none.spacy", code=1)
    assert "has no relation to find" in run("evaluate", pipeline, tmp_path / "bare.spacy", code=1)
    assert "several benchmarks (demo, gids)" in run("evaluate", pipeline, tmp_path / "two.spacy", code=1)


def _two_benchmarks(nlp: Language) -> list[Doc]:
    docs = []
    for benchmark in ("demo", "gids"):
        doc = nlp("Ann met Bo.")
        doc.user_data |= {BENCHMARK: benchmark, SPLIT: "test", ID: f"test-{benchmark}"}
        doc._.relation_pairs = [(doc[0:1], doc[2:3], "born_in")]
        docs.append(doc)
    return docs


def test_predictions_survive_json() -> None:
    one = Prediction("d/0", "d", "a\ud800b", (0, 1), (1, 2), "", "X", ("r",), None, 0.5, (("r", 0.5),))
    assert Prediction.from_json(one.to_json()) == one
    with pytest.raises(ValueError, match="no prediction"):
        Prediction.from_json("{}")
