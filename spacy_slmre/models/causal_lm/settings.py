"""The settings of a small language model, and the files that they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.adapter import PACKAGED_ADAPTER, Adapter
from spacy_slmre.models.causal_lm.loading import QUANTIZATIONS
from spacy_slmre.models.causal_lm.lora import MAX_RANK
from spacy_slmre.models.hub import PACKAGED_BASE, resolve_device, resolve_dtype
from spacy_slmre.models.prompts import PromptStyle, read_style
from spacy_slmre.util.settings import check_choice, check_maximum, check_minimum, check_types


@dataclass(frozen=True, kw_only=True)
class SmallLMSettings:
    """Settings of a small language model: the arguments of `spacy-slmre.SmallLM.v1`.

    By default, base model, prompt style and quantization are those that the adapter was tuned with; conflicting
    settings raise an error, except `quantization` and, with the shipped adapter or another one for any labels,
    `definitions` and `examples`. Files are read when the model is first used.

    Attributes:
        base: "smollm2-135m-instruct" (the packaged model, the default), a folder, or a hub id.
        revision: Commit or tag on the hub.
        adapter: Folder of an adapter; null for no adapter; "auto" for the shipped adapter on the packaged model, and
            none on other models.
        quantization: "nf4" quantizes the weights to 4 bits; null keeps the stored weights; "auto" is what the adapter
            was tuned with or, without an adapter, "nf4" unless the weights are already quantized.
        keep_4bit: Keep NF4 weights in 4 bits on a CPU, where they are dequantized to `dtype` by default.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 if the hardware supports it.
        device: "cpu", "cuda", "cuda:1", …, or "auto": the GPU if there is one.
        max_batch_tokens: Tokens of a packed sequence after the instruction, which is computed once.
        prefix_cache: Compute the instruction only once, and cache its keys and values.
        label_list: List the labels in the instruction (default: yes).
        definitions: Include their definitions (default: yes).
        examples: JSONL file of few-shot examples: documents with entities and relations, as `slmre extract` writes
            them, or pairs with "text", "head" and "tail" as [start, end, type], and "label". With an adapter for any
            labels, labels are fitted to them; otherwise, they are part of the prompt.
        templates: Folder with system.jinja, context.jinja and query.jinja; built-in templates replace missing ones.
        lora_rank: Rank of the adapter that `nlp.update` creates if there is none; alpha is twice the rank.

    Raises:
        ModelError: A value is out of range.
    """

    base: str | None = None
    revision: str | None = None
    adapter: str | None = "auto"
    quantization: str | None = "auto"
    keep_4bit: bool = False
    dtype: str = "auto"
    device: str = "auto"
    max_batch_tokens: int = 1024
    prefix_cache: bool = True
    label_list: bool | None = None
    definitions: bool | None = None
    examples: str | None = None
    templates: str | None = None
    lora_rank: int = 16

    def __post_init__(self) -> None:
        check_types(self, "model", ModelError)
        check_choice(self, "model", ModelError, quantization=QUANTIZATIONS)
        check_minimum(self, "model", ModelError, max_batch_tokens=1, lora_rank=1)
        check_maximum(self, "model", ModelError, lora_rank=MAX_RANK)
        resolve_dtype(self.dtype, resolve_device(self.device))


@dataclass(frozen=True)
class ResolvedSettings:
    """The base model, prompt style and adapter that settings specify, with the content of their files.

    Attributes:
        examples: Few-shot examples that labels are fitted to, in contrast to those in the prompt style.
    """

    base: str
    revision: str | None = None
    style: PromptStyle = field(default_factory=PromptStyle)
    adapter: Adapter | None = None
    examples: tuple[Mapping[str, Any], ...] = ()


def resolve_settings(settings: SmallLMSettings, adapter: Adapter | None = None) -> ResolvedSettings:
    """Read the files that settings name; `adapter` replaces the configured one.

    Raises:
        ModelError: A file is missing or damaged, or a setting conflicts with the adapter.
    """
    if adapter is None:
        adapter = _read_adapter(settings)
    try:
        style = read_style(settings.label_list, settings.definitions, settings.examples, settings.templates)
    except ValueError as error:
        raise ModelError(f"model.{error}") from error
    record = adapter.record if adapter is not None else None
    if record is None:
        base, revision = settings.base or PACKAGED_BASE, settings.revision
        return ResolvedSettings(base, revision, PromptStyle(**style), adapter)
    # An adapter for any labels was tuned with and without these.
    flexible = ("definitions", "examples") if record.is_for_any_labels else ()
    for name, value in style.items():
        if getattr(record.style, name) != value and name not in flexible:
            raise ModelError(
                f"model.{name} conflicts with the adapter, which was tuned with {getattr(record.style, name)!r}. "
                f"Remove model.{name}, tune an adapter with it, or set model.adapter = null."
            )
    base, revision = record.base.override(settings.base, settings.revision)
    chosen = {name: style[name] for name in flexible if name in style}
    examples = chosen.pop("examples", ())
    return ResolvedSettings(base, revision, replace(record.style, **chosen), adapter, examples)


def _read_adapter(settings: SmallLMSettings) -> Adapter | None:
    if settings.adapter == "auto":
        return Adapter.from_folder(PACKAGED_ADAPTER) if settings.base in (None, PACKAGED_BASE) else None
    return Adapter.from_folder(settings.adapter) if settings.adapter is not None else None
