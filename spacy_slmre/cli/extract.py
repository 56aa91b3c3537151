"""`python -m spacy slmre extract`."""

from __future__ import annotations

import gc
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import console, document_progress, log, show_errors
from spacy_slmre.cli.pipelines import load_extraction_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from spacy_slmre.extraction.ray_engine import Workers
    from spacy_slmre.extraction.running import Result
    from spacy_slmre.extraction.shard_work import Job
    from spacy_slmre.extraction.shards import ShardFolder
    from spacy_slmre.extraction.writers import Writer


@slmre_cli.command("extract")
def extract_command(
    texts: Annotated[
        list[str],
        typer.Argument(help="Files or folders (.txt, .jsonl, .parquet, .spacy), or - for standard input."),
    ],
    pipeline: Annotated[
        str,
        typer.Option(
            "--pipeline",
            "-p",
            help="Pipeline package or folder. One without a relation component gets slm_relations.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="What to write: a .jsonl file, or a .spacy folder of shards."),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Of the input: txt (a file is a document), lines (a line is one), jsonl, parquet, spacy.",
        ),
    ] = None,
    text_field: Annotated[
        str, typer.Option(help="Field or column of the text in JSONL and Parquet.")
    ] = "text",
    id_field: Annotated[str, typer.Option(help="Field or column of the id, where there is one.")] = "id",
    batch_size: Annotated[int, typer.Option(min=1, help="Documents held at a time.")] = 64,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Documents computed, and in .spacy outputs written, together.")
    ] = 500,
    n_process: Annotated[int, typer.Option(min=1, help="Worker processes; each loads the model.")] = 1,
    table: Annotated[bool, typer.Option("--table", help="Print the relations of each document.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an interrupted run has left.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it is there.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="process: this one. ray: many workers, on this machine or a cluster.",
            metavar="NAME",
        ),
    ] = "process",
    workers: Annotated[
        str | None,
        typer.Option(
            help="For ray: workers, each with a model; MIN:MAX lets Ray choose. As many as fit.",
            metavar="N|MIN:MAX",
        ),
    ] = None,
    worker_cpus: Annotated[
        int | None, typer.Option(help="For ray: cores of a worker; its share, or 4, if not given.")
    ] = None,
    worker_gpus: Annotated[
        float | None, typer.Option(help="For ray: GPUs of a worker, or a part of one; 1 if there are any.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="For ray: the cluster, as auto or HOST:PORT; $RAY_ADDRESS, or this machine alone."),
    ] = None,
) -> None:
    """Write the relations in texts to a file.

    Documents stream, so that memory does not grow with the corpus. An interrupted run goes on where it
    stopped when the same command is given again. A document that fails is written with its error, in its
    place, and the command then ends with exit code 1.

    With --engine ray, shards of the corpus are computed by many workers; a worker that dies is started again.
    The output is the same.
    """
    with show_errors():
        from spacy_slmre.extraction.sources import check_inputs, find_inputs, read_sources

        inputs = find_inputs(texts, format, output)
        of_ray = {
            "--workers": workers,
            "--worker-cpus": worker_cpus,
            "--worker-gpus": worker_gpus,
            "--ray-address": ray_address,
        }
        _check_engine(engine, of_ray, {"--n-process": n_process > 1, "--table": table}, inputs)
        if engine == "ray":
            from spacy_slmre.extraction.ray_engine import Workers, check_ray

            pool = Workers.parse(workers, worker_cpus, worker_gpus)
            check_ray()
        check_inputs(inputs, text_field, id_field)
        component = load_extraction_pipeline(pipeline)
        nlp, model = component.nlp, component.model_name
        run = {
            "pipeline": [pipeline, nlp.meta["version"], nlp.config["components"]],
            "inputs": [[path, form, *_state(path)] for path, form in inputs],
            "fields": [text_field, id_field],
            "shard_size": shard_size,
        }
        kept = {"restart": restart, "overwrite": overwrite}
        if engine == "ray":
            from spacy_slmre.extraction.shard_work import Job
            from spacy_slmre.extraction.shards import ShardFolder

            folder = ShardFolder(output)
            if restart or not folder.path.exists():
                log("Counting the documents.")
            if folder.begin(run, inputs, shard_size, text_field, id_field, **kept):
                log(_GOES_ON)
            job = Job(os.getcwd(), output, partial(_load, pipeline), component.attr, model, batch_size)
            del nlp, component
            _free_memory()
            _extract_on_ray(folder, job, pool, ray_address)
        else:
            from spacy_slmre.extraction.running import extract_by_shard, skip_done
            from spacy_slmre.extraction.writers import open_output

            writer = open_output(output, run, attr=component.attr, shard_size=shard_size, **kept)
            if writer.part.exists():
                log(_GOES_ON)
            sources = read_sources(inputs, nlp, sys.stdin.buffer, text_field, id_field)
            remaining = skip_done(sources, writer.done())
            results = extract_by_shard(
                nlp,
                remaining,
                shard_size,
                writer.written,
                batch_size=batch_size,
                n_process=n_process,
                model=model,
            )
            single = all(form == "txt" for _, form in inputs)
            _write(writer, results, component.attr, len(inputs) if single else None, table)


