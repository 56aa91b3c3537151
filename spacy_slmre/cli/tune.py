"""`python -m spacy slmre tune` and `init-config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spacy_slmre.cli.app import CodeOption, GpuOption, OverwriteOption, slmre_cli
from spacy_slmre.cli.output import document_progress, log, show_errors

DataOption = Annotated[
    Path | None, typer.Option(help="Annotations in any form that `slmre convert` recognizes, instead of a config.")
]
DevOption = Annotated[
    Path | None,
    typer.Option(help="Annotations to choose the best checkpoint with. Default: a fifth of the documents of --data."),
]
SchemaOption = Annotated[
    str | None,
    typer.Option(
        help="JSON, YAML or ontology file with names, definitions and types of the labels. Default: those in --data."
    ),
]
NerOption = Annotated[
    str | None,
    typer.Option(help="Pipeline that finds the entities, such as en_core_web_sm, so that the result reads raw text."),
]
LangOption = Annotated[str | None, typer.Option(help="Language, if there is no --ner. Default: en.")]


@slmre_cli.command("tune", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@show_errors()
def tune_command(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Argument(
            help="Tuning config, or the name of a shipped one, such as smollm2-135m.cfg. `slmre init-config` makes one."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the tuned pipeline, which spacy.load can load.")
    ] = None,
    data: DataOption = None,
    dev: DevOption = None,
    schema: SchemaOption = None,
    ner: NerOption = None,
    lang: LangOption = None,
    code: CodeOption = None,
    gpu_id: GpuOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Tune a model on annotated relations.

    Pass either a config or --data. With --data, the sequence length and the number of steps are chosen to suit the
    amount of data, and training starts from the shipped models. Settings can be overridden: --training.max_steps 100
    --lora.rank 32. Checkpoints are kept in OUTPUT.part until the run is complete; repeat the command to resume an
    interrupted run. To use several GPUs: accelerate launch -m spacy slmre tune CONFIG --output DIR
    """
    from spacy.cli._util import parse_config_overrides

    from spacy_slmre.extraction.pipelines import import_code, select_gpu
    from spacy_slmre.util.system import ProcessGroup

    is_main = ProcessGroup.from_environment().is_main
    report = log if is_main else lambda _: None
    shown = {"progress": document_progress()} if is_main else {}
    import_code(code)
    arguments = list(ctx.args)
    if config is not None and str(config).startswith("--"):  # without a config, the first override is taken for one
        arguments.insert(0, str(config))
        config = None
    overrides = parse_config_overrides(arguments)
    if output is None:
        raise ValueError("Set the folder for the tuned pipeline: --output DIR.")
    if (config is None) == (data is None):
        raise ValueError("Pass either a config or annotations: `slmre tune CONFIG` or `slmre tune --data FILE`.")
    given: dict[str, Any] = {"dev": dev, "schema": schema, "ner": ner, "lang": lang}
    if config is not None and (options := [name for name, value in given.items() if value is not None]):
        raise ValueError(f"--{options[0]} is only for --data. In the config, it is a setting of [tune] or [corpora].")
    if gpu_id is not None:
        select_gpu(gpu_id)

    from spacy_slmre.models.hub import quiet_loading

    with quiet_loading():  # transformers' trainer imports bitsandbytes
        from spacy_slmre.training.config import parse_config, read_config, resolve_config
        from spacy_slmre.training.own_data import make_config
        from spacy_slmre.training.tune import tune

    if data is not None:
        settings = parse_config(make_config(data, **given, overrides=overrides, log=report), overrides)
    else:
        assert config is not None
        settings = read_config(config, overrides)
    if gpu_id is not None and "device" in settings.get("model", {}):
        settings["model"]["device"] = "auto"  # the device of this run is not a property of the pipeline
    try:
        resolved = resolve_config(settings, str(config or data))
        metrics = tune(resolved, output, overwrite=overwrite, log=report, **shown)
    except KeyboardInterrupt:
        report("Interrupted. Repeat the command to resume from the last checkpoint.")
        raise typer.Exit(130) from None
    for name, scores in metrics["scores"]["sets"].items():
        report(f"{name}: micro-F1 {scores['f']:.3f} (P {scores['p']:.3f}, R {scores['r']:.3f}) on dev")
    steps, limit = metrics["steps"], resolved.training.max_steps
    of_limit = f" of {limit}" if steps < limit else ""
    report(f"Tuned in {metrics['seconds']:.0f} s, {steps}{of_limit} steps → {output}")


@slmre_cli.command("init-config")
@show_errors()
def init_config_command(
    data: Annotated[Path, typer.Argument(help="Annotations in any form that `slmre convert` recognizes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The config to write.")],
    dev: DevOption = None,
    schema: SchemaOption = None,
    ner: NerOption = None,
    lang: LangOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the config that `slmre tune --data` would use, so that you can edit it."""
    from spacy_slmre.models.hub import quiet_loading
    from spacy_slmre.util.io import atomic_write
    from spacy_slmre.util.run_folder import reserve

    with quiet_loading():  # transformers' trainer imports bitsandbytes
        from spacy_slmre.training.own_data import make_config

    inputs = [path for path in (data, dev, schema) if path is not None]
    with reserve(output, inputs=inputs, overwrite=overwrite):
        atomic_write(output, make_config(data, dev=dev, schema=schema, ner=ner, lang=lang, log=log))
    log(f"Config: {output}. Next: python -m spacy slmre tune {output} -o OUTPUT")
