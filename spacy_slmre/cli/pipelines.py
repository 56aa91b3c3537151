"""What several commands do with a pipeline: load it, and find its relation component."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spacy_slmre.cli.output import say

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_slmre.pipeline.relation_pipe import RelationPipe


def load_pipeline(name: str) -> Language:
    """A pipeline package or folder.

    Raises:
        ValueError: There is none of that name.
    """
    import spacy

    try:
        return spacy.load(name)
    except OSError as error:
        if Path(name).exists():
            raise ValueError(f'The pipeline in "{name}" is incomplete or damaged: {error}') from error
        raise ValueError(
            f'The pipeline "{name}" is neither an installed package nor a folder. Install it, for '
            "instance by python -m spacy download en_core_web_sm, or give the folder of a saved pipeline."
        ) from error


def ready_pipeline(name: str) -> tuple[Language, RelationPipe]:
    """A pipeline and its last relation component, which is added where there is none; its weights are loaded.

    Raises:
        ValueError: There is no pipeline of that name, or its weights cannot be had.
    """
    from spacy_slmre.pipeline.relation_pipe import RelationPipe

    nlp = load_pipeline(name)
    components = [pipe for _, pipe in nlp.pipeline if isinstance(pipe, RelationPipe)]
    if not components:
        say(f'"{name}" finds no relations: adding slm_relations with its defaults.')
        components = [nlp.add_pipe("slm_relations")]  # type: ignore[list-item]
    components[-1].ready()
    return nlp, components[-1]


def model_name(nlp: Language, component: RelationPipe) -> str:
    """What finds the relations, in one line: pipeline, version and component."""
    return f"{nlp.meta['lang']}_{nlp.meta['name']} {nlp.meta['version']} {component.name}"
