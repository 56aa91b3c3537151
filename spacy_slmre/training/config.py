"""Tuning configs: sections and settings, inheritance with `extends`, and the objects that a config describes."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogue import RegistryError
from confection import Config, ConfigValidationError
from spacy import registry
from transformers.integrations import get_available_reporting_integrations
from transformers.training_args import OptimizerNames

from spacy_slmre.corpus.label_sets import LabelSetReader
from spacy_slmre.corpus.readers import ExampleReader
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.causal_lm.sequences import OBJECTIVES
from spacy_slmre.schema import LabelSchema
from spacy_slmre.training.label_sampling import SamplingSettings
from spacy_slmre.util.settings import (
    check_choice,
    check_language,
    check_minimum,
    check_positive,
    check_probability,
    validate_section,
)

SECTIONS = ("paths", "tune", "model", "lora", "training", "encoder", "sampling", "corpora")
ADAPTER_DTYPES = ("float32", "bfloat16")
SHIPPED_CONFIGS = Path(__file__).parent / "configs"
"""Folder of the configs that a config can extend by name: one for each base model, and what these share."""
MIN_TEXT_TOKENS = 64
"""Minimum number of tokens that instruction and labels must leave for the texts of a sequence."""


class TuningError(ValueError):
    """Training cannot start or continue."""


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """The section [tune] of a config.

    Attributes:
        regime: Name of the training data, for use in the config's paths: "gentune", "littune", ….
        shots: Number of few-shot examples in every prompt, drawn with `training.seed` from the training instances of
            each label set: half of them with a relation, half without.
        holdout: Fraction of the training documents used as dev set if a corpus has no dev documents.
        lang: Language of the resulting pipeline.
        schema: One label set for all data: a list of names, a dict, the path of a schema file, or a registered
            function. By default, each benchmark has its own labels, and any other corpus the labels that occur in it.
        ner: Name or path of a pipeline that finds the entities; its components come first in the resulting pipeline,
            which then reads raw text.
    """

    regime: str = ""
    shots: int = 0
    holdout: float = 0.15
    lang: str = "en"
    schema: Any = None
    ner: str | None = None

    def __post_init__(self) -> None:
        check_minimum(self, "tune", TuningError, shots=0)
        check_language(self.lang, "tune.lang", TuningError)
        check_probability(self, "tune", TuningError, names=["holdout"], below_1=True)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The section [training] of a config; most names are those of `TrainingArguments`.

    Attributes:
        objective: "trie" (negative log-probability of the gold label among all labels) or "lm" (the study's language
            modeling loss on the answer tokens).
        max_tokens: Maximum number of tokens in a packed sequence, including the instruction.
        gradient_accumulation_steps: Packed sequences per optimizer step and device.
        num_train_epochs: Passes through the training data.
        max_steps: Stop after this many optimizer steps; -1 sets no limit.
        learning_rate: Peak learning rate.
        lr_scheduler_type: "linear", "cosine" or "constant_with_warmup".
        warmup_ratio: Fraction of the steps used for learning rate warmup.
        weight_decay: Weight decay of AdamW.
        max_grad_norm: Gradients are clipped to this norm.
        optim: An optimizer supported by transformers; "auto" is paged 8-bit AdamW on a GPU, otherwise AdamW.
        gradient_checkpointing: Recompute activations in the backward pass, which saves memory but takes longer.
        eval_steps: Steps between evaluations, each with a checkpoint; 0 evaluates after every epoch.
        early_stopping_patience: Stop after this many evaluations without improvement; 0 disables early stopping.
        target_loss: Stop when the mean training loss of ten steps is below this; 0 trains for all steps.
        adapter_dtype: Data type of the saved adapter, "bfloat16" or "float32".
        seed: Random seed for weight initialization, data order and dropout.
        report_to: Installed trackers supported by transformers ("tensorboard", "wandb", …).
    """

    objective: str = "trie"
    max_tokens: int = 1024
    gradient_accumulation_steps: int = 2
    num_train_epochs: float = 2.0
    max_steps: int = -1
    learning_rate: float = 1e-4
    lr_scheduler_type: str = "linear"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    optim: str = "auto"
    gradient_checkpointing: bool = False
    eval_steps: int = 0
    early_stopping_patience: int = 0
    target_loss: float = 0.0
    adapter_dtype: str = "bfloat16"
    seed: int = 42
    report_to: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_choice(
            self,
            "training",
            TuningError,
            objective=OBJECTIVES,
            lr_scheduler_type=("linear", "cosine", "constant_with_warmup"),
            adapter_dtype=ADAPTER_DTYPES,
            optim=("auto", *(name.value for name in OptimizerNames)),
        )
        minima = {"max_tokens": MIN_TEXT_TOKENS, "gradient_accumulation_steps": 1}
        others = ("eval_steps", "early_stopping_patience", "target_loss", "weight_decay", "max_grad_norm")
        check_minimum(self, "training", TuningError, **minima, **dict.fromkeys(others, 0))
        check_schedule(self)
        available = get_available_reporting_integrations()
        if self.report_to not in (["all"], ["none"]) and (unknown := {*self.report_to} - {*available}):
            raise TuningError(
                f"training.report_to: {', '.join(sorted(unknown))} is not supported by transformers, or its package "
                f"is not installed. Available trackers: {', '.join(available) or 'none'}."
            )


