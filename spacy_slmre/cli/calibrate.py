"""`python -m spacy slmre calibrate`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli.app import CodeOption, GpuOption, OverwriteOption, slmre_cli
from spacy_slmre.cli.output import log, show_errors

CALIBRATION_FILE = "calibration.json"


@slmre_cli.command("calibrate")
@show_errors()
def calibrate_command(
    pipeline: Annotated[str, typer.Argument(help="Folder or package of a trained pipeline.")],
    corpus: Annotated[Path, typer.Argument(help="Development set: a .spacy file, or a folder of them.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to save to. Default: the pipeline's own folder.")
    ] = None,
    component: Annotated[str | None, typer.Option(help="The relation component, if there are several.")] = None,
    thresholds: Annotated[
        bool,
        typer.Option(
            "--thresholds",
            help="Also fit a threshold for each label that maximizes its F1. Then the most probable label of a pair is "
            "written if it reaches its threshold.",
        ),
    ] = False,
    holdout: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Share of documents that training held out; only these are used.")
    ] = 0.0,
    code: CodeOption = None,
    gpu_id: GpuOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Calibrate the scores of a pipeline.

    Afterwards, about 80 % of the relations with a score of 0.8 are correct. Fits a temperature on gold entities and
    pairs of a development set and saves it with the pipeline. Thresholds do not change by themselves, so other
    relations may be found. To choose one threshold for all labels, use spacy find-threshold.
    """
    from spacy_slmre.corpus.readers import relation_corpus
    from spacy_slmre.extraction.pipelines import load_pipeline
    from spacy_slmre.pipeline.calibrate import calibrate
    from spacy_slmre.pipeline.components import get_relation_extractor
    from spacy_slmre.util.io import temporary_output
    from spacy_slmre.util.run_folder import reserve

    if output is None and not Path(pipeline).is_dir():
        raise ValueError(f'"{pipeline}" is an installed package: choose a folder to save to with --output.')
    target = (output or Path(pipeline)).resolve()
    # Without an output, the pipeline itself is meant to be replaced.
    inputs: list[str | Path] = [corpus] if output is None else [corpus, pipeline]
    reserved = reserve(
        target,
        inputs=inputs,
        overwrite=overwrite or output is None,
        kind="folder",
        is_replaceable=lambda folder: output is None or (folder / CALIBRATION_FILE).is_file(),
    )
    with reserved:
        nlp = load_pipeline(pipeline, code=code, gpu_id=gpu_id)
        name, pipe = get_relation_extractor(nlp, component)
        examples = relation_corpus(corpus, holdout=holdout, held_out=holdout > 0)(nlp)
        summary = {"corpus": str(corpus), **calibrate(pipe, examples, thresholds=thresholds)}
        nlp.meta.setdefault("performance", {})[f"{name}_calibration"] = summary
        with temporary_output(target) as temporary:
            if output is None:
                # Keep other files in the folder, except the test scores, which no longer apply.
                shutil.copytree(target, temporary, ignore=shutil.ignore_patterns("test.json"))
            nlp.to_disk(temporary)
            (temporary / CALIBRATION_FILE).write_text(json.dumps(summary, indent=2), encoding="utf-8")
    before, after = summary["before"], summary["after"]
    log(
        f"Temperature {summary['temperature']:.3f}, fitted on {summary['pairs']:,} pairs. Expected "
        f"calibration error: {before['ece']:.3f} before, {after['ece']:.3f} after. Saved to {target}"
    )
    if thresholds:
        log(
            f"Micro-F1 on the same pairs that the thresholds were fitted on: {before['micro_f1']:.3f} before, "
            f"{after['micro_f1']:.3f} after, with thresholds for {len(summary['label_thresholds'])} labels."
        )
