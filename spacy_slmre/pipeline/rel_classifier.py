"""The factory `rel_classifier`: relation extraction with an encoder."""

from __future__ import annotations

from spacy.language import Language

from spacy_slmre.models.base import RelationModel
from spacy_slmre.pipeline.components import make_extractor
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.pipeline.settings import DEFAULT_SCORE_WEIGHTS, ExtractorSettings, default_config
from spacy_slmre.util.settings import takes_settings


@Language.factory(
    "rel_classifier",
    assigns=["doc._.relations"],
    requires=["doc.ents"],
    default_config=default_config({"@architectures": "spacy-slmre.UniversalEncoder.v1"}),
    default_score_weights=DEFAULT_SCORE_WEIGHTS,
)
@takes_settings(ExtractorSettings)
def make_rel_classifier(
    nlp: Language, name: str, model: RelationModel, settings: ExtractorSettings
) -> RelationExtractor:
    """Make a component that labels pairs with an encoder.

    Its model is for any labels by default, `@architectures = "spacy-slmre.UniversalEncoder.v1"`;
    "spacy-slmre.EncoderClassifier.v1" is trained on its labels. It has the same settings as `slm_relations` and can
    replace it.
    """
    return make_extractor(nlp, name, model, settings)
