"""Evaluating pipelines and answers of other programs, interrupted or not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.cli.output import console
from spacy_slmre.corpus.conversion import convert
from spacy_slmre.corpus.docbin import DocBinWriter, read_docs
from spacy_slmre.corpus.gold_docs import FORMAT, ID, SPLIT
from spacy_slmre.corpus.readers import relation_corpus
from spacy_slmre.evaluation import evaluate as evaluating
from spacy_slmre.evaluation.evaluate import evaluate_corpus
from spacy_slmre.evaluation.gold import make_evaluation_pairs, read_gold
from spacy_slmre.evaluation.results import find_runs, make_results
from spacy_slmre.evaluation.runs import EvaluationError, EvaluationRun, Prediction, read_run
from spacy_slmre.evaluation.systems import EvaluationSettings
from spacy_slmre.models.encoder.universal import UniversalEncoder, UniversalEncoderSettings
from spacy_slmre.relations import install_extensions
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import get_benchmark
from spacy_slmre.util.errors import OutputError

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first documents of the demo corpus's test split."""
    folder = tmp_path_factory.mktemp("corpora")
    install_extensions()
    convert(get_benchmark("demo"), ASSETS / "demo_corpus" / "test.txt", folder / "all.spacy", split="test")
    with DocBinWriter(folder / "test.spacy") as writer:
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


