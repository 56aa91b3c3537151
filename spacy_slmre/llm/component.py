"""Find and load the `llm` component of a pipeline."""

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
    """Return the name and the `llm` component with our task; the name is required if there are several.

    Raises:
        ValueError: There is none (of this name), or there are several and no name was given.
    """
    components = get_llm_components(nlp)
    if not components:
        raise ValueError(
            'The pipeline has no "llm" component with the task "spacy-slmre.RelationClassification.v1". Its '
            f"components: {', '.join(nlp.pipe_names) or 'none'}."
        )
    if name not in components and (name is not None or len(components) > 1):
        problem = f'The pipeline has no LLM component "{name}"' if name else "The pipeline has several LLM components"
        raise ValueError(f"{problem}: choose one of {', '.join(components)}.")
    name = name or next(iter(components))
    return name, components[name]


def load_llm_component(component: LLMWrapper) -> None:
    """Check labels, prompts, API key and cache, and load weights, before the first document.

    Raises:
        ValueError: A file, the API key or the weights are missing.
    """
    component.task.load()
    model = component._model  # spacy-llm has no public attribute for the model
    if hasattr(model, "load"):
        model.load()
