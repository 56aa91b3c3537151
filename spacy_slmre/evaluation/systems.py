"""Prepare a pipeline's relation component, local or LLM, for the evaluation on a corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from spacy.language import Language
from spacy.tokens import Doc

from spacy_slmre.candidates import CandidateGenerator, GivenPairs
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.evaluation.runs import EvaluationError
from spacy_slmre.facts import LEVELS
from spacy_slmre.gold import PairKey, pair_key
from spacy_slmre.instances import RelationInstance, make_doc_instances
from spacy_slmre.label_parser import LabelParser
from spacy_slmre.llm.component import get_llm_component, get_llm_components, load_llm_component
from spacy_slmre.llm.cost import cost_of, estimate
from spacy_slmre.models.causal_lm.generation import generate_answers
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.encoder.model import EncoderClassifier
from spacy_slmre.pipeline.components import get_relation_extractor
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.relations import ANSWERS
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.settings import check_choice, check_minimum

if TYPE_CHECKING:
    from spacy_llm.pipeline import LLMWrapper

_CHOICES: dict[str, tuple[str, ...]] = {
    "level": LEVELS,
    "pairs": ("annotated", "proposed"),
    "labels": ("auto", "pipeline", "corpus"),
    "prompt": ("own", "schema", "generic"),
    "decoding": ("scored", "generated"),
}


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a pipeline is evaluated.

    Attributes:
        name: Name of the system in reports; by default the name of its model. `slmre evaluate` sets it.
        component: The relation component, if there are several.
        level: "mentions" evaluates pairs of mentions, "facts" pairs of entities: the facts that the component finds
            with its own candidates and limits are compared with the gold facts, which may be stated anywhere in the
            document. Then `pairs` has no effect.
        pairs: "annotated" evaluates the pairs of the corpus with known labels, by `spacy_slmre.gold`; "proposed" also
            the component's candidates, unless their labels are unknown.
        labels: Label set of the "pipeline" or of the "corpus"; "auto" is that of the corpus for language models
            without configured labels, and otherwise that of the pipeline.
        prompt: Prompt of a language model: "own" as configured, or with ("schema") or without ("generic") a list of
            the labels.
        decoding: "scored" for label probabilities, "generated" for free text, as in the study.
        top: Number of labels to store per pair.
        max_labels_per_pair: Number of labels that a pair may have. With 1, the benchmark protocol, a pair has its best
            label, so that recall is limited if pairs have several gold labels; with more, which needs a threshold, all
            labels of the component are counted.
        max_new_tokens: Maximum length of a generated answer.
        limit: Read documents until they have this many pairs; 0 reads all.

    Raises:
        EvaluationError: A setting is out of range.
    """

    name: str = ""
    component: str | None = None
    level: str = "mentions"
    pairs: str = "annotated"
    labels: str = "auto"
    prompt: str = "own"
    decoding: str = "scored"
    top: int = 3
    max_labels_per_pair: int = 1
    max_new_tokens: int = 16
    limit: int = 0

    def __post_init__(self) -> None:
        check_choice(self, "evaluation", EvaluationError, **_CHOICES)
        check_minimum(self, "evaluation", EvaluationError, top=1, max_labels_per_pair=1, max_new_tokens=1, limit=0)

    @property
    def uses_given_pairs(self) -> bool:
        """Whether the component labels the pairs of the corpus instead of its own candidates."""
        return self.level == "mentions" and self.pairs == "annotated"


@dataclass(frozen=True, slots=True)
class Answer:
    """A system's prediction for a pair."""

    predicted: str | None  # None for the negative label
    top: tuple[tuple[str, float], ...] = ()  # the most probable labels and their probabilities, if known
    text: str | None = None  # written by a generative model
    truncated: bool = False  # the context was truncated
    labels: tuple[str, ...] | None = None  # all predicted labels, if pairs may have several


Predictor = Callable[[Sequence[Doc]], list[dict[PairKey, Answer]]]
"""Labels the candidate pairs of documents; pairs without an answer are omitted."""


