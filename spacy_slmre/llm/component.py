"""Finding the component of a pipeline that asks an LLM for relations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy.language import Language

from spacy_slmre.llm.task import RelationTask

if TYPE_CHECKING:
    from spacy_llm.pipeline import LLMWrapper


def zero_shot_components(nlp: Language) -> dict[str, tuple[LLMWrapper, RelationTask]]:
    """Component and task of all `llm` components that have our task, by name."""
    names = [name for name in nlp.pipe_names if nlp.get_pipe_meta(name).factory == "llm"]
    pipes: dict[str, Any] = {name: nlp.get_pipe(name) for name in names}
    return {name: (pipe, pipe.task) for name, pipe in pipes.items() if isinstance(pipe.task, RelationTask)}


def zero_shot_component(nlp: Language, name: str | None = None) -> tuple[str, LLMWrapper, RelationTask]:
    """Name, component and task of a pipeline's `llm` component that has our task.

    Args:
        nlp: The pipeline.
        name: Which one, where it has several.

    Raises:
        ValueError: It has none, or several and no name was given, or none of that name.
    """
    found = zero_shot_components(nlp)
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


def make_ready(component: LLMWrapper) -> None:
    """Check labels, prompts, key and cache, or load weights, now rather than at the first document.

    Raises:
        ValueError: Something is missing; the message says what.
    """
    component.task.ready()
    model = component._model  # spacy-llm has no public name for it
    if hasattr(model, "ready"):
        model.ready()
