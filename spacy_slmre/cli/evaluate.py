"""`python -m spacy slmre evaluate`, `evaluate-tuned` and `questions`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import console, document_progress, log, show_errors

if TYPE_CHECKING:
    from spacy_slmre.evaluation.evaluate import GoldCorpus
    from spacy_slmre.evaluation.runs import EvaluationRun
    from spacy_slmre.evaluation.systems import EvaluationSettings

Limit = Annotated[
    int, typer.Option(min=0, help="Read documents until they have this many pairs; 0 reads all.")
]


@slmre_cli.command("evaluate")
@show_errors()
def evaluate_command(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="Folder or package of a pipeline; or predictions made elsewhere (.jsonl, .csv, .tsv with id "
            "and answer)."
        ),
    ],
    corpora: Annotated[
        list[Path], typer.Argument(help=".spacy files, or folders of them.", metavar="CORPUS…")
    ],
    mixture: Annotated[
        Path | None,
        typer.Option(
            help="CORPUS is a folder of converted benchmarks: evaluate on the test splits of those of a "
            "mixture (configs/mixtures/*.cfg) that are there."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the runs, one folder for each corpus in it."),
    ] = None,
    name: Annotated[str, typer.Option(help="What the system is called in reports.")] = "",
    component: Annotated[
        str | None, typer.Option(help="The relation component, where there are several.")
    ] = None,
    pairs: Annotated[
        str,
        typer.Option(
            help="annotated: the pairs that the corpus annotates; proposed: the component's candidates."
        ),
    ] = "annotated",
    labels: Annotated[
        str,
        typer.Option(
            help="Ask for the labels of the pipeline or of the benchmark. auto: those of the benchmark if a "
            "language model is tied to none of its own."
        ),
    ] = "auto",
    prompt: Annotated[
        str,
        typer.Option(
            help="Language models: own, or schema (the labels are listed), or generic (they are not)."
        ),
    ] = "own",
    decoding: Annotated[
        str,
        typer.Option(help="Language models: scored over the labels, or generated freely, as the study does."),
    ] = "scored",
    top: Annotated[int, typer.Option(min=1, help="How many labels of each pair are written.")] = 3,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a generated answer.")] = 16,
    limit: Limit = 0,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Predictions made elsewhere may lack pairs.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Evaluate again what is evaluated.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an interrupted run has left.")
    ] = False,
) -> None:
    """Score relations on gold entities, pair by pair, by the rules of the study (positive-class micro-F1).

    Each run is a folder with predictions, metrics, timing and environment, which `slmre report` shows; an
    interrupted run goes on with the same command. From raw text on: spacy evaluate.
    """
    import tempfile

    from spacy_slmre.evaluation.external import SUFFIXES, evaluate_answers
    from spacy_slmre.evaluation.systems import EvaluationSettings

    settings = EvaluationSettings(
        name=name,
        component=component,
        pairs=pairs,
        labels=labels,
        prompt=prompt,
        decoding=decoding,
        top=top,
        max_new_tokens=max_new_tokens,
        limit=limit,
    )
    given = Path(pipeline)
    external = given.suffix in SUFFIXES
    if external and not given.is_file():
        raise ValueError(f"There is no file {given} with predictions.")
    with tempfile.TemporaryDirectory() as unnamed:
        folder = output or Path(unnamed)
        if folder.is_file():
            raise ValueError(f"{folder} is a file: --output names a folder for the runs.")
        runs: list[EvaluationRun] = []
        made: set[Path] = set()
        for path in corpora if mixture is None else _test_splits(mixture, corpora):
            if external:
                corpus = _read(path, None, limit)
                run = evaluate_answers(
                    given,
                    corpus,
                    _own_folder(folder, corpus, made),
                    name=name,
                    allow_missing=allow_missing,
                    overwrite=overwrite,
                    say=log,
                )
            else:
                run = evaluate_corpus(
                    pipeline, path, folder, settings, overwrite=overwrite, restart=restart, made=made
                )
            runs.append(run)
            _show(run)
        if len(runs) > 1:
            show_all(runs)
        if output is not None:
            log(f"Runs: {', '.join(str(run.folder) for run in runs)}")


@slmre_cli.command("questions")
@show_errors()
def questions_command(
    corpus: Annotated[Path, typer.Argument(help="A .spacy file, or a folder of them.")],
    output: Annotated[Path, typer.Argument(help="The file to write (.jsonl).")],
    limit: Limit = 0,
) -> None:
    """Write the pairs of a corpus without their labels, for another program to answer.

    Each line has id, text, head and tail (character offsets and words), and the labels to choose from; give
    the answers, with the ids, to `slmre evaluate ANSWERS.jsonl CORPUS`.
    """
    import json

    from spacy_slmre.evaluation.evaluate import ask
    from spacy_slmre.evaluation.external import schema_of
    from spacy_slmre.util.io import atomic_write

    gold = _read(corpus, None, limit)
    schema = schema_of(gold)
    lines = []
    for number, example in enumerate(gold.examples):
        for question in ask(example, number, schema):
            instance = question.instance
            sides = {
                side: {"start": one.start, "end": one.end, "text": instance.text_of(one), "type": one.type}
                for side, one in (("head", instance.head_mention), ("tail", instance.tail_mention))
            }
            line = {"id": question.id, "text": instance.context.text, **sides, "labels": schema.names}
            lines.append(json.dumps(line, ensure_ascii=False))
    atomic_write(output, "".join(f"{line}\n" for line in lines))
    log(f"{len(lines):,} questions: {output}")


@slmre_cli.command("evaluate-tuned")
@show_errors()
def evaluate_tuned_command(
    corpora: Annotated[Path, typer.Argument(help="Folder of converted benchmarks.")],
    tuned: Annotated[
        list[Path],
        typer.Argument(
            help="Pipelines that tune wrote, or folders of them, as grid has it.", metavar="TUNED…"
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the runs.")],
    prompt: Annotated[str, typer.Option(help="As in slmre evaluate.")] = "own",
    decoding: Annotated[str, typer.Option(help="As in slmre evaluate.")] = "scored",
    limit: Limit = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Evaluate again what is evaluated.")] = False,
) -> None:
    """Score tuned models on the test splits of what each was tuned on, as far as they are there.

    What is done already is left alone, unless the model was tuned anew since. A model that fails does not
    stop the others.
    """
    import json

    from spacy_slmre.evaluation.systems import EvaluationSettings
    from spacy_slmre.training.tune import CONFIG_FILE
    from spacy_slmre.util.run_folder import RUN_FILE

    settings = EvaluationSettings(prompt=prompt, decoding=decoding, limit=limit)
    folders = [
        file.parent
        for path in tuned
        for file in sorted([path / CONFIG_FILE, *path.glob(f"*/{CONFIG_FILE}")])
        if file.exists() and not file.parent.name.endswith(".part")
    ]
    if not folders:
        raise ValueError(
            f"There is no tuned pipeline in {', '.join(map(str, tuned))}. Make one with: python -m spacy "
            "slmre tune"
        )
    runs, failed = [], []
    for folder in folders:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        for benchmark in record["key"]["data"]:
            path = corpora / benchmark / "test.spacy"
            if not path.exists():
                log(f"{folder.name}: left out {benchmark}, which has no test split in {corpora}.")
                continue
            log(f"{folder.name} on {benchmark}")
            try:
                target = output / folder.name
                runs.append(
                    evaluate_corpus(str(folder), path, target, settings, overwrite=overwrite, renew=True)
                )
            except Exception as error:  # hours of the others' work are worth more than a clean stop
                failed.append(f"{folder.name} on {benchmark}: {error}")
                log(failed[-1])
    show_all(runs)
    if failed:
        raise ValueError(f"{len(failed)} evaluations failed; the others are in {output}.")
    if not runs:
        raise ValueError(f"Nothing was evaluated: {corpora} has no test split of what was tuned on.")


def _test_splits(mixture: Path, corpora: list[Path]) -> list[Path]:
    from spacy_slmre.study.mixtures import converted_benchmarks

    if len(corpora) != 1:
        raise ValueError("--mixture needs one folder of converted benchmarks.")
    there, missing = converted_benchmarks(mixture, corpora[0])
    paths = {name: corpora[0] / name / "test.spacy" for name in there}
    if missing := missing + [name for name, path in paths.items() if not path.exists()]:
        log(f"Without a converted test split, and left out: {', '.join(missing)}")
    if not (found := [path for path in paths.values() if path.exists()]):
        raise ValueError(f"{corpora[0]} has no converted test split of {mixture}.")
    return found


def _own_folder(folder: Path, corpus: GoldCorpus, made: set[Path]) -> Path:
    """The folder of a corpus's run, which no other corpus of this command may have."""
    own = folder / corpus.run_name
    if own in made:
        raise ValueError(
            f"Two of the corpora would have their run in {own}, the second is {corpus.path}. Evaluate it "
            "with another --output."
        )
    made.add(own)
    return own