@dataclass(frozen=True)
class EvaluatedSystem:
    """A system that is ready to predict.

    Attributes:
        predict: Labels the pairs of documents.
        schema: The label set.
        candidates: Proposes pairs.
        attr: Gold relations are read from this attribute if `doc._.relations` is empty.
        info: Description of the system for `run.json`.
        device: Device of a local model.
        count_tokens: Counts the prompt tokens of instances as if each had its own prompt.
        estimate: Describes the estimated cost of annotating documents.
        usage: Requests and tokens of a remote service so far.
        cost: Cost of such usage in US dollars, if known.
    """

    predict: Predictor
    schema: LabelSchema
    candidates: CandidateGenerator
    attr: str
    info: dict[str, Any]
    device: torch.device | None = None
    count_tokens: Callable[[Sequence[RelationInstance]], int] = lambda instances: 0
    estimate: Callable[[list[Doc]], str] | None = None
    usage: Callable[[], Mapping[str, int]] = dict
    cost: Callable[[Mapping[str, int]], float | None] = lambda usage: None


def make_system(nlp: Language, settings: EvaluationSettings, corpus: CorpusFormat | None) -> EvaluatedSystem:
    """Prepare a pipeline's relation component for a corpus; its labels and prompt are changed in place.

    Raises:
        EvaluationError: A setting does not fit the component.
        ValueError: The component does not exist, or its weights are not available.
    """
    several = settings.max_labels_per_pair > 1
    llms = get_llm_components(nlp)
    if several and (llms or settings.decoding == "generated"):
        raise EvaluationError("evaluation.max_labels_per_pair > 1, but a generated answer is one label.")
    if llms and (settings.component is None or settings.component in llms):
        return _llm_system(get_llm_component(nlp, settings.component)[1], settings, corpus)
    name, pipe = get_relation_extractor(nlp, settings.component)
    model = pipe.model
    if not isinstance(model, SmallLM):
        for setting, default in (("prompt", "own"), ("decoding", "scored")):
            if (value := getattr(settings, setting)) != default:
                raise EvaluationError(
                    f'evaluation.{setting} = "{value}", but the model of "{name}" is not a language model alone.'
                )
    if settings.uses_given_pairs:
        pipe.candidates = GivenPairs()
    else:
        pipe.use_gold_pairs = False
    has_own_labels = isinstance(model, EncoderClassifier) or pipe.has_own_labels
    if (schema := _corpus_labels(settings, corpus, has_own_labels)) is not None:
        pipe.set_schema(schema)
    if isinstance(model, SmallLM) and settings.prompt != "own":
        model.load()
        model.set_prompt_style(replace(model.style, label_list=settings.prompt == "schema"))
    pipe.load()
    if several:
        if pipe.decoding.threshold is None and not pipe.label_thresholds:
            raise EvaluationError(
                f'evaluation.max_labels_per_pair = {settings.max_labels_per_pair}, but "{name}" has no threshold, so '
                "that each pair gets its most probable label only. Set its threshold, or run slmre calibrate."
            )
        pipe.settings = replace(pipe.settings, max_labels_per_pair=settings.max_labels_per_pair)
    of_model = model.info
    info: dict[str, Any] = {"kind": of_model.kind, "system": of_model.name, "params": of_model.n_parameters}
    info |= {"model": of_model.name, "style": "", "prompt": "", "decoding": ""}
    predict = _scored(pipe, settings.top, several=several or settings.level == "facts")
    if isinstance(model, SmallLM):
        n_examples = len(model.style.examples_for(pipe.schema)) + len(model.resolved.examples)
        info |= {"decoding": settings.decoding, **_prompt_info(n_examples, model.style.label_list)}
        if settings.decoding == "generated":
            predict = _generated(pipe, model, settings.max_new_tokens)
    tuning = nlp.meta.get("tuning") or {}
    info |= {"regime": str(tuning.get("regime", "")), "dapt": bool(tuning.get("dapt", False))}
    return EvaluatedSystem(
        predict,
        pipe.schema,
        pipe.candidates,
        pipe.attr,
        info,
        of_model.device,
        lambda instances: model.count_tokens(instances, pipe.schema),
    )


