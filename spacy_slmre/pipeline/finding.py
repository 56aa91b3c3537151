"""The relation component of a pipeline."""

from __future__ import annotations

from spacy.language import Language

from spacy_slmre.pipeline.relation_extractor import RelationExtractor


def get_relation_extractor(nlp: Language, name: str | None = None) -> tuple[str, RelationExtractor]:
    """Name and component of a pipeline's relation component.

    Args:
        nlp: The pipeline.
        name: Which one, where it has several.

    Raises:
        ValueError: It has none, or several and no name was given, or none of that name.
    """
    found = {known: pipe for known, pipe in nlp.pipeline if isinstance(pipe, RelationExtractor)}
    if not found:
        raise ValueError(
            f"The pipeline has no relation component, only: {', '.join(nlp.pipe_names) or 'nothing'}. Add "
            '"slm_relations" or "rel_classifier".'
        )
    if name is None and len(found) > 1:
        raise ValueError(f"The pipeline has several relation components: choose one of {', '.join(found)}.")
    if name is not None and name not in found:
        raise ValueError(f'"{name}" is no relation component of the pipeline; it has: {", ".join(found)}.')
    return next((known, pipe) for known, pipe in found.items() if name in (None, known))
