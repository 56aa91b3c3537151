"""`python -m spacy slmre calibrate`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import log, show_errors

CALIBRATION_FILE = "calibration.json"


@slmre_cli.command("calibrate")
@show_errors()
def calibrate_command(
    pipeline: Annotated[str, typer.Argument(help="Folder or package of a trained pipeline.")],
    corpus: Annotated[Path, typer.Argument(help="Development set: a .spacy file, or a folder of them.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to save; by default in the pipeline's own folder."),
    ] = None,
    component: Annotated[
        str | None, typer.Option(help="The relation component, where there are several.")
    ] = None,
    thresholds: Annotated[
        bool, typer.Option("--thresholds", help="Also fit a threshold for each label, for its best F1.")
    ] = False,
    holdout: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Use the share that training held out, and no more.")
    ] = 0.0,
) -> None:
    """Have a pipeline's scores mean what they say: of relations with a score of 0.8, 80 % are right.

    A temperature is fitted on gold entities and pairs of a development set and saved with the pipeline. It
    changes which relations are written only where there are thresholds.
    """
    from spacy_slmre.cli.pipelines import load_pipeline
    from spacy_slmre.corpus.readers import relation_corpus
    from spacy_slmre.pipeline.calibrate import calibrate
    from spacy_slmre.pipeline.relation_extractor import get_relation_extractor
    from spacy_slmre.util.io import atomic_replace

    if output is not None and output.exists():
        raise ValueError(f"{output} is there already: choose another place, or delete it.")
    if output is None and not Path(pipeline).is_dir():
        raise ValueError(f'"{pipeline}" is an installed package: say where to save with --output.')
    target = (output or Path(pipeline)).resolve()
    nlp = load_pipeline(pipeline)
    name, pipe = get_relation_extractor(nlp, component)
    examples = relation_corpus(corpus, holdout=holdout, held_out=holdout > 0)(nlp)
    summary = {"corpus": str(corpus), **calibrate(pipe, examples, thresholds=thresholds)}
    nlp.meta.setdefault("performance", {})[f"{name}_calibration"] = summary
    aside = target.with_name(f".{target.name}.calibrating")
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        if output is None:
            # What lies beside the pipeline stays, but for scores of how it was.
            shutil.copytree(target, aside, ignore=shutil.ignore_patterns("test.json"))
        nlp.to_disk(aside)
        (aside / CALIBRATION_FILE).write_text(json.dumps(summary, indent=2), encoding="utf-8")
        atomic_replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    before, after = summary["before"], summary["after"]
    log(
        f"Temperature {summary['temperature']:.3f}, fitted on {summary['pairs']:,} pairs. Expected "
        f"calibration error: {before['ece']:.3f} before, {after['ece']:.3f} after. Saved in {target}"
    )
    if thresholds:
        log(
            f"Micro-F1 on these pairs: {before['micro_f1']:.3f} before, {after['micro_f1']:.3f} with "
            f"thresholds for {len(summary['label_thresholds'])} labels (on the pairs that they were fitted "
            "on)."
        )
