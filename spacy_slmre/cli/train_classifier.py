"""`python -m spacy slmre train-classifier` and `evaluate-classifier`: one benchmark, or each of a mixture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import log, show_errors

Corpora = Annotated[Path, typer.Argument(help="Folder of converted benchmarks.")]
Names = Annotated[list[str] | None, typer.Option("--benchmark", "-b", help="A benchmark; can be repeated.")]
MixtureFile = Annotated[
    Path | None,
    typer.Option("--mixture", help="Each benchmark of a mixture (configs/mixtures/*.cfg) that is there."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do again what is done already.")]


@slmre_cli.command(
    "train-classifier", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
@show_errors()
def train_classifier_command(
    ctx: typer.Context,
    config: Annotated[Path, typer.Argument(help="Config, for instance configs/rel_classifier_cpu.cfg.")],
    corpora: Corpora,
    output: Annotated[Path, typer.Argument(help="Folder for the trained pipelines, one for each benchmark.")],
    benchmark: Names = None,
    mixture: MixtureFile = None,
    overwrite: Overwrite = False,
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU, or -1 for the CPU.")] = -1,
) -> None:
    """Train a classifier for a benchmark, or one for each benchmark of a mixture, as the study has it.

    `spacy train` with the negative label, the length of the schedule and the splits taken from the corpus: a
    benchmark without a development split holds out 15 % of its training documents. The best checkpoint is
    calibrated on the development set. Values of the config can be given as in `spacy train`:
    --training.max_epochs 3. What is done already is left alone; a benchmark that fails does not stop the
    others.
    """
    from spacy.cli._util import parse_config_overrides

    from spacy_slmre.study.classifiers import read_run, train_classifier

    if not config.exists():
        raise ValueError(f"The config {config} does not exist.")
    overrides = parse_config_overrides(ctx.args)

    def train(name: str) -> None:
        target = output / name
        if read_run(target) is not None and not overwrite:
            log(f"{name}: trained already, in {target}")
            return
        run = train_classifier(config, name, corpora, target, overrides=overrides, use_gpu=gpu_id)
        error = {when: run["calibration"][when]["ece"] for when in ("before", "after")}
        log(
            f"{name}: micro-F1 {run['dev']['rel_micro_f']:.3f} on the development set, after "
            f"{run['seconds'] / 60:.1f} minutes. Expected calibration error {error['before']:.3f}, at "
            f"temperature {run['calibration']['temperature']:.2f} {error['after']:.3f}. Pipeline: {target}"
        )

    _each(_chosen(benchmark, mixture, corpora), train)


@slmre_cli.command("evaluate-classifier")
@show_errors()
def evaluate_classifier_command(
    corpora: Corpora,
    trained: Annotated[Path, typer.Argument(help="Folder that train-classifier wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the runs; without it TRAINED/runs.")
    ] = None,
    benchmark: Names = None,
    mixture: MixtureFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Score trained classifiers on the test splits, once: as `slmre evaluate` does, a run for each."""
    from spacy_slmre.cli.evaluate import evaluate_on, show_runs
    from spacy_slmre.evaluation.runs import EvaluationRun
    from spacy_slmre.evaluation.systems import EvaluationSettings

    runs: list[EvaluationRun] = []

    def evaluate(name: str) -> None:
        runs.append(
            evaluate_on(
                str(trained / name),
                corpora / name / "test.spacy",
                output or trained / "runs",
                EvaluationSettings(),
                overwrite=overwrite,
                overwrite_changed=True,
            )
        )

    try:
        _each(_chosen(benchmark, mixture, corpora), evaluate)
    finally:
        show_runs(runs)


def _chosen(names: list[str] | None, mixture: Path | None, corpora: Path) -> list[str]:
    from spacy_slmre.study.mixtures import converted_benchmarks

    if (names is None) == (mixture is None):
        raise ValueError("Name benchmarks with --benchmark, or a mixture with --mixture.")
    if mixture is None:
        return list(names or ())
    there, missing = converted_benchmarks(mixture, corpora)
    if missing:
        log(f"Not converted, and left out: {', '.join(missing)}")
    return there


def _each(names: list[str], run: Callable[[str], None]) -> None:
    """Run for every benchmark; those that fail are told at the end."""
    failed = {}
    for name in names:
        try:
            run(name)
        except Exception as error:  # hours of others' training are worth more than a clean stop
            if len(names) == 1:
                raise
            failed[name] = str(error)
            log(f"{name} failed: {error}")
    if failed:
        raise ValueError(f"{len(failed)} of {len(names)} benchmarks failed: {', '.join(failed)}.")
