"""The factory `slm_relations`: relation extraction with a small language model."""

from __future__ import annotations

from spacy.language import Language

from spacy_slmre.models.base import RelationModel
from spacy_slmre.pipeline.components import make_extractor
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.pipeline.settings import DEFAULT_SCORE_WEIGHTS, ExtractorSettings, default_config
from spacy_slmre.util.settings import takes_settings


@Language.factory(
    "slm_relations",
    assigns=["doc._.relations"],
    requires=["doc.ents"],
    default_config=default_config({"@architectures": "spacy-slmre.SmallLM.v1"}),
    default_score_weights=DEFAULT_SCORE_WEIGHTS,
)
@takes_settings(ExtractorSettings)
def make_slm_relations(
    nlp: Language, name: str, model: RelationModel, settings: ExtractorSettings
) -> RelationExtractor:
    """Make a component that labels pairs with a small language model, `@architectures = "spacy-slmre.SmallLM.v1"`."""
    return make_extractor(nlp, name, model, settings)
