"""Relation extraction with small language models as a native spaCy component."""

from typing import Any

from spacy_slmre.relations import Relation, install_extensions
from spacy_slmre.schema import LabelSchema, RelationLabel

__version__ = "0.1.0"
__all__ = ["LabelSchema", "Relation", "RelationLabel", "__version__", "install_extensions", "render"]


def __getattr__(name: str) -> Any:
    # Pictures need more than every import of this package should load.
    if name == "render":
        from spacy_slmre.visual.rendering import render

        return render
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
