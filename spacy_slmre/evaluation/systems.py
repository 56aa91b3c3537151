"""What is evaluated: a pipeline's relation component, its labels, and what there is to say of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from spacy.language import Language
from spacy.tokens import Doc

from spacy_slmre.candidates import CandidateGenerator, GivenPairs
from spacy_slmre.corpus.formats import CorpusFormat
from spacy_slmre.evaluation.predictors import System, asking, generating, scoring
from spacy_slmre.evaluation.runs import EvaluationError
from spacy_slmre.instances import RelationInstance, contexts_of
from spacy_slmre.llm.component import get_llm_component, get_llm_components, load_llm_component
from spacy_slmre.llm.cost import Estimate, cost_of, estimate
from spacy_slmre.models import hub
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.encoder.model import EncoderClassifier
from spacy_slmre.pipeline.relation_extractor import RelationExtractor, get_relation_extractor
from spacy_slmre.schema import LabelSchema

if TYPE_CHECKING:
    from spacy_llm.pipeline import LLMWrapper

REGIMES = {"gentune": "GenTune", "littune": "LitTune", "mixtune": "MixTune"}
"""As the study calls them."""
UNKNOWN_BENCHMARK = "--labels benchmark: the corpus does not say which benchmark it is."
CHOICES = {
    "pairs": ("annotated", "proposed"),
    "labels": ("auto", "pipeline", "benchmark"),
    "prompt": ("own", "schema", "generic"),
    "decoding": ("scored", "generated"),
}


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How to ask a pipeline.

    Attributes:
        name: What the system is called; if empty, what the pipeline calls itself.
        component: The relation component, where there are several.
        pairs: "annotated", the pairs that the corpus annotates, or "proposed", the component's candidates.
        labels: The label set to ask for: the "pipeline"'s, the "benchmark"'s, or "auto": the benchmark's for
            a language model that is not tied to labels of its own, else the pipeline's.
        prompt: A language model's prompt: its "own", or with the list of labels ("schema") or without it
            ("generic").
        decoding: "scored" over the labels, or "generated" freely, as the study does.
        top: How many labels of each pair are written.
        max_new_tokens: Most tokens of a generated answer.
        limit: Read documents until they have this many pairs; 0 reads all.

    Raises:
        EvaluationError: A setting is out of its range.
    """

    name: str = ""
    component: str | None = None
    pairs: str = "annotated"
    labels: str = "auto"
    prompt: str = "own"
    decoding: str = "scored"
    top: int = 3
    max_new_tokens: int = 16
    limit: int = 0

    def __post_init__(self) -> None:
        for setting, allowed in CHOICES.items():
            if getattr(self, setting) not in allowed:
                raise EvaluationError(
                    f"--{setting} {getattr(self, setting)}: use {' or '.join(map(repr, allowed))}."
                )
        for setting, least in (("top", 1), ("max_new_tokens", 1), ("limit", 0)):
            if getattr(self, setting) < least:
                raise EvaluationError(
                    f"--{setting.replace('_', '-')} {getattr(self, setting)}: it must be at least {least}."
                )


@dataclass(frozen=True)
class Subject:
    """A component, ready to be asked.

    Attributes:
        system: Answers.
        schema: The labels that it is asked for.
        candidates: Proposes the pairs.
        attr: Where a corpus may have relations, beside `doc._.relations`.
        info: What `run.json` says of it.
        device: Where it computes.
        tokens: How many tokens the prompts of instances have, each with a prompt of its own.
        estimate: What it would take to annotate documents, where that may cost money.
        usage: What a service was asked so far, counted.
        cost: US dollars for such counts, where that is known.
    """

    system: System
    schema: LabelSchema
    candidates: CandidateGenerator
    attr: str
    info: dict[str, Any]
    device: torch.device | None
    tokens: Callable[[list[RelationInstance]], int]
    estimate: Callable[[list[Doc]], Estimate] | None = None
    usage: Callable[[], Mapping[str, int]] = dict
    cost: Callable[[Mapping[str, int]], float | None] = lambda usage: None


