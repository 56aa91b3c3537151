"""Finding the component of a pipeline that asks an LLM for relations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spacy.language import Language

from spacy_slmre.zero_shot.task import RelationTask

if TYPE_CHECKING:
    from spacy_llm.pipeline import LLMWrapper


def zero_shot_component(nlp: Language, name: str | None = None) -> tuple[str, LLMWrapper, RelationTask]:
    """Name, component and task of a pipeline's `llm` component that has our task.

    Args:
        nlp: The pipeline.
        name: Which one, where it has several.

    Raises:
        ValueError: It has none, or several and no name was given, or none of that name.
    """
    from spacy_llm.pipeline import LLMWrapper

    found = {
        known: (pipe, pipe.task)
        for known, pipe in nlp.pipeline
        if isinstance(pipe, LLMWrapper) and isinstance(pipe.task, RelationTask)
    }
    if not found:
        raise ValueError(
            'The pipeline has no "llm" component with "spacy-slmre.RelationClassification.v1", only: '
            f"{', '.join(nlp.pipe_names) or 'nothing'}."
        )
    if name is None and len(found) > 1:
        raise ValueError(f"The pipeline asks LLMs in several components: choose one of {', '.join(found)}.")
    if name is not None and name not in found:
        raise ValueError(f'"{name}" asks no LLM for relations; these do: {", ".join(found)}.')
    known = name or next(iter(found))
    return known, *found[known]
