"""`python -m spacy slmre evaluate-tuned`; becomes a part of `slmre study evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli.app import OverwriteOption, slmre_cli
from spacy_slmre.cli.evaluate import LimitOption, evaluate_on, show_runs
from spacy_slmre.cli.output import log, show_errors


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
    limit: LimitOption = 0,
    overwrite: OverwriteOption = False,
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
                    evaluate_on(
                        str(folder), path, target, settings, overwrite=overwrite, overwrite_changed=True
                    )
                )
            except Exception as error:  # hours of the others' work are worth more than a clean stop
                failed.append(f"{folder.name} on {benchmark}: {error}")
                log(failed[-1])
    show_runs(runs)
    if failed:
        raise ValueError(f"{len(failed)} evaluations failed; the others are in {output}.")
    if not runs:
        raise ValueError(f"Nothing was evaluated: {corpora} has no test split of what was tuned on.")
