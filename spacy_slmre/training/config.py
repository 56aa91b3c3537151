"""The config of a tuning run: read, completed, and checked before the first document is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from catalogue import RegistryError
from confection import Config, ConfigValidationError
from pydantic import TypeAdapter, ValidationError
from spacy import registry

from spacy_slmre.corpus.readers import Reader
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.schema import LabelSchema
from spacy_slmre.training.settings import TuningError, TuningSettings

SECTIONS = ("paths", "tune", "model", "lora", "training", "corpora", "schema")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The section [tune] of a config.

    Attributes:
        regime: What is tuned on, where the config's paths use it: "gentune", "littune", "mixtune", ….
        shots: Demonstrations in every prompt, drawn by `training.seed` from the training instances of each
            benchmark: half of them with a relation, half without.
        holdout: Share of the training documents that serves as dev where a benchmark has no dev split.
        lang: Language of the pipeline that comes out.

    Raises:
        TuningError: A value is out of its range.
    """

    regime: str = ""
    shots: int = 0
    holdout: float = 0.15
    lang: str = "en"

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise TuningError(f"tune.shots = {self.shots}, but it must be 0 or more.")
        if not 0 <= self.holdout < 1:
            raise TuningError(f"tune.holdout = {self.holdout}, but it is a share of the documents (0 to 1).")


@dataclass(frozen=True)
class TuningConfig:
    """A config, resolved: nothing was read or contacted yet.

    Attributes:
        text: The whole config as it is written to the output.
        run: The section [tune].
        model: The model.
        model_block: The section [model] as it stands.
        lora: The section [lora].
        training: The section [training].
        train: Reads the training examples.
        dev: Reads the dev examples.
        schema: The section [schema], where there is one; else each benchmark has its own labels.
    """

    text: str
    run: RunSettings
    model: SmallLM
    model_block: dict[str, Any]
    lora: LoraSettings
    training: TuningSettings
    train: Reader
    dev: Reader
    schema: LabelSchema | None


def read_config(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """A config with what it extends, and values given on the command line.

    A config whose section [tune] has `extends = "other.cfg"` takes everything from that file, beside it, that
    it does not say itself.

    Raises:
        TuningError: A file cannot be read, is no config, or an overridden setting is not in it.
    """
    try:
        merged = _merge(path, ())
        return Config().from_str(merged.to_str(), overrides=dict(overrides or {}))
    except OSError as error:
        raise TuningError(f"The config {error.filename} cannot be read: {error.strerror}.") from error
    except ConfigValidationError as error:
        raise TuningError(f"{path}: {_told(error)}") from error


def _merge(path: Path, above: tuple[Path, ...]) -> Config:
    if path in above:
        raise TuningError(f"{path} extends itself, by way of {above[-1]}.")
    with path.open(encoding="utf-8") as file:
        config = Config().from_str(file.read(), interpolate=False)
    extended = config.get("tune", {}).pop("extends", None)
    return _merge(path.parent / extended, (*above, path)).merge(config) if extended else config


def resolve_config(config: Config, where: str) -> TuningConfig:
    """Check a config and make what it describes.

    Args:
        config: What `read_config` gave.
        where: Its name, for messages.

    Raises:
        TuningError: A section is missing or unknown, or a setting is unknown or has a wrong value.
    """
    if unknown := sorted(set(config) - set(SECTIONS)):
        raise TuningError(
            f"{where}: unknown sections: {', '.join(unknown)}; there are {', '.join(SECTIONS)}."
        )
    corpora = config.get("corpora", {})
    if missing := [split for split in ("train", "dev") if split not in corpora]:
        raise TuningError(
            f"{where} has no section [corpora.{missing[0]}]: give a reader, for instance "
            '@readers = "spacy-slmre.RelationCorpus.v1" with a path.'
        )
    run = _validated(RunSettings, config, "tune", where)
    lora = _validated(LoraSettings, config, "lora", where)
    training = _validated(TuningSettings, config, "training", where)
    model_block = config.get("model", {"@architectures": "spacy-slmre.SmallLM.v1"})
    try:
        resolved: dict[str, Any] = registry.resolve(
            {"model": model_block, "schema": config.get("schema") or {}, "corpora": corpora}
        )
    except ConfigValidationError as error:
        raise TuningError(f"{where}: {_told(error)}") from error
    except RegistryError as error:
        raise TuningError(f"{where}: {error}") from error
    model, schema = resolved["model"], resolved["schema"] or None
    if not isinstance(model, SmallLM) or not all(callable(reader) for reader in resolved["corpora"].values()):
        raise TuningError(
            f'{where}: [model] needs @architectures = "spacy-slmre.SmallLM.v1", and [corpora.train] and '
            '[corpora.dev] need @readers = "spacy-slmre.RelationCorpus.v1" or another reader.'
        )
    adapted = model.adapter is not None and model.adapter.record is not None
    if run.shots and (adapted or model.style.examples):
        what = "adapter" if adapted else "model.examples"
        raise TuningError(
            f"{where}: tune.shots draws demonstrations, but those of the {what} are given: set 0."
        )
    readers: dict[str, Callable] = resolved["corpora"]
    return TuningConfig(
        config.to_str(),
        run,
        model,
        dict(model_block),
        lora,
        training,
        readers["train"],
        readers["dev"],
        schema,
    )


def _validated(kind: type[T], config: Mapping[str, Any], section: str, where: str) -> T:
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(set(config.get(section, {})) - set(known)):
        raise TuningError(
            f"{where}: unknown settings: {', '.join(f'{section}.{name}' for name in unknown)}; [{section}] "
            f"has {', '.join(known)}."
        )
    try:
        return TypeAdapter(kind).validate_python(dict(config.get(section, {})))
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            raised = problem.get("ctx", {}).get("error")
            name = ".".join([section, *map(str, problem["loc"])])
            problems.append(str(raised) if raised else f"{name} = {problem['input']!r}: {problem['msg']}.")
        raise TuningError(f"{where}: {' '.join(problems)}") from error


def _told(error: ConfigValidationError) -> str:
    problems = [f"{' -> '.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors or ()]
    return "; ".join(problems) or str(error.desc or error.title or error).strip()
