"""`python -m spacy slmre serve`."""

from __future__ import annotations

import signal
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_slmre.cli.app import PIPELINE_HELP, CodeOption, GpuOption, slmre_cli
from spacy_slmre.cli.export import LabelOption, MinScoreOption
from spacy_slmre.cli.output import log, show_errors
from spacy_slmre.cli.view import OpenOption, ThemeOption, TitleOption
from spacy_slmre.serve.settings import ServiceSettings
from spacy_slmre.util.extras import require_extra

if TYPE_CHECKING:
    from spacy_slmre.serve.server import PageServer

EXAMPLE = "Marie Curie was born in Warsaw. In Paris she married Pierre Curie, who taught at the Sorbonne."
_DEFAULT = ServiceSettings()


@slmre_cli.command("serve")
@show_errors()
def serve_command(
    pipeline: Annotated[str, typer.Argument(help=PIPELINE_HELP)],
    host: Annotated[
        str, typer.Option(help="Address to listen on. With 0.0.0.0, other machines can reach the service.")
    ] = _DEFAULT.host,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 selects a free one.")
    ] = _DEFAULT.port,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Additional host name that clients may use; * allows all. Can be repeated.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with a key that clients must send.", show_default=False)
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="Maximum size of a request.")] = _DEFAULT.max_bytes,
    max_texts: Annotated[int, typer.Option(help="Maximum number of texts in a request.")] = _DEFAULT.max_texts,
    max_waiting: Annotated[int, typer.Option(help="Maximum number of waiting texts.")] = _DEFAULT.max_waiting,
    batch_size: Annotated[int, typer.Option(help="Texts that are processed together.")] = _DEFAULT.batch_size,
    timeout: Annotated[float, typer.Option(help="Seconds until a request gets an error.")] = _DEFAULT.timeout,
    min_score: MinScoreOption = 0.0,
    label: LabelOption = None,
    theme: ThemeOption = "auto",
    title: TitleOption = "Relations",
    open_browser: OpenOption = False,
    code: CodeOption = None,
    gpu_id: GpuOption = None,
) -> None:
    """Serve a pipeline over HTTP, with a page to try it.

    By default, only this machine can reach it. --min-score, --label, --theme and --title apply to the page.
    """
    from spacy_slmre.extraction.pipelines import load_extraction_pipeline
    from spacy_slmre.visual.options import ViewOptions

    with require_extra("serve", "slmre serve"):
        from spacy_slmre.serve.server import PageServer, check_port
        from spacy_slmre.serve.service import make_service

    settings = ServiceSettings(
        host=host,
        port=port,
        allowed_hosts=tuple(allowed_host or ()),
        api_key_env=api_key_env,
        max_bytes=max_bytes,
        max_texts=max_texts,
        max_waiting=max_waiting,
        batch_size=batch_size,
        timeout=timeout,
    )
    settings.read_api_key()
    check_port(host, port)
    options = ViewOptions(min_score=min_score, labels=frozenset(label or ()), theme=theme, title=title)
    log(f'Loading "{pipeline}" …')
    loaded = load_extraction_pipeline(pipeline, code=code, gpu_id=gpu_id, log=log)
    app = make_service(loaded, settings, options=options, example=EXAMPLE)
    with PageServer(app, host, port, timeout) as server:
        if not settings.is_local and api_key_env is None:
            log("Everybody who can reach this port can use the service: no API key is set (--api-key-env).")
        if serve_until_interrupted(server, open_browser):
            log("Stopped.")


def serve_until_interrupted(server: PageServer, open_browser: bool) -> bool:
    """Serve pages, and open the first in a browser if wanted; return whether Ctrl+C or SIGTERM ended it."""
    log(f"Serving {server.address}. Press Ctrl+C to stop.")
    if open_browser:
        webbrowser.open(server.address)
    # The server handles both signals while it runs, and then passes them on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return True
    return False