_GOES_ON = "Going on where an interrupted run stopped."


def _check_engine(
    engine: str,
    of_ray: Mapping[str, object],
    of_process: Mapping[str, object],
    inputs: Sequence[tuple[str, str]],
) -> None:
    """Refuse options that the engine would not heed."""
    if engine not in ("process", "ray"):
        raise ValueError(f'Unknown --engine "{engine}": use process or ray.')
    others = of_process if engine == "ray" else of_ray
    for name, value in others.items():
        if value:
            raise ValueError(
                f"{name} has no effect with --engine {engine}: leave it out, or choose the other."
            )
    if engine == "ray" and any(path == "-" for path, _ in inputs):
        raise ValueError("--engine ray reads files: standard input cannot be shared out among workers.")


def _write(writer: Writer, results: Iterator[Result], attr: str, total: int | None, table: bool) -> None:
    """Write results as they come, and say at the end what there is."""
    from spacy_slmre.extraction.writers import close_output

    relations = 0
    try:
        with document_progress(total, relations=True) as progress:
            for result in results:
                writer.write(result)
                found = getattr(result.doc._, attr) if result.doc is not None else ()
                relations += len(found)
                if table:
                    _print_table(result, found)
                progress(writer.written, relations=relations)
    except KeyboardInterrupt:
        raise _interrupted(writer.written) from None
    finally:
        writer.close()
    close_output(writer)
    _summarise(writer.output, writer.written, relations, writer.failed)


def _extract_on_ray(folder: ShardFolder, job: Job, workers: Workers, address: str | None) -> None:
    """Have the shards that are not done computed, and join them all."""
    from spacy_slmre.extraction.ray_engine import compute_on_ray, running_ray
    from spacy_slmre.extraction.shards import Tally

    done = folder.done()
    missing = [shard.number for shard in folder.shards if shard.number not in done]
    total = sum(shard.documents for shard in folder.shards)
    relations, lost = 0, []
    written = sum(tally.documents for tally in done.values())
    try:
        if missing:
            with running_ray(workers, address) as settled:
                log(f"{len(missing)} shards for {settled}.")
                if len(missing) < (settled.most or 1):
                    log("Workers without a shard stay idle: a smaller --shard-size makes more shards.")
                with document_progress(total, relations=True) as progress:
                    progress(written)
                    for outcome in compute_on_ray(job, missing, settled):
                        if not isinstance(outcome, Tally):
                            lost.append(folder.shards[outcome])
                            continue
                        folder.note(outcome)
                        done[outcome.shard] = outcome
                        written += outcome.documents
                        relations += outcome.relations
                        progress(written, relations=relations)
    except KeyboardInterrupt:
        raise _interrupted(written) from None
    if lost:
        inputs = folder.manifest["inputs"]
        places = (
            f"{shard.documents} from item {shard.start.items + 1} of {inputs[shard.start.input][0]} on"
            for shard in lost
        )
        raise ValueError(
            f"{len(lost)} of {len(folder.shards)} shards have taken their worker down each time they were "
            f"tried, as for want of memory. The documents: {'; '.join(places)}. All others are kept: the "
            "same command tries these again; a smaller --batch-size or more memory for each worker may help."
        )
    folder.join()
    _summarise(folder.output, written, relations, sum(tally.failed for tally in done.values()))


def _load(pipeline: str) -> Any:
    return load_extraction_pipeline(pipeline).nlp


def _interrupted(written: int) -> typer.Exit:
    log(f"Interrupted after {written} documents: the same command goes on from there.")
    return typer.Exit(130)


def _summarise(output: Path, written: int, relations: int, failed: int) -> None:
    log(f"{written} documents, {relations} relations found in this run → {output}")
    if failed:
        log(f"{failed} documents failed: each says why in the output.")
        raise typer.Exit(1)


def _free_memory() -> None:
    """Give back what a model held that is no longer needed: its GPU may be a worker's."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _state(path: str) -> tuple[int, float]:
    """Size and time of a file: whether it is still the same."""
    if path == "-":
        return 0, 0.0
    status = Path(path).stat()
    return status.st_size, status.st_mtime


def _print_table(result: Result, relations: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    if result.doc is None:
        console.print(
            f"[bold]{escape(result.id)}[/bold]: [red]{escape(result.error or '')}[/red]", soft_wrap=True
        )
        return
    if not relations:
        console.print(f"[bold]{escape(result.id)}[/bold]: no relations found", soft_wrap=True)
        return
    console.print(f"[bold]{escape(result.id)}[/bold]", soft_wrap=True)
    table = Table()
    for column in ("head", "relation", "tail"):
        table.add_column(column)
    table.add_column("confidence", justify="right")
    for relation in relations:
        row = (relation.head.text, relation.label, relation.tail.text)
        table.add_row(*map(escape, row), f"{relation.score:.2f}")
    console.print(table)
