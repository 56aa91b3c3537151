"""Make relation components, and find them in a pipeline."""

from __future__ import annotations

from spacy.language import Language

from spacy_slmre.models.base import RelationModel
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.pipeline.settings import ExtractorSettings


def make_extractor(nlp: Language, name: str, model: RelationModel, settings: ExtractorSettings) -> RelationExtractor:
    """Make a component of a pipeline. Raises ValueError if another one writes to the same attribute."""
    for other, pipe in nlp.components:
        if isinstance(pipe, RelationExtractor) and pipe.attr == settings.attr and other != name:
            raise ValueError(
                f'"{name}" and "{other}" both write to doc._.{settings.attr}, so one would replace the relations of '
                f'the other. Set attr="…" for one of them, or remove "{other}".'
            )
    return RelationExtractor(nlp.vocab, model, name, settings)


def get_relation_extractor(nlp: Language, name: str | None = None) -> tuple[str, RelationExtractor]:
    """Return the name and the relation component of a pipeline; `name` is required if there are several.

    Raises ValueError if there is no such component, or if `name` is missing.
    """
    components = {key: pipe for key, pipe in nlp.pipeline if isinstance(pipe, RelationExtractor)}
    if not components:
        names = ", ".join(nlp.pipe_names) or "nothing"
        raise ValueError(f'The pipeline has no relation component, only: {names}. Add "slm_relations".')
    if name is None and len(components) > 1:
        raise ValueError(f"The pipeline has several relation components. Choose one of {', '.join(components)}.")
    name = next(iter(components)) if name is None else name
    if name not in components:
        raise ValueError(f'"{name}" is not a relation component. Use one of {", ".join(components)}.')
    return name, components[name]
