"""A hash of everything that determines a pipeline's predictions, so that a run is resumed with the same pipeline."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from spacy.language import Language

from spacy_slmre.models.base import RelationModel
from spacy_slmre.util.io import file_hash, list_files


def pipeline_fingerprint(nlp: Language, source: str | Path = "") -> str:
    """Return a hash of a pipeline's config, version and files, and of the files that its config names.

    The latter are label schemas, base models, adapters and prompts of relation components.

    Args:
        nlp: The pipeline.
        source: Folder, package or config that it was loaded from.
    """
    parts: list[Any] = [nlp.config.to_str(), nlp.meta["version"]]
    folder = nlp.path or Path(source)
    if folder.is_dir():
        parts += [(file.relative_to(folder).as_posix(), file_hash(file)) for file in list_files(folder)]
    for name, component in nlp.pipeline:
        # The task of an LLM component has labels and prompts, too.
        task = getattr(component, "task", component)
        for attribute in ("schema", "style"):
            value: Any = getattr(task, attribute, None)
            if hasattr(value, "to_dict"):
                parts.append((name, attribute, value.to_dict()))
        if isinstance(model := getattr(component, "model", None), RelationModel):
            parts.append((name, model.describe_files()))
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