def test_run_folder_has_predictions_metrics_and_information(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    shown = run("evaluate", pipeline, corpus, "-o", tmp_path / "runs", "--top", 2)
    assert "all (micro)" in shown and "95 %" in shown
    (found,), _ = find_runs([tmp_path / "runs"])
    assert found.folder.name == "pipeline-demo-test"
    assert found.info["corpus"] == "demo" and found.info["split"] == "test"
    assert found.info["kind"] == "slm" and found.info["decoding"] == "scored"
    assert found.info["style"] == "0-shot" and found.info["prompt"] == "schema"
    # A model without labels of its own gets those of the corpus.
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


def test_scores_equal_those_of_the_component(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    nlp = spacy.load(pipeline)
    found = evaluate_corpus(nlp, str(pipeline), read_gold(corpus, nlp), tmp_path / "run")
    pipe = nlp.get_pipe("slm_relations")
    examples = list(relation_corpus(corpus)(nlp))
    for example in examples:
        pipe(example.predicted)
    assert pipe.score(examples)["rel_micro_f"] == pytest.approx(found.metrics["micro"]["f"])


def evaluate(pipeline: Path, corpus: Path, folder: Path, **settings: object) -> EvaluationRun:
    nlp = spacy.load(pipeline)
    options = {name: settings.pop(name) for name in ("progress", "log", "overwrite_changed") if name in settings}
    gold = read_gold(corpus, nlp)
    return evaluate_corpus(nlp, str(pipeline), gold, folder, EvaluationSettings(**settings), **options)


def test_several_labels_of_a_pair_are_counted_on_request(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="has no threshold"):
        evaluate(pipeline, corpus, tmp_path / "none", max_labels_per_pair=2)
    nlp = spacy.load(pipeline)
    nlp.get_pipe("slm_relations").threshold = 0.0
    nlp.to_disk(tmp_path / "pipeline")
    one = evaluate(tmp_path / "pipeline", corpus, tmp_path / "one")
    two = evaluate(tmp_path / "pipeline", corpus, tmp_path / "two", max_labels_per_pair=2)
    assert all(found.labels is None for found in one.predictions())
    for first, second in zip(one.predictions(), two.predictions(), strict=True):
        assert second.labels is not None and len(second.labels) == 2 and first.id == second.id
        assert second.predicted == second.labels[0]
    assert two.metrics["micro"]["tp"] + two.metrics["micro"]["fp"] == 2 * two.info["pairs"]
    assert two.metrics["micro"]["r"] >= one.metrics["micro"]["r"] and two.metrics["ceiling"] is None


def test_gold_labels_hold_in_both_directions_if_the_schema_says_so(blank: Callable[[], Language]) -> None:
    reference = blank()("Ann Lee was born in Rome. Her brother Bo Lee works for Red Mill in Warsaw.")
    ann, rome, bo, mill, _ = reference.ents
    reference._.relations = [(ann, bo, "sibling"), (mill, bo, "staff"), (ann, rome, "born in")]
    predicted = reference.copy()
    predicted.user_data.clear()
    pairs = [(ann, bo), (bo, ann), (bo, mill), (mill, bo), (rome, ann)]
    predicted._.relation_candidates = [(predicted[a.start : a.end], predicted[b.start : b.end]) for a, b in pairs]
    labels = [{"name": "sibling", "symmetric": True}, {"name": "boss", "inverse": "staff"}]
    schema = LabelSchema.from_dict({"labels": [*labels, {"name": "staff"}, {"name": "born in"}]})
    found = make_evaluation_pairs(Example(predicted, reference), 7, schema)
    assert [one.gold for one in found] == [("sibling",), ("sibling",), ("boss",), ("staff",), ()]
    assert [one.opposite for one in found] == ["7/1", "7/0", "7/3", "7/2", ""]
    plain = LabelSchema.from_labels(["sibling", "boss", "staff", "born in"])
    found = make_evaluation_pairs(Example(predicted, reference), 7, plain)
    assert [one.gold for one in found] == [("sibling",), (), (), ("staff",), ()]
    assert {one.opposite for one in found} == {""}


def test_facts_are_evaluated_by_document(blank: Callable[[], Language], tiny_model: dict, tmp_path: Path) -> None:
    nlp = blank()
    schema = {"labels": [{"name": "sibling", "symmetric": True}, {"name": "employer"}], "negative_label": None}
    settings = {"model": tiny_model, "schema": schema, "threshold": 0.0, "max_labels_per_pair": 1}
    nlp.add_pipe("slm_relations", config=settings)
    nlp.to_disk(tmp_path / "pipeline")
    reference = blank()("Ann Lee and Bo Lee live in Rome. Ann Lee likes Bo Lee. Red Mill is in Warsaw.")
    ann, bo, _, _, _, mill, _ = reference.ents
    # The second relation joins mentions in different sentences, which the component does not propose.
    reference._.relations = [(bo, ann, "sibling"), (ann, mill, "employer")]
    with DocBinWriter(tmp_path / "dev.spacy") as writer:
        writer.add(reference)
    shown = run("evaluate", tmp_path / "pipeline", tmp_path / "dev.spacy", "-o", tmp_path, "--level", "facts")
    assert "all (micro)" in shown
    (found,), _ = find_runs([tmp_path])
    assert found.info["corpus"].endswith("-facts") and found.folder.name.endswith("-facts")
    predictions = {(one.text[slice(*one.head)], one.text[slice(*one.tail)]): one for one in found.predictions()}
    # Ann, Bo and Rome; Red Mill and Warsaw; Ann and Red Mill.
    assert len(predictions) == 6 + 2 + 1 and not predictions["Ann Lee", "Red Mill"].answered
    assert predictions["Ann Lee", "Bo Lee"].gold == predictions["Bo Lee", "Ann Lee"].gold == ("sibling",)
    micro = found.metrics["micro"]
    assert micro["tp"] + micro["fn"] == 2
    doc = nlp(reference.text)
    facts = {(str(fact.head), fact.label, str(fact.tail)) for fact in doc._.facts}
    assert micro["tp"] + micro["fp"] == len(facts)
    assert micro["tp"] == len(facts & {("Ann Lee", "sibling", "Bo Lee")})


def interrupt(docs: int) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_run_is_resumed(
    pipeline: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "BATCH_PAIRS", 4)
    whole = evaluate(pipeline, corpus, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluate(pipeline, corpus, tmp_path / "run", progress=interrupt)
    assert not (tmp_path / "run").exists()
    with pytest.raises(EvaluationError, match="no complete evaluation run"):
        find_runs([tmp_path / "run.part"])
    # A half-written line is discarded.
    with (tmp_path / "run.part" / "predictions.jsonl").open("a") as file:
        file.write('{"id": "half')
    with pytest.raises(OutputError, match="interrupted run with different top"):
        evaluate(pipeline, corpus, tmp_path / "run", top=1)
    messages: list[str] = []
    resumed = evaluate(pipeline, corpus, tmp_path / "run", log=messages.append)
    assert "Resuming after" in messages[0]
    assert [one.id for one in resumed.predictions()] == [one.id for one in whole.predictions()]
    assert resumed.metrics["micro"] == whole.metrics["micro"]
    assert not (tmp_path / "run.part").exists()
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"run.json", "metrics.json", "predictions.jsonl"}


def test_damaged_partial_results_are_not_used(
    pipeline: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "BATCH_PAIRS", 4)
    with pytest.raises(KeyboardInterrupt):
        evaluate(pipeline, corpus, tmp_path / "run", progress=interrupt)
    (tmp_path / "run.part" / "predictions.jsonl").write_text("")
    with pytest.raises(EvaluationError, match=r"has only 0 of \d+ recorded predictions"):
        evaluate(pipeline, corpus, tmp_path / "run")


def test_a_folder_that_is_not_a_run_is_never_replaced(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    notes = tmp_path / "runs" / "pipeline-demo-test" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("years")
    message = run("evaluate", pipeline, corpus, "-o", tmp_path / "runs", "--overwrite", code=1)
    assert "was not created by this command" in message and notes.read_text() == "years"


def test_a_run_is_reused_only_for_the_same_pipeline_corpus_and_settings(
    pipeline: Path, corpus: Path, tmp_path: Path
) -> None:
    output = ("-o", tmp_path / "runs")
    run("evaluate", pipeline, corpus, *output)
    assert "different top" in run("evaluate", pipeline, corpus, *output, "--top", 1, code=1)
    nlp = spacy.load(pipeline)
    nlp.get_pipe("slm_relations").threshold = 0.9
    nlp.to_disk(pipeline)
    assert "different pipeline" in run("evaluate", pipeline, corpus, *output, code=1)
    # A copy of a pipeline is the same pipeline.
    shutil.copytree(pipeline, tmp_path / "copy" / "pipeline")
    file = tmp_path / "runs" / "pipeline-demo-test" / "run.json"
    stamp = file.stat().st_mtime_ns
    run("evaluate", pipeline, corpus, *output, "--overwrite")
    again = file.stat().st_mtime_ns
    assert "already complete" in run("evaluate", tmp_path / "copy" / "pipeline", corpus, *output)
    assert file.stat().st_mtime_ns == again != stamp


def test_different_pipelines_have_their_own_runs_and_rows(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    nlp = spacy.load(pipeline)
    nlp.get_pipe("slm_relations").threshold = 0.9
    for name in ("other", "a/model-best", "b/model-best"):
        (tmp_path / name).mkdir(parents=True)
        nlp.to_disk(tmp_path / name)
    runs = tmp_path / "runs"
    for name in ("pipeline", "other", "a/model-best", "b/model-best"):
        run("evaluate", tmp_path / name, corpus, "-o", runs)
    found, notes = find_runs([runs])
    names = ["a-model-best", "b-model-best", "other", "pipeline"]
    assert [one.folder.relative_to(runs) for one in found] == [
        Path(f"{name}-demo-test") for name in names
    ] and not notes
    assert sorted(one.name for one in make_results(found)) == names
    assert {one.info["model"] for one in found} == {read_run(runs / "other-demo-test").info["model"]}


def test_no_number_is_cut_in_a_narrow_terminal(
    pipeline: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", 80)
    docs = list(read_docs(corpus, spacy.blank("en").vocab))
    with DocBinWriter(tmp_path / "a_second_corpus_with_a_long_name.spacy") as writer:
        for doc in docs:
            doc.user_data = {key: value for key, value in doc.user_data.items() if key not in (FORMAT, SPLIT)}
            writer.add(doc)
    second = tmp_path / "a_second_corpus_with_a_long_name.spacy"
    shown = run("evaluate", pipeline, corpus, second, "-o", tmp_path / "runs", "--name", "a system with a long name")
    assert "…" not in shown and "precision recall micro-F1 95 % macro-F1 pairs/s" in shown
    for found in find_runs([tmp_path / "runs"])[0]:
        interval = found.metrics["interval"]
        assert f"{found.metrics['micro']['f']:.3f} {interval['low']:.3f}-{interval['high']:.3f}" in shown


def test_changed_runs_can_be_replaced_and_unchanged_ones_kept(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    first = evaluate(pipeline, corpus, tmp_path / "run", overwrite_changed=True)
    messages: list[str] = []
    evaluate(pipeline, corpus, tmp_path / "run", overwrite_changed=True, log=messages.append)
    assert "already complete" in messages[0]
    changed = evaluate(pipeline, corpus, tmp_path / "run", top=1, overwrite_changed=True)
    assert (first.info["key"]["top"], changed.info["key"]["top"]) == (3, 1)
    # So are the partial results of another run.
    with pytest.raises(KeyboardInterrupt):
        evaluate(pipeline, corpus, tmp_path / "run", top=2, overwrite_changed=True, progress=interrupt)
    again = evaluate(pipeline, corpus, tmp_path / "run", top=3, overwrite_changed=True)
    assert again.info["key"]["top"] == 3 and not (tmp_path / "run.part").exists()


def test_corpora_of_the_same_name_are_refused(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert "is named more than once" in run("evaluate", pipeline, corpus, corpus, "-o", runs, code=1)
    assert "There is no corpus at" in run("evaluate", pipeline, corpus, tmp_path / "none.spacy", "-o", runs, code=1)
    assert not runs.exists()
    (tmp_path / "other").mkdir()
    copy = shutil.copy(corpus, tmp_path / "other")
    assert "Two corpora have the same run folder" in run("evaluate", pipeline, corpus, copy, "-o", runs, code=1)
    # Users' own corpora are named after their folders.
    nlp = spacy.blank("en")
    for name in ("a", "b"):
        doc = nlp("Ann met Bo.")
        doc.set_ents([spacy.tokens.Span(doc, place, place + 1, label="PERSON") for place in (0, 2)])
        doc._.relations = [(doc[0:1], doc[2:3], name)]
        with DocBinWriter(tmp_path / name / "test.spacy") as writer:
            writer.add(doc)
    run("evaluate", pipeline, *(tmp_path / name / "test.spacy" for name in "ab"), "-o", tmp_path / "runs")
    for name in ("a", "b"):
        found = read_run(tmp_path / "runs" / f"pipeline-{name}-test")
        assert found.info["corpus"] == name and found.info["split"] == "test"


def test_a_split_that_is_the_name_of_the_corpus_is_not_repeated(pipeline: Path, tmp_path: Path) -> None:
    table = tmp_path / "tiny.csv"
    table.write_text("text,entity1,entity2,relation\nAnn met Bo.,Ann,Bo,met\nAnn saw Bo.,Ann,Bo,saw\n")
    run("convert", table, "-o", tmp_path / "tiny.spacy")
    run("evaluate", pipeline, tmp_path / "tiny.spacy", "-o", tmp_path / "runs")
    assert read_run(tmp_path / "runs" / "pipeline-tiny").title == "tiny"


def test_repeated_document_ids_are_refused(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    docs = list(read_docs(corpus, spacy.blank("en").vocab))
    with DocBinWriter(tmp_path / "twice.spacy") as writer:
        for doc in (*docs, docs[0]):
            writer.add(doc)
    assert "1 document ids more than once" in run("evaluate", pipeline, tmp_path / "twice.spacy", code=1)


def test_a_limit_counts_relations_where_no_pairs_are_annotated(tmp_path: Path) -> None:
    install_extensions()
    nlp = spacy.blank("en")
    with DocBinWriter(tmp_path / "own.spacy") as writer:
        for _ in range(5):
            doc = nlp("Ann met Bo.")
            doc._.relations = [(doc[0:1], doc[2:3], "met")]
            writer.add(doc)
    assert len(read_gold(tmp_path / "own.spacy", limit=2).examples) == 2


def test_free_generation_without_the_label_list(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    options = ("--decoding", "generated", "--prompt", "generic", "--max-new-tokens", 3, "--name", "tiny")
    run("evaluate", pipeline, corpus, "-o", tmp_path, *options)
    found = read_run(tmp_path / "tiny-demo-test")
    assert found.info["prompt"] == "generic" and found.info["decoding"] == "generated"
    assert found.info["system"] == "tiny"
    predictions = list(found.predictions())
    # A random model writes no label; its answers are kept and count as wrong.
    assert all(one.answer is not None and one.score is None for one in predictions)
    assert found.metrics["out_of_schema"] == sum(one.predicted is not None for one in predictions) > 0
    assert found.metrics["calibration"] is None


def test_proposed_pairs_are_added_to_annotated_ones(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    run("evaluate", pipeline, corpus, "-o", tmp_path / "given")
    run("evaluate", pipeline, corpus, "-o", tmp_path / "proposed", "--pairs", "proposed")
    given, proposed = (read_run(tmp_path / name / "pipeline-demo-test") for name in ("given", "proposed"))
    assert {one.id for one in given.predictions()} <= {one.id for one in proposed.predictions()}
    golds = [[label for one in found.predictions() for label in one.gold] for found in (given, proposed)]
    assert golds[0] == golds[1]


def test_labels_unknown_to_the_pipeline_are_reported(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    shown = run("evaluate", pipeline, corpus, "-o", tmp_path, "--labels", "pipeline")
    assert "are not in the label set" in shown and "recall is at most" in shown


def test_answers_of_another_program_are_scored(corpus: Path, tmp_path: Path) -> None:
    run("evaluate", corpus, "--write-pairs", tmp_path / "questions.jsonl")
    questions = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert all("gold" not in one and "no_relation" in one["labels"] for one in questions)
    found = read_gold(corpus)
    gold = {pair.id: pair.gold for pair in found.pairs(found.schema)}
    answers = tmp_path / "answers.jsonl"
    lines = [
        {"id": one["id"], "answer": f' "{" ".join((*gold[one["id"]], "no_relation")[0].split("_"))}"\nsure'}
        for one in questions
    ]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run("evaluate", answers, corpus, "-o", tmp_path / "runs", "--name", "oracle")
    found = read_run(tmp_path / "runs" / "oracle-demo-test")
    assert found.metrics["micro"]["f"] == 1.0 and found.info["kind"] == "external"
    # The same as a table, with one answer that is not a label.
    table = tmp_path / "answers.csv"
    rows = [f"{one['id']},{(*gold[one['id']], '')[0]},0.9" for one in questions]
    rows[0] = rows[0].replace(",", ",some nonsense,", 1).rpartition(",")[0].rpartition(",")[0] + ",0.5"
    table.write_text("id,label,score\n" + "\n".join(rows))
    run("evaluate", table, corpus, "-o", tmp_path / "runs", "--overwrite")
    found = read_run(tmp_path / "runs" / "answers-demo-test")
    assert found.metrics["out_of_schema"] == 1 and found.metrics["calibration"] is not None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"id": "elsewhere/0", "answer": "born_in"}', "for pairs that are not in"),
        ('{"id": "x", "answer": "a"}\n{"id": "x", "answer": "b"}', 'the id "x" is repeated'),
        ('{"id": "x"}', 'expected "id" and "answer"'),
        ('{"id": "x", "answer": "a", "score": "high"}', 'the score "high" is not a probability'),
        ('{"id": "x", "answer": "a", "score": 2}', 'the score "2" is not a probability'),
        ("not json", "answers.jsonl:1: "),
        ("", "answers.jsonl:1: "),
    ],
)
def test_invalid_answers_are_refused(corpus: Path, tmp_path: Path, lines: str, message: str) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(lines)
    assert message in run("evaluate", answers, corpus, "-o", tmp_path / "runs", code=1)
    assert not (tmp_path / "runs" / "answers-demo-test").exists()


def test_answers_do_not_replace_another_run(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    run("evaluate", corpus, "--write-pairs", tmp_path / "pairs.jsonl")
    answers, runs = tmp_path / "answers.jsonl", tmp_path / "runs"
    ids = [json.loads(line)["id"] for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]

    def write(answer: str) -> None:
        answers.write_text("".join(json.dumps({"id": name, "answer": answer}) + "\n" for name in ids))

    write("\ud83d")
    with pytest.raises(KeyboardInterrupt):
        evaluate(pipeline, corpus, runs / "answers-demo-test", progress=interrupt)
    partial = (runs / "answers-demo-test.part" / "predictions.jsonl").read_bytes()
    assert "is an interrupted run with different" in run("evaluate", answers, corpus, "-o", runs, code=1)
    assert (runs / "answers-demo-test.part" / "predictions.jsonl").read_bytes() == partial
    run("evaluate", answers, corpus, "-o", runs, "--overwrite")
    # Half a character is replaced.
    assert next(read_run(runs / "answers-demo-test").predictions()).answer == "\ufffd"
    write("x")
    assert "different answers" in run("evaluate", answers, corpus, "-o", runs, code=1)


def test_options_without_effect_are_refused(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text("{}")
    assert "--top needs a pipeline" in run("evaluate", answers, corpus, "--top", 2, code=1)
    assert "--allow-missing needs" in run("evaluate", pipeline, corpus, "--allow-missing", code=1)
    pairs = ("--write-pairs", tmp_path / "pairs.jsonl")
    assert "--output has no effect" in run("evaluate", corpus, *pairs, "-o", tmp_path / "runs", code=1)


def test_written_pairs_replace_a_file_only_with_overwrite_and_never_the_corpus(corpus: Path, tmp_path: Path) -> None:
    pairs, before = tmp_path / "pairs.jsonl", corpus.read_bytes()
    pairs.write_text("mine")
    assert "already exists" in run("evaluate", corpus, "--write-pairs", pairs, code=1)
    assert "would replace the input" in run("evaluate", corpus, "--write-pairs", corpus, "-F", code=1)
    assert pairs.read_text() == "mine" and corpus.read_bytes() == before
    run("evaluate", corpus, "--write-pairs", pairs, "-F")
    assert json.loads(pairs.read_text().splitlines()[0])["id"]


def test_a_label_that_means_no_relation_is_the_negative_label(tmp_path: Path) -> None:
    install_extensions()
    nlp = spacy.blank("en")
    with DocBinWriter(tmp_path / "own.spacy") as writer:
        for label in ("met", "NA", "NA"):
            doc = nlp("Ann met Bo.")
            doc._.relation_pairs = [(doc[0:1], doc[2:3], label)]
            writer.add(doc)
    answers = [{"id": f"{number}/0", "answer": label} for number, label in enumerate(("met", "NA", "NA"))]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    run("evaluate", tmp_path / "answers.jsonl", tmp_path / "own.spacy", "-o", tmp_path / "runs")
    found = read_run(tmp_path / "runs" / "answers-own")
    assert found.metrics["micro"]["f"] == 1.0 and found.info["negative_label"] == "NA"


def test_a_cascade_is_described_by_both_models(
    corpus: Path, tmp_path: Path, blank: Callable[[], Language], tiny_encoder: Path, tiny_model: dict
) -> None:
    first = UniversalEncoder.from_base(UniversalEncoderSettings(device="cpu"), str(tiny_encoder))
    first.save(tmp_path / "weights", embed=False)
    encoder = {"@architectures": "spacy-slmre.UniversalEncoder.v1", "weights": str(tmp_path / "weights")}
    nlp = blank()
    model = {"@architectures": "spacy-slmre.Cascade.v1", "first": encoder, "second": tiny_model}
    nlp.add_pipe("slm_relations", config={"model": model})
    nlp.to_disk(tmp_path / "cascade")
    run("evaluate", tmp_path / "cascade", corpus, "-o", tmp_path / "runs")
    found = read_run(tmp_path / "runs" / "cascade-demo-test")
    assert found.info["kind"] == "cascade" and found.info["model"].startswith(f"{tiny_encoder} + ")
    assert found.info["params"] > sum(weight.numel() for weight in first.network.parameters())


def test_missing_answers_are_refused_unless_allowed(corpus: Path, tmp_path: Path) -> None:
    run("evaluate", corpus, "--write-pairs", tmp_path / "questions.jsonl")
    first = json.loads((tmp_path / "questions.jsonl").read_text().splitlines()[0])
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"id": first["id"], "answer": "other"}))
    assert "no answer for" in run("evaluate", answers, corpus, code=1)
    run("evaluate", answers, corpus, "--allow-missing", "-o", tmp_path / "runs")
    found = read_run(tmp_path / "runs" / "answers-demo-test")
    assert found.metrics["unanswered"] == found.info["pairs"] - 1


def test_bad_input_gets_one_clear_error(pipeline: Path, corpus: Path, tmp_path: Path) -> None:
    spacy.blank("en").to_disk(tmp_path / "empty")
    assert "no relation component, only: nothing" in run("evaluate", tmp_path / "empty", corpus, code=1)
    assert "neither an installed package nor a folder" in run("evaluate", "nope", corpus, code=1)
    assert "does not exist" in run("evaluate", tmp_path / "none.jsonl", corpus, code=1)
    assert "There is no corpus" in run("evaluate", pipeline, tmp_path / "none.spacy", code=1)
    assert 'decoding = "sampled", but it must be one of "scored", "generated"' in run(
        "evaluate", pipeline, corpus, "--decoding", "sampled", code=1
    )
    nlp = spacy.blank("en")
    for name, docs in (("none", []), ("bare", [nlp("Nothing here.")]), ("two", _two_benchmarks(nlp))):
        with DocBinWriter(tmp_path / f"{name}.spacy") as writer:
            for doc in docs:
                writer.add(doc)
    assert "has no annotated relations" in run("evaluate", pipeline, tmp_path / "none.spacy", code=1)
    assert "has no annotated relations" in run("evaluate", pipeline, tmp_path / "bare.spacy", code=1)
    assert "mixes several corpora (demo, gids)" in run("evaluate", pipeline, tmp_path / "two.spacy", code=1)


def _two_benchmarks(nlp: Language) -> list[Doc]:
    docs = []
    for benchmark in ("demo", "gids"):
        doc = nlp("Ann met Bo.")
        doc.user_data |= {FORMAT: benchmark, SPLIT: "test", ID: f"test-{benchmark}"}
        doc._.relation_pairs = [(doc[0:1], doc[2:3], "born_in")]
        docs.append(doc)
    return docs


def test_predictions_round_trip_through_json() -> None:
    one = Prediction("d/0", "d", "a\ud800b", (0, 1), (1, 2), "", "X", ("r",), None, 0.5, (("r", 0.5),))
    assert Prediction.from_json(one.to_json()) == one
    with pytest.raises(ValueError, match="not a prediction"):
        Prediction.from_json("{}")