@dataclass(frozen=True, kw_only=True)
class EncoderTuningSettings:
    """The section [encoder] of a config: an encoder is trained on the same data, and both models become a cascade.

    Training continues with the shipped encoder for any labels; the checkpoint with the best dev score is kept. Names
    that are also in [training] mean the same there.

    Attributes:
        weight: Weight of the encoder in the mean of both models; 0 tunes the language model alone.
        min_prob: Minimum probability of any relation, according to the encoder, for asking the language model.
        num_train_epochs: Passes through the training data.
        max_steps: Stop after this many steps, each with at least 32 pairs; until then, the learning rate falls to 0.
        eval_steps: Steps between evaluations.
        early_stopping_patience: Stop after this many evaluations without improvement; 0 disables early stopping.
        target_loss: Stop when the mean training loss since the last evaluation is below this; 0 trains for all steps.
        learning_rate: Peak learning rate.
    """

    weight: float = 0.0
    min_prob: float = 0.02
    num_train_epochs: int = 30
    max_steps: int = 2000
    eval_steps: int = 25
    early_stopping_patience: int = 12
    target_loss: float = 0.01
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        check_probability(self, "encoder", TuningError, names=["weight", "min_prob"])
        check_minimum(self, "encoder", TuningError, **dict.fromkeys(("num_train_epochs", "max_steps", "eval_steps"), 1))
        check_minimum(self, "encoder", TuningError, early_stopping_patience=0, target_loss=0.0)
        check_positive(self, "encoder", TuningError, names=["learning_rate"])


def check_schedule(settings: Any) -> None:
    """Check the length of a training and its learning rate, which [training] has in every config."""
    check_minimum(settings, "training", TuningError, max_steps=-1)
    if settings.max_steps == 0:
        raise TuningError("training.max_steps = 0, but it must be at least 1, or -1 for no limit.")
    check_positive(settings, "training", TuningError, names=["num_train_epochs", "learning_rate"])
    check_probability(settings, "training", TuningError, names=["warmup_ratio"], below_1=True)


@dataclass(frozen=True)
class TuningConfig:
    """A resolved config. No weights or documents have been loaded yet.

    Attributes:
        text: The complete config, which is written to the output.
        model_block: The section [model] that `model` was created from.
        schema: The label set in `tune.schema`.
        train: Reads the training data: examples, or label sets for training with random labels.
        dev: Reads the dev data, of the same kind.
        encoder: How the encoder of a cascade is trained.
        sampling: How labels are drawn, for label sets.
    """

    text: str
    tune: TuningSettings
    lora: LoraSettings
    training: TrainingSettings
    model: SmallLM
    model_block: dict[str, Any]
    schema: LabelSchema | None
    train: ExampleReader | LabelSetReader
    dev: ExampleReader | LabelSetReader
    encoder: EncoderTuningSettings = EncoderTuningSettings()
    sampling: SamplingSettings | None = None


