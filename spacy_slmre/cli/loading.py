"""Pipelines that commands run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spacy_slmre.cli.output import say

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_slmre.pipeline.relation_pipe import RelationPipe


def load_pipeline(pipeline: str) -> tuple[Language, RelationPipe]:
    """The pipeline with a relation component, its weights loaded."""
    import spacy

    from spacy_slmre.pipeline.relation_pipe import RelationPipe

    try:
        nlp = spacy.load(pipeline)
    except OSError as error:
        raise ValueError(
            f'The pipeline "{pipeline}" is neither an installed package nor a folder. Install it, for '
            "instance by python -m spacy download en_core_web_sm, or give the folder of a saved pipeline."
        ) from error
    components = [pipe for _, pipe in nlp.pipeline if isinstance(pipe, RelationPipe)]
    if not components:
        say(f'"{pipeline}" finds no relations: adding slm_relations with its defaults.')
        components = [nlp.add_pipe("slm_relations")]  # type: ignore[list-item]
    components[-1].ready()
    return nlp, components[-1]


def model_name(nlp: Language, component: RelationPipe) -> str:
    """What finds the relations, in one line: pipeline, version and component."""
    return f"{nlp.meta['lang']}_{nlp.meta['name']} {nlp.meta['version']} {component.name}"
