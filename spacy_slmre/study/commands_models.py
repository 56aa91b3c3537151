"""Study commands for models: pretrain, train-classifiers, grid, evaluate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_slmre.cli.app import OverwriteOption
from spacy_slmre.cli.evaluate import LimitOption
from spacy_slmre.cli.output import console, log, show_errors, standard_input
from spacy_slmre.study.commands_data import BenchmarkOption

if TYPE_CHECKING:
    from spacy_slmre.study.grid import GridRun

CorporaArgument = Annotated[Path, typer.Argument(help="Folder of converted benchmarks.")]
MixtureOption = Annotated[
    Path | None, typer.Option("--mixture", help="The converted benchmarks of a mixture (configs/mixtures/*.cfg).")
]


@show_errors()
def pretrain_command(
    config: Annotated[Path, typer.Argument(help="Base model and training settings; see configs/pretrain.")],
    texts: Annotated[
        list[str], typer.Argument(help="Files or folders (.txt, .jsonl, .parquet, .spacy), or - for standard input.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write: a base model for tune.")],
    format: Annotated[
        str | None, typer.Option("--format", help="Format of the texts: txt, lines, jsonl, parquet or spacy.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field with the text in JSONL and Parquet.")] = "text",
    overwrite: OverwriteOption = False,
) -> None:
    """Continue pretraining a base model on raw text from a domain, as a better starting point for tuning.

    Settings of the config can be overridden: --training.max_steps 1000. Repeat the command to resume an interrupted
    run. At the end, perplexity on held-out text is reported. The output is a base model: slmre tune CONFIG
    --model.base OUTPUT
    """
    from spacy.cli._util import parse_config_overrides

    from spacy_slmre.extraction.inputs import find_inputs
    from spacy_slmre.study.pretraining import read_config, run_pretraining

    texts, overrides = _split_overrides(texts)
    model, settings = read_config(config, parse_config_overrides(overrides))
    files = find_inputs(texts, format, output, log=log)
    documents = _read_texts(files, text_field)
    sources = [path for path, _ in files]
    metrics = run_pretraining(documents, output, model, settings, inputs=sources, overwrite=overwrite, log=log)
    before, after = metrics["perplexity_before"], metrics["perplexity_after"]
    log(f"Perplexity on held-out text: {before:.2f} before, {after:.2f} after {metrics['steps']} steps.")
    log(f"Pretrained in {metrics['seconds']:.0f} s → {output}")


def _split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    # A variadic argument also receives unknown options and their values; as in spaCy, one without a value is a flag.
    texts: list[str] = []
    overrides: list[str] = []
    is_value = False
    for argument in arguments:
        is_option = argument.startswith("--")
        (overrides if is_option or is_value else texts).append(argument)
        is_value = is_option and "=" not in argument
    return texts, overrides


def _read_texts(inputs: list[tuple[str, str]], text_field: str) -> list[str]:
    import spacy

    from spacy_slmre.extraction.inputs import ExtractionError, read_inputs

    texts = []
    stdin = standard_input([path for path, _ in inputs])
    for source in read_inputs(inputs, spacy.blank("en").vocab, stdin, text_field):
        if source.error is not None or source.content is None:
            raise ExtractionError(f"{source.id}: {source.error}")
        texts.append(source.content if isinstance(source.content, str) else source.content.text)
    return texts


@show_errors()
def train_classifiers_command(
    ctx: typer.Context,
    config: Annotated[Path, typer.Argument(help="Config, for example configs/rel_classifier_cpu.cfg.")],
    corpora: CorporaArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write: BENCHMARK/pipeline.")],
    benchmark: BenchmarkOption = None,
    mixture: MixtureOption = None,
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU to use, or -1 for the CPU.")] = -1,
    overwrite: OverwriteOption = False,
) -> None:
    """Train one classifier per benchmark with `spacy train`.

    The corpus determines the negative label, the schedule and the splits: if a benchmark has no development split,
    15 % of its training documents are held out. The best checkpoint is calibrated on the development set. Settings of
    the config can be overridden: --training.max_epochs 3. Finished classifiers are skipped. If a benchmark fails, the
    others are still trained, and the exit code is 1.
    """
    from spacy.cli._util import parse_config_overrides

    from spacy_slmre.study.classifiers import train_classifier

    if not config.exists():
        raise ValueError(f"The config {config} does not exist.")
    overrides = parse_config_overrides(ctx.args)
    names = _chosen(benchmark, mixture, corpora)
    if not names:
        raise ValueError("Choose benchmarks with --benchmark, or a mixture with --mixture.")

    def train(name: str) -> None:
        target = output / name
        train_classifier(
            config, name, corpora, target, overrides=overrides, use_gpu=gpu_id, overwrite=overwrite, log=log
        )

    _run_each({name: name for name in names}, train)


@show_errors()
def grid_command(
    ctx: typer.Context,
    config: Annotated[Path, typer.Argument(help="The grid, for example configs/tune/grid.cfg.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write, with one subfolder per run.")],
    only_list: Annotated[bool, typer.Option("--list", help="Only list the runs and their states.")] = False,
    shard: Annotated[str | None, typer.Option(help="Only run one shard of the runs: 1/4 is the first of four.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Also rerun the runs that failed.")] = False,
) -> None:
    """List the tuning runs of a grid with their states, and run the missing ones one after the other.

    Each run is a separate process; if it fails, the error is recorded and the others are still run. Interrupted runs
    are resumed. If a run is still "running" although its machine is gone, delete the file .RUN.lock next to its
    folder. Settings for all runs can be added as for tune: --training.max_steps 100
    """
    from spacy_slmre.study.grid import read_grid, take_shard

    runs = read_grid(config, output)
    if shard is not None:
        runs = take_shard(runs, shard)
    _show_states(runs)
    failed = 0
    for number, run in enumerate([] if only_list else runs, 1):
        # Check the state only now, because another process may have done this run in the meantime.
        if run.state()[0] not in (("missing", "failed") if retry else ("missing",)):
            continue
        log(f"[{number}/{len(runs)}] {run.name} (log: {run.log})")
        succeeded = run.run(ctx.args)
        state, detail = run.state()
        failed += not succeeded and state == "failed"
        log(f"  {state}: {detail}")
    if failed:
        raise ValueError(
            f"{failed} runs failed. The errors are in {output}/*.failed.json; use --retry to run them again."
        )


def _show_states(runs: Sequence[GridRun]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    styles = {"missing": "dim", "running": "yellow", "done": "green", "failed": "red"}
    table = Table("run", "state", "", box=SIMPLE, padding=(0, 1, 0, 0))
    counts: Counter[str] = Counter()
    for run in runs:
        state, detail = run.state()
        counts[state] += 1
        table.add_row(run.name, Text(state, styles[state]), detail)
    console.print(table)
    log(", ".join(f"{counts[state]} {state}" for state in styles))


@show_errors()
def evaluate_command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…",
            help="Pipelines of tune and train-classifiers, or folders of them; other pipelines and configs "
            "need --benchmark or --mixture.",
        ),
    ],
    corpora: CorporaArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the runs.")],
    benchmark: BenchmarkOption = None,
    mixture: MixtureOption = None,
    prompt: Annotated[str, typer.Option(help="As in slmre evaluate.")] = "own",
    decoding: Annotated[str, typer.Option(help="As in slmre evaluate.")] = "scored",
    limit: LimitOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Evaluate models on the test splits of the benchmarks that each was trained on.

    Finished evaluations are skipped, unless the model or the corpus has changed. If an evaluation fails, the others
    are still run, and the exit code is 1.
    """
    from spacy_slmre.cli.evaluate import evaluate_on, show_runs
    from spacy_slmre.evaluation.runs import EvaluationRun
    from spacy_slmre.evaluation.systems import EvaluationSettings

    chosen = _chosen(benchmark, mixture, corpora)
    if not corpora.is_dir():
        raise ValueError(f"The folder {corpora} does not exist. Convert corpora with: slmre study convert-all")
    jobs: dict[str, tuple[str, Path, Path]] = {}
    for model in models:
        for pipeline, name, trained_on in _find_pipelines(model):
            if not (wanted := trained_on or chosen):
                problem = "was not trained on benchmarks" if Path(model).exists() else "is not a folder"
                raise ValueError(
                    f"{model} {problem}. Tune or train it first, or choose benchmarks with --benchmark or --mixture."
                )
            for one in wanted:
                path = corpora / one / "test.spacy"
                if chosen and one not in chosen:
                    continue
                if not path.exists():
                    log(f"{name}: skipping {one}, because it has no test split in {corpora}.")
                elif f"{name} on {one}" in jobs:
                    raise ValueError(f"Two of the models would write the run of {name} on {one}.")
                else:
                    jobs[f"{name} on {one}"] = (pipeline, path, output / name)
    if not jobs:
        raise ValueError(f"There is nothing to evaluate: {corpora} has no test split of these benchmarks.")
    settings = EvaluationSettings(prompt=prompt, decoding=decoding, limit=limit)
    runs: list[EvaluationRun] = []

    def evaluate(job: tuple[str, Path, Path]) -> None:
        pipeline, path, folder = job
        runs.append(evaluate_on(pipeline, path, folder, settings, overwrite=overwrite, overwrite_changed=True))

    try:
        _run_each(jobs, evaluate)
    finally:
        if runs:
            show_runs(runs)