def _read(path: Path, nlp: Any, limit: int) -> GoldCorpus:
    from spacy_slmre.evaluation.evaluate import read_gold

    return read_gold(path, nlp, limit)


def evaluate_corpus(
    pipeline: str,
    path: Path,
    folder: Path,
    settings: EvaluationSettings,
    *,
    overwrite: bool = False,
    restart: bool = False,
    renew: bool = False,
    made: set[Path] | None = None,
) -> EvaluationRun:
    """Evaluate a pipeline on one corpus, with a progress bar; the run is a folder in `folder`.

    Args:
        pipeline: Folder or name.
        path: The corpus.
        folder: Folder for runs.
        settings: How to ask.
        overwrite: Evaluate again what is there.
        restart: Throw away what an interrupted run has left.
        renew: Evaluate again what is there of another state of the pipeline or the corpus.
        made: Folders of runs that this command has made so far, with this one afterwards.
    """
    # Loaded anew for every corpus: its labels and its prompt become those of the corpus.
    from spacy_slmre.cli.pipelines import load_pipeline
    from spacy_slmre.evaluation.evaluate import evaluate_pipeline

    nlp = load_pipeline(pipeline)
    corpus = _read(path, nlp, settings.limit)
    with document_progress(len(corpus.examples)) as progress:
        return evaluate_pipeline(
            nlp,
            pipeline,
            corpus,
            _own_folder(folder, corpus, set() if made is None else made),
            settings,
            overwrite=overwrite,
            restart=restart,
            renew=renew,
            progress=lambda docs: progress(advance=docs),
            say=log,
        )


