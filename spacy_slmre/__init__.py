"""Relation extraction with small language models as a native spaCy component."""

from typing import Any

from spacy_slmre.entity_decisions import install_decisions
from spacy_slmre.facts import Entity, Fact, facts_of, install_facts
from spacy_slmre.relations import Relation, install_extensions
from spacy_slmre.schema import LabelSchema, RelationLabel

# So that doc._.relations and doc._.facts can be read wherever this package is imported. If another package owns a
# name, only a component that would use it raises an error.
install_extensions(strict=False)
install_facts()
install_decisions()

__version__ = "0.1.0"
__all__ = [
    "Entity",
    "Fact",
    "LabelSchema",
    "Relation",
    "RelationLabel",
    "__version__",
    "facts_of",
    "install_extensions",
    "render",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: drawing loads Jinja and the exports, which prediction does not need.
    if name == "render":
        from spacy_slmre.visual.rendering import render

        return render
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
