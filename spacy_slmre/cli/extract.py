"""`python -m spacy slmre extract`."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_slmre.cli.app import (
    PIPELINE_HELP,
    CodeOption,
    GpuOption,
    IdFieldOption,
    OverwriteOption,
    TextFieldOption,
    refuse_options,
    slmre_cli,
)
from spacy_slmre.cli.output import console, document_progress, log, show_errors, standard_input
from spacy_slmre.extraction.pipelines import extraction_key, load_extraction_pipeline

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_slmre.extraction.outputs import ExtractionResult


# The options that only one of the engines has.
_ENGINES = {
    "ray": ("workers", "worker_cpus", "worker_gpus", "ray_address"),
    "process": ("n_process", "table", "gpu_id"),
}


@slmre_cli.command("extract")
@show_errors()
def extract_command(
    ctx: typer.Context,
    pipeline: Annotated[str, typer.Argument(help=PIPELINE_HELP)],
    inputs: Annotated[
        list[str], typer.Argument(help="Files or folders (.txt, .jsonl, .parquet, .spacy), or - for standard input.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .jsonl file, or a folder named *.spacy for .spacy files.")
    ],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="Input format: txt (one document per file), lines (one per line), jsonl, parquet or spacy. "
            "Default: by suffix; jsonl for standard input.",
        ),
    ] = None,
    text_field: TextFieldOption = "text",
    id_field: IdFieldOption = "id",
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Documents per batch.")] = 64,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Documents per shard, which are processed and saved together.")
    ] = 256,
    n_process: Annotated[
        int, typer.Option("--n-process", "-n", min=1, help="Number of processes, each with its own model.")
    ] = 1,
    level: Annotated[
        str,
        typer.Option(
            help="mentions (relations between mentions), or facts: .jsonl files and --table also contain the relations "
            "between entities."
        ),
    ] = "mentions",
    table: Annotated[bool, typer.Option("--table", help="Print the relations or facts of each document.")] = False,
    code: CodeOption = None,
    gpu_id: GpuOption = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="process (this process), or ray (many workers, on this machine or a cluster).",
            metavar="NAME",
        ),
    ] = "process",
    workers: Annotated[
        str | None,
        typer.Option(
            help="Number of Ray workers, each with its own model, or a range. Default: as many as fit.",
            metavar="N|MIN:MAX",
        ),
    ] = None,
    worker_cpus: Annotated[
        int | None, typer.Option(help="CPU cores per Ray worker. Default: an equal share of all, or 4.")
    ] = None,
    worker_gpus: Annotated[
        float | None, typer.Option(help="GPUs per Ray worker; fractions are allowed. Default: 1 if there are GPUs.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Ray cluster: auto or HOST:PORT. Default: $RAY_ADDRESS; if unset, a local Ray is started."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Extract relations from texts.

    Documents are streamed, so memory use does not grow with the corpus. Repeat the command to resume an interrupted
    run. If a document fails, its error is written in its place and the exit code is 1.
    """
    from spacy_slmre.extraction.inputs import find_inputs
    from spacy_slmre.extraction.outputs import check_suffix
    from spacy_slmre.extraction.processes import compute_in_processes
    from spacy_slmre.extraction.ray_engine import WorkerPool, compute_on_ray
    from spacy_slmre.extraction.run import ExtractionCounts, compute_in_process, extract_corpus
    from spacy_slmre.extraction.worker import ExtractionJob
    from spacy_slmre.facts import LEVELS
    from spacy_slmre.util.extras import check_extra
    from spacy_slmre.util.run_folder import check_not_input

    if level not in LEVELS:
        raise ValueError(f'Unknown level "{level}". Use one of {", ".join(LEVELS)}.')
    check_suffix(output)
    others = [pipeline, *([str(code)] if code is not None else [])]
    # An output in a folder of inputs is allowed, because it is not read.
    check_not_input([output], [*others, *(path for path in inputs if not Path(path).is_dir())])
    if engine not in _ENGINES:
        raise ValueError(f'Unknown engine "{engine}". Use {" or ".join(_ENGINES)}.')
    for other in _ENGINES.keys() - {engine}:
        refuse_options(ctx, _ENGINES[other], f"needs --engine {other}. Omit it or change the engine.")
    if engine == "ray":
        if "-" in inputs:
            raise ValueError("The ray engine cannot read standard input: use files.")
        pool = WorkerPool.parse(workers, worker_cpus, worker_gpus)
        check_extra("ray", "ray", "The engine ray")
    if n_process > 1 and table:
        raise ValueError("--table needs one process. Omit it or --n-process.")
    stdin = standard_input(inputs)
    files = find_inputs(inputs, format, output, text_field, log)
    loaded = load_extraction_pipeline(pipeline, code=code, gpu_id=gpu_id, log=log)
    nlp = loaded.nlp
    job = ExtractionJob(
        output,
        files,
        partial(_load, pipeline, code, gpu_id),
        loaded.model_name,
        loaded.attr,
        text_field=text_field,
        id_field=id_field,
        shard_size=shard_size,
        batch_size=batch_size,
        level=level,
    )
    run_key = {
        **extraction_key(pipeline, nlp, code, files),
        "fields": [text_field, id_field],
        "shard size": shard_size,
        "level": level,
    }
    with document_progress(relations=True) as progress:

        def show_counts(counts: ExtractionCounts, total: int | None) -> None:
            progress(counts.documents, relations=counts.relations, total=total)

        def show_result(result: ExtractionResult) -> None:
            progress(advance=1)
            if table:
                _print_table(result, loaded.attr, level)

        if engine == "ray":
            compute = partial(compute_on_ray, pool=pool, address=ray_address, log=log)
            del nlp, loaded
            _free_memory()
        elif n_process > 1:
            compute = partial(compute_in_processes, nlp=nlp, n_process=n_process, log=log)
        else:
            compute = partial(compute_in_process, nlp=nlp, stdin=stdin, on_result=show_result)
        try:
            counts = extract_corpus(
                job,
                run_key,
                compute,
                inputs=others,
                stdin=stdin if n_process > 1 else None,
                overwrite=overwrite,
                progress=show_counts,
                log=log,
            )
        except KeyboardInterrupt:
            log("Interrupted." + ("" if job.reads_stdin else " Repeat the command to resume."))
            raise typer.Exit(130) from None
    log(f"{counts.documents} documents, {counts.relations} relations → {output}")
    if counts.failed:
        log(f"{counts.failed} documents failed; their errors are in the output.")
        raise typer.Exit(1)


def _load(pipeline: str, code: Path | None, gpu_id: int | None) -> Language:
    return load_extraction_pipeline(pipeline, code=code, gpu_id=gpu_id, log=log).nlp


def _free_memory() -> None:
    """Free the GPU memory of the pipeline for the workers' models."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _print_table(result: ExtractionResult, attr: str, level: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from spacy_slmre.facts import facts_of

    title = Text(result.id, "bold")
    if result.doc is None:
        console.print(Text.assemble(title, ": ", (result.error or "", "red")), soft_wrap=True)
        return
    if level == "facts":
        rows = [(one.head.name, one.label, one.tail.name, one.score) for one in facts_of(result.doc, attr)]
    else:
        relations = getattr(result.doc._, attr)
        rows = [(one.head.text, one.label, one.tail.text, one.score) for one in relations]
    if not rows:
        console.print(Text.assemble(title, ": no relations found"), soft_wrap=True)
        return
    console.print(title, soft_wrap=True)
    table = Table("head", "relation", "tail")
    table.add_column("score", justify="right")
    for *texts, score in rows:
        table.add_row(*texts, f"{score:.2f}")
    console.print(table)
