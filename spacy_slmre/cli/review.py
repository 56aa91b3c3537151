"""`python -m spacy slmre review`."""

from __future__ import annotations

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
    slmre_cli,
)
from spacy_slmre.cli.output import document_progress, log, show_errors, standard_input
from spacy_slmre.cli.serve import serve_until_interrupted
from spacy_slmre.cli.view import OpenOption, ThemeOption, TitleOption
from spacy_slmre.util.extras import require_extra

if TYPE_CHECKING:
    from spacy_slmre.extraction.outputs import ExtractionResult
    from spacy_slmre.review.items import ReviewItem

TOOLS = ("label-studio", "prodigy", "doccano")


@slmre_cli.command("review")
@show_errors()
def review_command(
    documents: Annotated[
        list[str], typer.Argument(help="Files or folders (.txt, .jsonl, .parquet, .spacy), as for slmre extract.")
    ],
    pipeline: Annotated[str, typer.Option("--pipeline", help=PIPELINE_HELP)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .jsonl file of reviewed documents or, with --to, of tasks.")
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="TOOL",
            help=f"Instead of opening a page, write pre-annotations for {', '.join(TOOLS)}, least certain first.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of pairs.")] = 1000,
    near_miss: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Minimum score of a near miss, as a share of the threshold that it misses. 0: all pairs."
        ),
    ] = 0.5,
    format: Annotated[
        str | None, typer.Option("--format", "-f", help="Input format, as for slmre extract. Default: by suffix.")
    ] = None,
    text_field: TextFieldOption = "text",
    id_field: IdFieldOption = "id",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 selects a free one.")] = 5055,
    theme: ThemeOption = "auto",
    title: TitleOption = "Review",
    open_browser: OpenOption = False,
    code: CodeOption = None,
    gpu_id: GpuOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Review predicted relations and near misses on a local web page, the least certain first.

    Each decision is saved at once; repeat the command to continue. In the output, reviewed pairs are annotated and all
    others are unknown; slmre tune --data trains on it.
    """
    from spacy_slmre.export.formats import export
    from spacy_slmre.extraction.inputs import find_inputs, read_inputs
    from spacy_slmre.extraction.pipelines import extraction_key, load_extraction_pipeline
    from spacy_slmre.review.items import proposed_documents
    from spacy_slmre.review.ranking import rank_items
    from spacy_slmre.review.session import open_session
    from spacy_slmre.util.run_folder import check_not_input, reserve
    from spacy_slmre.visual.options import ViewOptions

    if to is not None and to not in TOOLS:
        raise ValueError(f'Unknown tool "{to}". Use one of {", ".join(TOOLS)}.')
    if to is None and output.suffix != ".jsonl":
        raise ValueError(f"The output {output} must end with .jsonl.")
    if "-" in documents:
        raise ValueError("Standard input cannot be read again to continue a review: use files.")
    options = ViewOptions(theme=theme, title=title)
    # An output in a folder of inputs is allowed, because it is not read.
    sources = [pipeline, *([str(code)] if code is not None else [])]
    sources += [path for path in documents if not Path(path).is_dir()]
    check_not_input([output], sources)
    if to is not None:
        with reserve(output, overwrite=overwrite):
            pass  # checks the output before documents are read; `export` reserves it again
    else:
        with require_extra("serve", "slmre review"):
            from spacy_slmre.review.server import make_review_app
            from spacy_slmre.serve.server import PageServer, check_port
        check_port(port=port)
    inputs = find_inputs(documents, format, output, text_field, log)
    log(f'Loading "{pipeline}" …')
    loaded = load_extraction_pipeline(pipeline, code=code, gpu_id=gpu_id, log=log)
    failed: list[ExtractionResult] = []

    def rank() -> list[ReviewItem]:
        found = read_inputs(inputs, loaded.nlp.vocab, standard_input(documents), text_field, id_field)
        with document_progress() as progress:

            def show(result: ExtractionResult) -> None:
                progress(advance=1)
                if result.doc is None:
                    failed.append(result)

            items = rank_items(
                loaded.nlp,
                loaded.component,
                found,
                limit=limit,
                near_miss=near_miss,
                model_name=loaded.model_name,
                on_result=show,
            )
        if failed:
            log(f"{len(failed)} documents failed and are skipped. The first: {failed[0].id}: {failed[0].error}")
        return items

    if to is not None:
        counts = export(proposed_documents(rank()), output, to, inputs=sources, overwrite=overwrite)
        log(f"{counts.documents} documents, {counts.written} proposed relations → {output}")
        if failed:
            raise typer.Exit(1)
        return
    key = {
        **extraction_key(pipeline, loaded.nlp, code, inputs),
        "fields": [text_field, id_field],
        "limit": limit,
        "near miss": near_miss,
    }

    with open_session(output, key, rank, overwrite=overwrite) as session:
        if not session.items:
            log("The pipeline finds no relations or near misses in these documents: there is nothing to review.")
            return
        with PageServer(make_review_app(session, options), port=port) as server:
            log(f"{session.n_decided} of {len(session.items)} pairs are decided.")
            if serve_until_interrupted(server, open_browser):
                log(f"Stopped. {session.n_decided} of {len(session.items)} pairs are decided → {output}")
