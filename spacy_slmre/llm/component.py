"""Finding and loading the `llm` component of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy.language import Language

from spacy_slmre.llm.task import RelationTask

if TYPE_CHECKING:
    from spacy_llm.pipeline import LLMWrapper


def get_llm_components(nlp: Language) -> dict[str, LLMWrapper]:
    """Return all `llm` components of a pipeline that have our task, by name."""
    pipes: dict[str, Any] = {
        name: nlp.get_pipe(name) for name in nlp.pipe_names if nlp.get_pipe_meta(name).factory == "llm"
    }
    return {name: pipe for name, pipe in pipes.items() if isinstance(pipe.task, RelationTask)}


def get_llm_component(nlp: Language, name: str | None = None) -> tuple[str, LLMWrapper]:
    """Return name and component of the pipeline's `llm` component that has our task.

    Args:
        nlp: The pipeline.
        name: The component's name; required if there are several.

    Raises:
        ValueError: There is none (of this name), or there are several and no name was given.
    """
    found = get_llm_components(nlp)
    if not found:
        raise ValueError(
            'The pipeline has no "llm" component with the task "spacy-slmre.RelationClassification.v1". Its '
            f"components: {', '.join(nlp.pipe_names) or 'none'}."
        )
    if name not in found and (name is not None or len(found) > 1):
        named = f'The pipeline has no such component "{name}"' if name else "There are several components"
        raise ValueError(f"{named}: choose one of {', '.join(found)}.")
    name = name or next(iter(found))
    return name, found[name]


def load_llm_component(component: LLMWrapper) -> None:
    """Check labels, prompts, API key and cache, or load weights, now instead of at the first document.

    Raises:
        ValueError: Something is missing.
    """
    component.task.load()
    model = component._model  # spacy-llm has no public name for the model
    if hasattr(model, "load"):
        model.load()
