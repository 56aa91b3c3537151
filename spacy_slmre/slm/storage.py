"""A small language model in a saved pipeline: what it needs, by reference or embedded."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from spacy_slmre.slm import loading
from spacy_slmre.slm.adapter import Adapter
from spacy_slmre.slm.loading import MODEL_FILES, ORIGIN_FILE, BaseIdentity, ModelError
from spacy_slmre.slm.prompts import PromptStyle
from spacy_slmre.slm.settings import SmallLMSettings

MODEL_FILE = "model.json"
ADAPTER_FOLDER = "adapter"
BASE_FOLDER = "base"


@dataclass(frozen=True)
class StoredModel:
    """What `read` found.

    Attributes:
        settings: The stored identity and style, with run-time settings from elsewhere.
        adapter: The adapter, where there is one.
        folder: The embedded base model, where there is one.
        fingerprint: What the base model's weights must have.
    """

    settings: SmallLMSettings
    adapter: Adapter | None
    folder: Path | None
    fingerprint: str | None


def write(
    folder: Path,
    settings: SmallLMSettings,
    adapter: Adapter | None,
    base: BaseIdentity,
    source: Path | None,
) -> None:
    """Write what is needed to have the same model again.

    Args:
        folder: Where to.
        settings: The model's settings.
        adapter: Its adapter.
        base: Its base model.
        source: The base model's folder, to embed the base; None writes its name and fingerprint only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in (ADAPTER_FOLDER, BASE_FOLDER):
        if (folder / part).exists():
            shutil.rmtree(folder / part)
    if adapter is not None:
        adapter.to_folder(folder / ADAPTER_FOLDER)
    if source is not None:
        _embed(source, folder / BASE_FOLDER, settings, base)
    data = {
        "base": base.to_dict(),
        "quantization": settings.quantization,
        "style": settings.style.to_dict(),
    }
    (folder / MODEL_FILE).write_text(json.dumps(data, indent=2), encoding="utf-8")


def read(folder: Path, settings: SmallLMSettings) -> StoredModel:
    """Read what `write` wrote.

    Args:
        folder: Where from.
        settings: Whose run-time settings (device, compute type, …) apply. Where they name another base
            model than was stored, that one is taken, provided that its weights are the same: a pipeline
            saved with a hub id runs from a local folder.

    Raises:
        ModelError: The folder is incomplete or damaged.
    """
    try:
        data = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
        base = BaseIdentity(**data["base"])
        style, quantization = PromptStyle.from_dict(data["style"]), data["quantization"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / MODEL_FILE} is missing or damaged: save the pipeline again.") from error
    adapter = Adapter.from_folder(folder / ADAPTER_FOLDER) if (folder / ADAPTER_FOLDER).is_dir() else None
    embedded = folder / BASE_FOLDER if (folder / BASE_FOLDER).is_dir() else None
    settings = replace(settings, quantization=quantization, style=style)
    if embedded is not None or settings.base in (loading.PACKAGED_BASE, base.name):
        settings = replace(settings, base=base.name, revision=base.revision)
    return StoredModel(settings, adapter, embedded, base.fingerprint)


def keep_in_cache(stored: StoredModel) -> StoredModel:
    """The same with an embedded base copied to the cache folder, out of a folder that will go."""
    if stored.folder is None:
        return stored
    key = f"{stored.fingerprint}-{stored.settings.quantization}"
    kept = loading.cache_folder() / "embedded" / key
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=kept.parent, prefix=".writing-"))
        shutil.copytree(stored.folder, aside, dirs_exist_ok=True)
        try:
            aside.rename(kept)
        except OSError:  # another process was faster
            shutil.rmtree(aside)
    return replace(stored, folder=kept)


def _embed(source: Path, target: Path, settings: SmallLMSettings, base: BaseIdentity) -> None:
    """Write the base model as it runs: in 4 bits where it runs so."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    target.mkdir(parents=True)
    if settings.quantization is None or "quantization_config" in config:
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