def _llm_system(component: LLMWrapper, settings: EvaluationSettings, corpus: CorpusFormat | None) -> EvaluatedSystem:
    task = component.task
    if settings.uses_given_pairs:
        task.candidates = GivenPairs()
    task.schema = _corpus_labels(settings, corpus, False) or task.schema
    if settings.prompt != "own":
        task.style = replace(task.style, label_list=settings.prompt == "schema")
    load_llm_component(component)
    model = component._model  # spacy-llm has no public attribute for the model
    name = Path(str(getattr(model, "name", type(model).__name__))).name
    return EvaluatedSystem(
        _answered(component, task.schema),
        task.schema,
        task.candidates,
        task.attr,
        info={
            "kind": "llm",
            "system": name,
            "model": name,
            "params": None,
            **_prompt_info(len(task.style.examples_for(task.schema)), task.style.label_list),
            "decoding": "generated",
            "regime": "",
            "dapt": False,
        },
        estimate=lambda docs: str(estimate(component, docs)),
        usage=lambda: vars(model.usage) if hasattr(model, "usage") else {},
        cost=lambda usage: cost_of(model, usage.get("input_tokens", 0), usage.get("output_tokens", 0)),
    )


def _corpus_labels(
    settings: EvaluationSettings, corpus: CorpusFormat | None, has_own_labels: bool
) -> LabelSchema | None:
    """Return the label set of the corpus, or None if the pipeline's is to be used."""
    if settings.labels == "pipeline" or (settings.labels == "auto" and has_own_labels):
        return None
    if settings.labels == "corpus" and (corpus is None or corpus.schema is None):
        raise EvaluationError('evaluation.labels = "corpus", but the corpus does not record its label set.')
    return corpus.schema if corpus is not None else None


def _prompt_info(n_examples: int, label_list: bool) -> dict[str, str]:
    return {"style": f"{n_examples}-shot", "prompt": "schema" if label_list else "generic"}


# -- predictors ------------------------------------------------------------------------------------


def _scored(pipe: RelationExtractor, k: int, *, several: bool) -> Predictor:
    """Predict labels from the component's probabilities, several for each pair or its best."""

    def predict(docs: Sequence[Doc]) -> list[dict[PairKey, Answer]]:
        answers = []
        for prediction in pipe.predict(docs, k):
            labels: dict[PairKey, list[str]] = {}
            for head, tail, label, _ in prediction.relations:
                labels.setdefault(pair_key(head, tail), []).append(label)
            doc_answers = {}
            for pair in prediction.pairs:
                of_pair = labels.get(key := pair_key(pair.head, pair.tail), [])
                best = of_pair[0] if of_pair else None
                every = tuple(of_pair) if several else None
                doc_answers[key] = Answer(best, pair.labels, None, pair.truncated, every)
            answers.append(doc_answers)
        return answers

    return predict


def _generated(pipe: RelationExtractor, lm: SmallLM, max_new_tokens: int) -> Predictor:
    """Predict as in the study: generate free text and compare it with the labels."""
    parse = LabelParser(pipe.schema).parse

    def truncate(instances: Sequence[RelationInstance]) -> list[RelationInstance | None]:
        return lm.truncate(instances, pipe.schema, pipe.max_context_tokens)

    def predict(docs: Sequence[Doc]) -> list[dict[PairKey, Answer]]:
        found = [make_doc_instances(doc, pipe.candidates, pipe.schema, truncate) for doc in docs]
        instances = [instance for of_doc in found for instance in of_doc.instances]
        texts = iter(generate_answers(lm, instances, pipe.schema, max_new_tokens=max_new_tokens))
        return [
            {
                pair_key(*pair): Answer(parse(text), (), text, truncated)
                for pair, truncated, text in zip(of_doc.pairs, of_doc.truncated, texts, strict=False)
            }
            for of_doc in found
        ]

    return predict


def _answered(component: LLMWrapper, schema: LabelSchema) -> Predictor:
    """Predict labels from the answers that the spacy-llm task stores."""
    parse = LabelParser(schema).parse

    def predict(docs: Sequence[Doc]) -> list[dict[PairKey, Answer]]:
        return [
            {
                (*record["head"], *record["tail"]): Answer(parse(record["answer"]), (), record["answer"])
                for record in getattr(doc._, ANSWERS)
                if record["answer"] is not None
            }
            for doc in component.pipe(iter(docs), batch_size=len(docs))
        ]

    return predict
