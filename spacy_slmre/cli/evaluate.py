"""`python -m spacy slmre evaluate`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_slmre.cli.app import CodeOption, GpuOption, OverwriteOption, refuse_options, slmre_cli
from spacy_slmre.cli.output import console, document_progress, log, show_errors

if TYPE_CHECKING:
    from rich.table import Table

    from spacy_slmre.evaluation.runs import EvaluationRun
    from spacy_slmre.evaluation.systems import EvaluationSettings

# Options that do not apply to the answers of another program.
_FOR_PIPELINES = (
    "component",
    "level",
    "pairs",
    "labels",
    "prompt",
    "decoding",
    "top",
    "max_labels_per_pair",
    "max_new_tokens",
    "code",
    "gpu_id",
)
LimitOption = Annotated[int, typer.Option(min=0, help="Read documents until they have this many pairs; 0 reads all.")]


@slmre_cli.command("evaluate")
@show_errors()
def evaluate_command(
    ctx: typer.Context,
    pipeline: Annotated[
        str,
        typer.Argument(
            help="Pipeline (folder, package or config), or a file with the predictions of another program "
            "(.csv, .tsv, .json or .jsonl with the columns id and answer)."
        ),
    ],
    corpora: Annotated[
        list[Path] | None, typer.Argument(help=".spacy files, or folders of them.", metavar="CORPUS…")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the runs: one subfolder per system and corpus.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="Name of the system in reports; by default, that of the pipeline's folder or package.")
    ] = "",
    component: Annotated[str | None, typer.Option(help="The relation component, if there are several.")] = None,
    level: Annotated[
        str,
        typer.Option(
            help="mentions (pairs of mentions), or facts: the facts that the component finds between its candidates "
            "are compared with the gold facts."
        ),
    ] = "mentions",
    pairs: Annotated[
        str, typer.Option(help="annotated: the corpus's annotated pairs; proposed: the component's candidates.")
    ] = "annotated",
    labels: Annotated[
        str,
        typer.Option(
            help="Label set to use: pipeline, corpus, or auto (the pipeline's, if it has configured labels; "
            "otherwise the corpus's)."
        ),
    ] = "auto",
    prompt: Annotated[
        str,
        typer.Option(help="Language models: own (as configured), schema (with a list of labels) or generic (without)."),
    ] = "own",
    decoding: Annotated[
        str, typer.Option(help="Language models: scored (label probabilities) or generated (free text).")
    ] = "scored",
    top: Annotated[int, typer.Option(min=1, help="Number of labels to store per pair.")] = 3,
    max_labels_per_pair: Annotated[
        int,
        typer.Option(
            min=1, help="Labels that a pair may have; 1 is the benchmark protocol, and more need a threshold."
        ),
    ] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of a generated answer.")] = 16,
    limit: LimitOption = 0,
    write_pairs: Annotated[
        Path | None,
        typer.Option(
            help="Instead of evaluating, write the unlabeled pairs of a corpus to this .jsonl file for another "
            "program. Give the corpus as the only argument."
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Count pairs that the other program did not answer as unanswered.")
    ] = False,
    code: CodeOption = None,
    gpu_id: GpuOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Score relations on gold entities.

    The main score is positive-class micro-F1 over pairs. Each run is a folder with predictions, metrics, timing and
    environment; slmre report shows them. Repeat the command to resume an interrupted run. Use spacy evaluate for
    end-to-end scores on raw text.
    """
    from spacy_slmre.corpus.docbin import corpus_files
    from spacy_slmre.evaluation.evaluate import evaluate_answers
    from spacy_slmre.evaluation.external import SUFFIXES
    from spacy_slmre.evaluation.external import write_pairs as write
    from spacy_slmre.evaluation.gold import read_gold
    from spacy_slmre.evaluation.systems import EvaluationSettings
    from spacy_slmre.util.run_folder import reserve

    if write_pairs is not None:
        if corpora:
            raise ValueError("--write-pairs needs one corpus and no pipeline.")
        refuse_options(ctx, [*_FOR_PIPELINES, "output", "name", "allow_missing"], "has no effect with --write-pairs.")
        with reserve(write_pairs, inputs=[pipeline], overwrite=overwrite):
            count = write(read_gold(Path(pipeline), limit=limit), write_pairs)
        log(f"{count:,} pairs → {write_pairs}")
        return
    if not corpora:
        raise ValueError("Give at least one corpus to evaluate on.")
    system = name or _system_name(pipeline)
    settings = EvaluationSettings(
        name=system,
        component=component,
        level=level,
        pairs=pairs,
        labels=labels,
        prompt=prompt,
        decoding=decoding,
        top=top,
        max_labels_per_pair=max_labels_per_pair,
        max_new_tokens=max_new_tokens,
        limit=limit,
    )
    answers = Path(pipeline) if Path(pipeline).suffix in SUFFIXES else None
    if answers is None:
        refuse_options(ctx, ["allow_missing"], "needs a file with the answers of another program.")
    else:
        refuse_options(ctx, _FOR_PIPELINES, "needs a pipeline: answers of another program are scored as they are.")
        if not answers.is_file():
            raise ValueError(f"The file {answers} does not exist.")
    if output is not None and output.is_file():
        raise ValueError(f"{output} is a file, but --output must be a folder for the runs.")
    for path in corpora:  # before the first is evaluated, which may take long
        corpus_files(path)
        if [other.resolve() for other in corpora].count(path.resolve()) > 1:
            raise ValueError(f"The corpus {path} is named more than once.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = output or Path(temporary)
        runs: list[EvaluationRun] = []
        for path in corpora:
            if answers is None:
                run = evaluate_on(
                    pipeline, path, folder, settings, code=code, gpu_id=gpu_id, overwrite=overwrite, runs=runs
                )
            else:
                gold = read_gold(path, limit=limit)
                target = _run_folder(folder, system, gold.run_name, path, runs)
                run = evaluate_answers(
                    answers, gold, target, name=name, allow_missing=allow_missing, overwrite=overwrite, log=log
                )
            runs.append(run)
            _show_labels(run)
        if len(runs) > 1:
            show_runs(runs)
        if output is not None:
            log(f"Runs: {', '.join(str(run.folder) for run in runs)}")


def evaluate_on(
    pipeline: str,
    corpus: Path,
    folder: Path,
    settings: EvaluationSettings,
    *,
    code: Path | None = None,
    gpu_id: int | None = None,
    overwrite: bool = False,
    overwrite_changed: bool = False,
    runs: list[EvaluationRun] | None = None,
) -> EvaluationRun:
    """Load a pipeline and evaluate it on a corpus, with a progress bar.

    The run becomes a subfolder of `folder` that is named after the corpus and, if `settings` name it, the system; the
    folders of other `runs` are refused. For the other arguments, see `load_pipeline` and `evaluate_corpus`.
    """
    from spacy_slmre.evaluation.evaluate import FACTS_SUFFIX, evaluate_corpus
    from spacy_slmre.evaluation.gold import read_gold
    from spacy_slmre.extraction.pipelines import load_pipeline

    # Loaded once per corpus, because the evaluation changes its labels and prompt to those of the corpus.
    nlp = load_pipeline(pipeline, code=code, gpu_id=gpu_id)
    gold = read_gold(corpus, nlp, settings.limit)
    name = gold.run_name + (FACTS_SUFFIX if settings.level == "facts" else "")
    target = _run_folder(folder, settings.name, name, corpus, runs or [])
    with document_progress(len(gold.examples)) as update:
        return evaluate_corpus(
            nlp,
            pipeline,
            gold,
            target,
            settings,
            overwrite=overwrite,
            overwrite_changed=overwrite_changed,
            progress=lambda docs: update(advance=docs),
            log=log,
        )


def _system_name(pipeline: str) -> str:
    """Return the name of a pipeline's folder or package, with the parent of spaCy's `model-best` and `model-last`."""
    path = Path(pipeline).resolve()
    name = path.stem if path.is_file() else path.name
    return f"{path.parent.name}-{name}" if name in ("model-best", "model-last") else name


def _run_folder(folder: Path, system: str, name: str, corpus: Path, runs: list[EvaluationRun]) -> Path:
    if system:  # not all of its characters are allowed in the name of a folder
        name = re.sub(r"[^\w.-]+", "-", f"{system}-{name}")
    if folder / name in [run.folder for run in runs]:
        raise ValueError(
            f"Two corpora have the same run folder {folder / name}; the second is {corpus}. "
            "Evaluate it with another --output."
        )
    return folder / name


def _show_labels(run: EvaluationRun) -> None:
    """Print a run's scores by label, and its speed."""
    metrics, info = run.metrics, run.info
    table = _score_table("label", "pairs", "precision", "recall", "F1")
    table.title = f"{info['system']}: {run.title}"
    for label, scores in metrics["per_label"].items():
        table.add_row(label, f"{scores['gold']:,}", *(f"{scores[key]:.3f}" for key in "prf"))
    interval = metrics["interval"]
    table.add_row("all (micro)", "", *(f"{metrics['micro'][key]:.3f}" for key in "prf"), style="bold")
    console.print(table)
    log(
        f"micro-F1 {metrics['micro']['f']:.3f} (95 %: {interval['low']:.3f} to {interval['high']:.3f}), "
        f"macro-F1 {metrics['macro_f']:.3f}, {metrics['out_of_schema']:,} out-of-schema answers, "
        f"{metrics['unanswered']:,} pairs unanswered"
    )
    if metrics["official_macro_f"] is not None:
        log(f"official macro-F1 {metrics['official_macro_f']:.3f}")
    if seconds := info["seconds"]:
        tokens = f", {info['tokens'] / seconds:,.0f} prompt tokens/s" if info["tokens"] else ""
        log(
            f"{info['pairs']:,} pairs in {seconds:.1f} s: {info['pairs'] / seconds:.0f} pairs/s{tokens}, "
            f"peak memory {info['peak_memory_gb']:.1f} GB"
        )


def show_runs(runs: list[EvaluationRun]) -> None:
    """Print one row per run."""
    table = _score_table("run", "pairs", "precision", "recall", "micro-F1", "95 %", "macro-F1", "pairs/s")
    table.box, table.pad_edge = None, False  # so that all columns fit into 80 characters
    for run in runs:
        interval, seconds = run.metrics["interval"], run.info["seconds"]
        table.add_row(
            f"{run.info['system']}: {run.title}",
            f"{run.info['pairs']:,}",
            *(f"{run.metrics['micro'][key]:.3f}" for key in "prf"),
            f"{interval['low']:.3f}-{interval['high']:.3f}",
            f"{run.metrics['macro_f']:.3f}",
            f"{run.info['pairs'] / seconds:.0f}" if seconds else "",
        )
    console.print(table)


def _score_table(name: str, *numbers: str) -> Table:
    """Return a table in which names are wrapped if the terminal is narrow, but no number is cut."""
    from rich.table import Table

    table = Table()
    table.add_column(name, overflow="fold")
    for header in numbers:
        table.add_column(header, justify="right", no_wrap=True)
    return table