def read_config(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a config, including the configs that it extends and overrides from the command line.

    A config with `extends = "other.cfg"` in its section [tune] inherits the settings of that file; the path is
    relative to the config.

    Args:
        path: The config, or the name of a shipped one, see `find_config`.
        overrides: Settings by name.

    Raises:
        TuningError: A file cannot be read or parsed, or an overridden setting does not exist.
    """
    try:
        return Config().from_str(_merge(find_config(path), ()).to_str(), overrides=dict(overrides or {}))
    except OSError as error:
        names = ", ".join(sorted(file.name for file in SHIPPED_CONFIGS.glob("*.cfg")))
        raise TuningError(
            f"The config {error.filename} cannot be read: {error.strerror}. Shipped configs: {names}."
        ) from error
    except ConfigValidationError as error:
        raise TuningError(f"{path}: {_describe(error)}") from error


def find_config(name: str | Path, folder: Path = Path()) -> Path:
    """Return the path of a config, given relative to a folder; if there is no such file, that of the shipped one."""
    path, shipped = folder / name, SHIPPED_CONFIGS / name
    is_name = len(Path(name).parts) == 1
    return shipped if is_name and shipped.is_file() and not path.exists() else path


def parse_config(text: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Return a complete config with overrides from the command line.

    Raises:
        TuningError: An overridden setting does not exist.
    """
    try:
        return Config().from_str(text, overrides=dict(overrides or {}))
    except ConfigValidationError as error:
        raise TuningError(_describe(error)) from error


def _merge(path: Path, children: tuple[Path, ...]) -> Config:
    if path in children:
        raise TuningError(f"{path} extends itself through {children[-1]}.")
    try:
        config = Config().from_str(path.read_text(encoding="utf-8"), interpolate=False)
    except (configparser.Error, UnicodeError) as error:  # for instance a setting that occurs twice
        raise TuningError(f"{path} is not a valid config: {error}") from error
    extended = config.get("tune", {}).pop("extends", None)
    if not isinstance(extended, str | None):
        raise TuningError(
            f"{path}: tune.extends = {extended!r}, but it must be the path of another config or the name of a shipped "
            "one."
        )
    if not extended:
        return config
    return _merge(find_config(extended, path.parent), (*children, path)).merge(config)


def resolve_config(config: Config, name: str) -> TuningConfig:
    """Check a config and create the objects that it describes.

    Args:
        config: The result of `read_config`.
        name: Name of the config, for error messages.

    Raises:
        TuningError: A section is missing or unknown, or a setting is unknown or has a wrong value.
    """
    if unknown := sorted(set(config) - set(SECTIONS)):
        raise TuningError(f"{name}: unknown sections: {', '.join(unknown)}. Expected: {', '.join(SECTIONS)}.")
    sections = {section: config.get(section, {}) for section in SECTIONS}
    sections["model"] = sections["model"] or {"@architectures": "spacy-slmre.SmallLM.v1"}
    if missing := [split for split in ("train", "dev") if split not in sections["corpora"]]:
        raise TuningError(
            f"{name} has no section [corpora.{missing[0]}]. Add one with a reader, for example "
            '@readers = "spacy-slmre.RelationCorpus.v1" and a path.'
        )
    if unset := [split for split in ("train", "dev") if sections["corpora"][split].get("path", "") is None]:
        raise TuningError(
            f"{name}: corpora.{unset[0]}.path is null. Set it, or the setting in [paths] that it refers to, to a "
            ".spacy file or a folder of them."
        )
    lora = validate_section(LoraSettings, sections, "lora", name, TuningError)
    training = validate_section(TrainingSettings, sections, "training", name, TuningError)
    encoder = validate_section(EncoderTuningSettings, sections, "encoder", name, TuningError)
    sampling = validate_section(SamplingSettings, sections, "sampling", name, TuningError)
    try:
        resolved = registry.resolve({section: sections[section] for section in ("tune", "model", "corpora")})
    except (ConfigValidationError, RegistryError) as error:
        raise TuningError(f"{name}: {_describe(error)}") from error
    tune = validate_section(TuningSettings, resolved, "tune", name, TuningError)
    model, readers = resolved["model"], resolved["corpora"]
    if not isinstance(model, SmallLM) or not all(map(callable, readers.values())):
        raise TuningError(
            f'{name}: [model] must have @architectures = "spacy-slmre.SmallLM.v1", and [corpora.train] and '
            '[corpora.dev] need @readers = "spacy-slmre.RelationCorpus.v1" or another reader.'
        )
    record = model.adapter.record if model.adapter is not None else None
    is_fixed = record is not None and not record.is_for_any_labels
    if tune.shots and (is_fixed or model.style.examples):
        source = "its adapter" if is_fixed else "model.examples"
        raise TuningError(f"{name}: the model already has few-shot examples, from {source}. Set tune.shots = 0.")
    n_sampled = sum(isinstance(readers[split], LabelSetReader) for split in ("train", "dev"))
    if n_sampled == 1:
        raise TuningError(f'{name}: use "spacy-slmre.LabelSets.v1" for both [corpora.train] and [corpora.dev].')
    if n_sampled and (tune.shots or tune.schema is not None):
        raise TuningError(
            f"{name}: labels and few-shot examples are drawn at random: leave out tune.schema and tune.shots."
        )
    if n_sampled and encoder.weight:
        raise TuningError(f"{name}: an encoder is not trained with random labels: leave out [encoder].")
    if n_sampled and training.max_steps < 1:
        raise TuningError(f"{name}: every step draws new labels, so training has no epochs: set training.max_steps.")
    if "sampling" in config and not n_sampled:
        raise TuningError(f'{name}: [sampling] requires [corpora.train] with @readers = "spacy-slmre.LabelSets.v1".')
    try:
        schema = None if tune.schema is None else LabelSchema.from_any(tune.schema)
    except (TypeError, ValueError) as error:
        raise TuningError(f"{name}: tune.schema: {error}") from error
    return TuningConfig(
        text=config.to_str(),
        tune=tune,
        lora=lora,
        training=training,
        model=model,
        model_block=dict(sections["model"]),
        schema=schema,
        train=readers["train"],
        dev=readers["dev"],
        encoder=encoder,
        sampling=sampling if n_sampled else None,
    )


def _describe(error: ConfigValidationError | RegistryError) -> str:
    if isinstance(error, RegistryError):
        return str(error)
    problems = [f"{' -> '.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors or ()]
    return "; ".join(problems) or str(error.desc or error.title or error).strip()
