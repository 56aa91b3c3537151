"""Relation extraction with small language models as a native spaCy component."""

from spacy_slmre.relations import Relation, install_extensions
from spacy_slmre.schema import LabelSchema, RelationLabel

__version__ = "0.1.0"
__all__ = ["LabelSchema", "Relation", "RelationLabel", "__version__", "install_extensions"]
