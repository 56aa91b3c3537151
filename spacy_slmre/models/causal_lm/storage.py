"""A small language model in a saved pipeline: what it needs, by reference or embedded."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spacy_slmre.models.causal_lm import loading
from spacy_slmre.models.causal_lm.adapter import Adapter
from spacy_slmre.models.causal_lm.loading import MODEL_FILES, ORIGIN_FILE, BaseModelInfo, ModelError
from spacy_slmre.models.causal_lm.settings import SmallLMSettings
from spacy_slmre.models.prompts import PromptStyle
from spacy_slmre.util.io import atomic_replace

MODEL_FILE = "model.json"
ADAPTER_FOLDER = "adapter"
BASE_FOLDER = "base"


@dataclass(frozen=True)
class StoredModel:
    """What `read` found.

    Attributes:
        base: The base model.
        quantization: How it ran.
        style: The prompt style.
        configured: What the config said of model and prompt when it was saved.
        adapter: The adapter, where there is one.
        folder: The embedded base model, where there is one.
    """

    base: BaseModelInfo
    quantization: str | None
    style: PromptStyle
    configured: dict[str, Any]
    adapter: Adapter | None
    folder: Path | None

    def apply_to(self, settings: SmallLMSettings) -> SmallLMSettings:
        """Settings with the stored model and prompt, and their own run-time values."""
        return replace(
            settings,
            base=self.base.name,
            revision=self.base.revision,
            quantization=self.quantization,
            style=self.style,
        )


def write(
    folder: Path,
    settings: SmallLMSettings,
    adapter: Adapter | None,
    base: BaseModelInfo,
    configured: Mapping[str, Any],
    source: Path | None,
    quantization: str | None,
) -> None:
    """Write what is needed to have the same model again; the folder is replaced when all is written.

    Args:
        folder: Where to. It may be the folder that the model was read from.
        settings: The model's settings.
        adapter: Its adapter.
        base: Its base model.
        configured: What the config said of model and prompt.
        source: The base model's folder, to embed the base; None writes its name and fingerprint only.
        quantization: How the base runs, which an adapter may decide where the settings leave it open.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as name:
        aside = Path(name) / "model"
        aside.mkdir()
        if adapter is not None:
            adapter.to_folder(aside / ADAPTER_FOLDER)
        if source is not None:
            _embed(source, aside / BASE_FOLDER, replace(settings, quantization=quantization), base)
        data = {
            "base": base.to_dict(),
            "quantization": settings.quantization,
            "style": settings.style.to_dict(),
            "configured": dict(configured),
        }
        (aside / MODEL_FILE).write_text(json.dumps(data, indent=2), encoding="utf-8")
        atomic_replace(aside, folder)


def read(folder: Path) -> StoredModel:
    """Read what `write` wrote.

    Raises:
        ModelError: The folder is incomplete or damaged.
    """
    try:
        data = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
        base, style = BaseModelInfo(**data["base"]), PromptStyle.from_dict(data["style"])
        quantization, configured = data["quantization"], dict(data["configured"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / MODEL_FILE} is missing or damaged: save the pipeline again.") from error
    adapter = Adapter.from_folder(folder / ADAPTER_FOLDER) if (folder / ADAPTER_FOLDER).is_dir() else None
    embedded = folder / BASE_FOLDER if (folder / BASE_FOLDER).is_dir() else None
    return StoredModel(base, quantization, style, configured, adapter, embedded)


def keep_in_cache(stored: StoredModel) -> StoredModel:
    """The same with an embedded base copied to the cache folder, out of a folder that will go."""
    if stored.folder is None:
        return stored
    # By what the weights are, not by what the files say of themselves.
    kept = (
        loading.cache_folder()
        / "embedded"
        / loading.fingerprint(*sorted(stored.folder.glob("*.safetensors")))
    )
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=kept.parent, prefix=".writing-"))
        shutil.copytree(stored.folder, aside, dirs_exist_ok=True)
        try:
            aside.rename(kept)
        except OSError:  # another process was faster
            shutil.rmtree(aside)
    return replace(stored, folder=kept)


def _embed(source: Path, target: Path, settings: SmallLMSettings, base: BaseModelInfo) -> None:
    """Write the base model as it runs: in 4 bits where it runs so."""
    target.mkdir(parents=True)
    if loading.resolve_quantization(source, settings.quantization) == loading.quant_method(source):
        for pattern in MODEL_FILES:
            for file in source.glob(pattern):
                shutil.copy(file, target)
    else:
        # Quantised afresh from the full weights: 4-bit layers that have computed cannot be saved exactly.
        device = loading.resolve_device(settings.device)
        network, tokenizer = loading.load_base(
            source,
            quantization=settings.quantization,
            dtype=loading.resolve_dtype(settings.dtype, device),
            device=device,
            keep_4bit=True,
        )
        with loading.quiet_loading():
            network.save_pretrained(target)
            tokenizer.save_pretrained(target)
    origin = {"source": base.name, "fingerprint": base.fingerprint}
    (target / ORIGIN_FILE).write_text(json.dumps(origin, indent=2), encoding="utf-8")