def _show(run: EvaluationRun) -> None:
    from rich.table import Table

    metrics, info = run.metrics, run.info
    table = Table("label", "pairs", "precision", "recall", "F1", title=f"{info['system']}: {run.folder.name}")
    for label, scores in metrics["per_label"].items():
        table.add_row(label, f"{scores['gold']:,}", *(f"{scores[key]:.3f}" for key in "prf"))
    interval = metrics["interval"]
    table.add_row("all (micro)", "", *(f"{metrics['micro'][key]:.3f}" for key in "prf"), style="bold")
    console.print(table)
    log(
        f"micro-F1 {metrics['micro']['f']:.3f} ({interval['low']:.3f} to {interval['high']:.3f}, 95 %), "
        f"macro-F1 {metrics['macro_f']:.3f}, {metrics['out_of_schema']:,} answers out of schema, "
        f"{metrics['unanswered']:,} pairs unanswered"
    )
    if metrics["official_macro_f"] is not None:
        log(f"official macro-F1 {metrics['official_macro_f']:.3f}")
    if seconds := info["seconds"]:
        tokens = f", {info['tokens'] / seconds:,.0f} prompt tokens/s" if info["tokens"] else ""
        log(
            f"{info['pairs']:,} pairs in {seconds:.1f} s: {info['pairs'] / seconds:.0f} pairs/s{tokens}, "
            f"{info['peak_memory_gb']:.1f} GB at most"
        )


def show_all(runs: list[EvaluationRun]) -> None:
    """Print a line for each run."""
    from rich.table import Table

    table = Table("corpus", "pairs", "precision", "recall", "micro-F1", "95 %", "macro-F1", "pairs/s")
    for run in runs:
        interval, seconds = run.metrics["interval"], run.info["seconds"]
        table.add_row(
            run.folder.name,
            f"{run.info['pairs']:,}",
            *(f"{run.metrics['micro'][key]:.3f}" for key in "prf"),
            f"{interval['low']:.3f}-{interval['high']:.3f}",
            f"{run.metrics['macro_f']:.3f}",
            f"{run.info['pairs'] / seconds:.0f}" if seconds else "",
        )
    console.print(table)
