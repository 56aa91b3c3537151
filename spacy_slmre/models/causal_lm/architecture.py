"""The small language model as an architecture of spaCy's configs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spacy_slmre.models.causal_lm.adapter import PACKAGED_ADAPTER, Adapter, AdapterRecord
from spacy_slmre.models.causal_lm.loading import PACKAGED_BASE, ModelError
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.causal_lm.settings import SmallLMSettings
from spacy_slmre.models.prompts import PromptStyle, read_demonstrations, read_templates


def make_small_lm(
    base: str | None = None,
    revision: str | None = None,
    adapter: str | None = "auto",
    quantization: str | None = "auto",
    keep_4bit: bool = False,
    dtype: str = "auto",
    device: str = "auto",
    max_batch_tokens: int = 1024,
    prefix_cache: bool = True,
    label_list: bool | None = None,
    definitions: bool | None = None,
    demonstrations: str | None = None,
    templates: str | None = None,
    two_way: bool | None = None,
    lora_rank: int = 16,
) -> SmallLM:
    """Registered as `@architectures = "spacy-slmre.SmallLM.v1"`. Nothing is contacted, no weights are read.

    What an adapter records of itself (base model, prompt style, quantisation) is taken from it; a setting
    given here that says otherwise is an error, except that weights may be quantised otherwise.

    Args:
        base: "smollm2-135m-instruct" (the packaged model, the default), a folder, or a hub id.
        revision: Commit or tag on the hub.
        adapter: Folder of an adapter; null for the base model alone; or "auto": on the packaged model the
            adapter for everyday relations that comes with this package, on any other none.
        quantization: "nf4" puts the weights into 4 bits, null takes them as they lie; or "auto": as the
            adapter was tuned, without an adapter "nf4" where they do not lie in 4 bits already.
        keep_4bit: Keep NF4 weights in 4 bits on a CPU, where they are otherwise brought back to `dtype`.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 where the hardware computes in it.
        device: "cpu", "cuda", "cuda:1", …, or "auto": the GPU where there is one.
        max_batch_tokens: Tokens of one packed sequence.
        prefix_cache: Compute the instruction once and keep it.
        label_list: The instruction lists the labels (default: yes).
        definitions: The list gives their definitions (default: yes).
        demonstrations: JSONL file of labelled instances shown in the instruction, each with "text",
            "head" and "tail" as [start, end, type], and "label".
        templates: Folder with system.jinja, context.jinja and query.jinja; one that it lacks is the default.
        two_way: The tokens of a text see all of it, and not only what stands before them (default: no). For
            tuning: an adapter that was tuned so says it by itself.
        lora_rank: Rank of the adapter that `nlp.update` makes where there is none; its alpha is twice that.

    Raises:
        ModelError: A setting is out of its range, or contradicts the adapter.
    """
    # A saved pipeline brings adapter, demonstrations and templates along, while its config still names the
    # files that they came from: that these are gone is an error only when the model is wanted without them.
    found: Adapter | None = None
    problem: ModelError | None = None
    style = PromptStyle()
    given: dict[str, Any] = {"label_list": label_list, "definitions": definitions, "two_way": two_way}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        if adapter == "auto":
            found = (
                Adapter.from_folder(PACKAGED_ADAPTER) if (base or PACKAGED_BASE) == PACKAGED_BASE else None
            )
        elif adapter is not None:
            found = Adapter.from_folder(adapter)
        if demonstrations is not None:
            given["demonstrations"] = read_demonstrations(Path(demonstrations))
        if templates is not None:
            given["templates"] = read_templates(templates)
    except ModelError as error:
        problem = error
    except ValueError as error:
        problem = ModelError(str(error))
    record = found.record if found is not None else None
    if record is not None:
        _check_record(record, given)
        style = record.style
    else:
        style = PromptStyle(**given)
    settings = SmallLMSettings(
        base=base or (record.base.name if record else PACKAGED_BASE),
        revision=revision or (record.base.revision if record else None),
        quantization=quantization,
        keep_4bit=keep_4bit,
        dtype=dtype,
        device=device,
        max_batch_tokens=max_batch_tokens,
        prefix_cache=prefix_cache,
        style=style,
        lora_rank=lora_rank,
    )
    configured = {
        "base": base,
        "revision": revision,
        "adapter": adapter,
        "quantization": quantization,
        "label_list": label_list,
        "definitions": definitions,
        "demonstrations": demonstrations,
        "templates": templates,
        "two_way": two_way,
    }
    return SmallLM(settings, found, problem=problem, configured=configured)


def _check_record(record: AdapterRecord, given: Mapping[str, Any]) -> None:
    """Raise where a setting contradicts what the adapter was tuned with."""
    for name, value in given.items():
        if getattr(record.style, name) != value:
            raise ModelError(
                f"model.{name} contradicts the adapter, which was tuned with another value "
                f"({getattr(record.style, name)!r}). Leave model.{name} out, tune an adapter with it, or set "
                "model.adapter = null for the base model alone."
            )