def _find_pipelines(model: str) -> list[tuple[str, str, list[str]]]:
    """Return path, name and benchmarks of each trained pipeline in a folder, or of a single pipeline."""
    from spacy_slmre.util.run_folder import RUN_FILE, read_json

    folder = Path(model)
    found: list[tuple[str, str, list[str]]] = []
    for file in sorted((*folder.glob(RUN_FILE), *folder.glob(f"*/{RUN_FILE}"))):
        if file.parent.name.endswith(".part"):
            continue
        record = read_json(file)
        data: dict[str, Any] = record.get("data") or record.get("key", {}).get("data", {})
        if "benchmark" in record:  # the classifiers in a folder form one system
            found.append((str(file.parent), file.resolve().parent.parent.name, [record["benchmark"]]))
        elif data:
            found.append((str(file.parent), file.resolve().parent.name, list(data)))
    return found or [(model, folder.stem if folder.suffix == ".cfg" else folder.name, [])]


def _chosen(names: list[str] | None, mixture: Path | None, corpora: Path) -> list[str]:
    from spacy_slmre.study.benchmarks.card import get_benchmark
    from spacy_slmre.study.mixtures import converted_benchmarks

    for name in names or ():
        get_benchmark(name)  # so that an unknown name is an error
    if mixture is None:
        return list(names or ())

    found, missing = converted_benchmarks(mixture, corpora)
    if missing:
        log(f"Skipping benchmarks that are not converted: {', '.join(missing)}")
    return [name for name in found if names is None or name in names]


def _run_each(jobs: dict[str, Any], run: Callable[[Any], None]) -> None:
    """Run all jobs even if some fail, and raise one error at the end."""
    failed = []
    for name, job in jobs.items():
        try:
            run(job)
        except Exception as error:  # continue, because the other jobs may take hours
            if len(jobs) == 1:
                raise
            failed.append(name)
            log(f"{name} failed: {error}")
    if failed:
        raise ValueError(f"{len(failed)} of {len(jobs)} failed: {', '.join(failed)}.")
