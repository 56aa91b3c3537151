"""Small language models in saved pipelines, which embed their base model or refer to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.adapter import Adapter
from spacy_slmre.models.causal_lm.loading import load_base, quant_method, resolve_quantization
from spacy_slmre.models.causal_lm.settings import ResolvedSettings, SmallLMSettings, resolve_settings
from spacy_slmre.models.checkpoint import write_origin
from spacy_slmre.models.few_shot import check_examples
from spacy_slmre.models.hub import BaseModelInfo, copy_model, quiet_loading, resolve_device, resolve_dtype
from spacy_slmre.models.prompts import PromptStyle
from spacy_slmre.util.io import temporary_output
from spacy_slmre.util.json_files import check_fields, read_record

MODEL_FILE = "model.json"
ADAPTER_FOLDER = "adapter"
BASE_FOLDER = "base"


@dataclass(frozen=True)
class StoredModel:
    """The content of a saved model's folder.

    Attributes:
        configured: The settings for adapter and prompt style when the model was saved.
        folder: The embedded base model, if there is one.
        examples: Few-shot examples that labels are fitted to.
    """

    base: BaseModelInfo
    configured: dict[str, Any]
    style: PromptStyle
    adapter: Adapter | None
    folder: Path | None
    examples: tuple[Mapping[str, Any], ...] = ()

    def resolve(self, settings: SmallLMSettings, *, from_bytes: bool) -> ResolvedSettings:
        """Return the stored adapter and style, and the base model, which may have moved.

        A model on disk may have a config that was changed or overridden after saving; then, changed settings take
        precedence. Raises ModelError if a file that they name is missing.
        """
        now = _configured(settings)
        if now != self.configured and not from_bytes:
            return resolve_settings(
                settings, self.adapter if now["adapter"] == self.configured.get("adapter") else None
            )
        base, revision = self.base.override(settings.base, settings.revision)
        return ResolvedSettings(base, revision, self.style, self.adapter, self.examples)


def _configured(settings: SmallLMSettings) -> dict[str, Any]:
    names = ("adapter", "label_list", "definitions", "examples", "templates")
    return {name: getattr(settings, name) for name in names}


def write(
    folder: Path,
    settings: SmallLMSettings,
    resolved: ResolvedSettings,
    base: BaseModelInfo,
    source: Path | None,
    quantization: str | None,
) -> None:
    """Write a model; the folder, which may be the one that it was read from, is replaced atomically.

    Args:
        folder: Output folder.
        settings: The model's settings.
        resolved: Its style and adapter.
        base: Its base model.
        source: Folder of the base model to embed, or None.
        quantization: Quantization setting of the base model.
    """
    with temporary_output(folder) as temporary:
        temporary.mkdir()
        if resolved.adapter is not None:
            resolved.adapter.to_folder(temporary / ADAPTER_FOLDER)
        if source is not None:
            _embed(source, temporary / BASE_FOLDER, settings, quantization, base)
        style, examples = resolved.style.to_dict(), list(resolved.examples)
        data = {"base": base.to_dict(), "configured": _configured(settings), "style": style, "examples": examples}
        (temporary / MODEL_FILE).write_text(json.dumps(data, indent=2), encoding="utf-8")


def read(folder: Path) -> StoredModel:
    """Read a folder written by `write`.

    Raises:
        ModelError: It is incomplete or damaged.
    """
    stored = read_record(folder / MODEL_FILE, _parse, ModelError)
    adapter = Adapter.from_folder(folder / ADAPTER_FOLDER) if (folder / ADAPTER_FOLDER).is_dir() else None
    embedded = folder / BASE_FOLDER if (folder / BASE_FOLDER).is_dir() else None
    return replace(stored, adapter=adapter, folder=embedded)


def _parse(data: dict[str, Any]) -> StoredModel:
    check_fields(data, base=dict, style=dict, configured=dict)
    base, style = BaseModelInfo.from_dict(data["base"]), PromptStyle.from_dict(data["style"])
    return StoredModel(base, data["configured"], style, None, None, check_examples(data.get("examples", [])))


def _embed(
    source: Path, target: Path, settings: SmallLMSettings, quantization: str | None, base: BaseModelInfo
) -> None:
    """Write the base model, in 4 bits if it runs in 4 bits."""
    target.mkdir(parents=True)
    if resolve_quantization(source, quantization) == quant_method(source):
        copy_model(source, target)
    else:
        # Quantize the original weights again: 4-bit layers cannot be saved exactly after they were used.
        device = resolve_device(settings.device)
        dtype = resolve_dtype(settings.dtype, device)
        network, tokenizer = load_base(source, quantization=quantization, dtype=dtype, device=device, keep_4bit=True)
        with quiet_loading():
            network.save_pretrained(target)
            tokenizer.save_pretrained(target)
    write_origin(target, base.name, base.fingerprint)