def make_subject(nlp: Language, settings: EvaluationSettings, benchmark: CorpusFormat | None) -> Subject:
    """The relation component of a pipeline as it is to be asked.

    Raises:
        EvaluationError: There is none, or it has no prompt to change.
        ValueError: Its weights cannot be had.
    """
    llms = get_llm_components(nlp)
    if llms and (settings.component is None or settings.component in llms):
        return _llm(get_llm_component(nlp, settings.component)[1], settings, benchmark)
    name, pipe = get_relation_extractor(nlp, settings.component)
    model = pipe.model
    if settings.pairs == "annotated":
        pipe.candidates = GivenPairs()
    if isinstance(model, SmallLM):
        free = not pipe.has_own_labels
    else:
        free = False
        for setting, usual in (("prompt", "own"), ("decoding", "scored")):
            if getattr(settings, setting) != usual:
                raise EvaluationError(
                    f'--{setting} {getattr(settings, setting)}: "{name}" is no language model, and has no '
                    "prompt."
                )
    if settings.labels == "benchmark" or (settings.labels == "auto" and free):
        if benchmark is not None and benchmark.schema is not None:
            pipe.set_schema(benchmark.schema)
        elif settings.labels == "benchmark":
            raise EvaluationError(UNKNOWN_BENCHMARK)
    if isinstance(model, SmallLM):
        if settings.prompt != "own":
            model.load()
            model.set_prompt_style(replace(model.style, label_list=settings.prompt == "schema"))
        pipe.load()
        return _small_lm(nlp, pipe, model, settings)
    pipe.load()
    info: dict[str, Any] = {
        "kind": "encoder",
        "system": name,
        "params": None,
        "style": "",
        "prompt": "",
        "decoding": "",
    }
    device = None
    tokens: Callable[[list[RelationInstance]], int] = len
    if isinstance(model, EncoderClassifier):
        info["system"] = Path(model.settings.base).name
        info["params"] = sum(weights.numel() for weights in model.network.parameters())
        device = next(model.network.parameters()).device

        def tokens(instances: list[RelationInstance]) -> int:
            contexts = contexts_of(instances)
            sizes = dict(
                zip(contexts, (len(ids) for ids, _ in model.markers.tokenize(contexts)), strict=True)
            )
            return sum(sizes[instance.context] + model.markers.max_added for instance in instances)

    return Subject(
        scoring(pipe, settings.top), pipe.schema, pipe.candidates, pipe.attr, _told(nlp, info), device, tokens
    )


def _small_lm(
    nlp: Language, pipe: RelationExtractor, model: SmallLM, settings: EvaluationSettings
) -> Subject:
    style = model.style
    generated = settings.decoding == "generated"
    network = model.network
    info = {
        "kind": "slm",
        "system": Path(model.resolved.base).name,
        "params": network.num_parameters(),
        "style": f"{len(style.examples_for(pipe.schema))}-shot",
        "prompt": "schema" if style.label_list else "generic",
        "decoding": settings.decoding,
    }

    def tokens(instances: list[RelationInstance]) -> int:
        prompts = model.prompts
        contexts = contexts_of(instances)
        sizes = dict(zip(contexts, map(len, prompts.contexts(contexts)), strict=True))
        asked = sum(map(len, prompts.queries(instances)))
        prefix = len(prompts.prefix(pipe.schema))
        return asked + sum(prefix + sizes[instance.context] for instance in instances)

    system = generating(pipe, model, settings.max_new_tokens) if generated else scoring(pipe, settings.top)
    return Subject(system, pipe.schema, pipe.candidates, pipe.attr, _told(nlp, info), network.device, tokens)


def _llm(component: LLMWrapper, settings: EvaluationSettings, benchmark: CorpusFormat | None) -> Subject:
    """Return an LLM that chooses from the benchmark's labels."""
    task = component.task
    if settings.pairs == "annotated":
        task.candidates = GivenPairs()
    if settings.labels != "pipeline" and benchmark is not None and benchmark.schema is not None:
        task.schema = benchmark.schema
    elif settings.labels == "benchmark":
        raise EvaluationError(UNKNOWN_BENCHMARK)
    if settings.prompt != "own":
        task.style = replace(task.style, label_list=settings.prompt == "schema")
    load_llm_component(component)
    model = component._model  # spacy-llm has no public name for it
    info = {
        "kind": "llm",
        "system": Path(str(getattr(model, "name", type(model).__name__))).name,
        "params": None,
        "style": f"{len(task.style.examples_for(task.schema))}-shot",
        "prompt": "schema" if task.style.label_list else "generic",
        "decoding": "generated",
        "regime": "",
        "dapt": False,
    }
    return Subject(
        asking(component),
        task.schema,
        task.candidates,
        task.attr,
        info,
        None,
        lambda instances: 0,
        lambda docs: estimate(component, docs),
        lambda: vars(model.usage) if hasattr(model, "usage") else {},
        lambda usage: cost_of(model, usage.get("input_tokens", 0), usage.get("output_tokens", 0)),
    )


def _told(nlp: Language, info: dict[str, Any]) -> dict[str, Any]:
    """With what a pipeline's meta says of its tuning."""
    tuned = nlp.meta.get("tuning") or {}
    regime = str(tuned.get("regime", ""))
    return {**info, "regime": REGIMES.get(regime, regime), "dapt": bool(tuned.get("dapt", False))}


def fingerprint(nlp: Language, source: str) -> str:
    """What changes when a pipeline does: its config, and its files, or else its name and version."""
    told: list[Any] = [nlp.config.to_str()]
    folder = Path(source)
    if folder.is_dir():
        told += [
            (file.relative_to(folder).as_posix(), hub.fingerprint(file))
            for file in sorted(folder.rglob("*"))
            if file.is_file() and not file.name.startswith(".")
        ]
    else:
        told += [source, nlp.meta.get("version")]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
