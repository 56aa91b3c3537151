"""A hash of everything that determines a pipeline's predictions, so that a run is resumed with the same pipeline."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from spacy.language import Language

from spacy_slmre.models.cascade import Cascade
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.encoder.universal import UniversalEncoder
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
        for part in (task, getattr(component, "model", None)):
            for attribute in ("schema", "style"):
                value: Any = getattr(part, attribute, None)
                if hasattr(value, "to_dict"):
                    parts.append((name, attribute, value.to_dict()))
        model = getattr(component, "model", None)
        for part in (model.first, model.second) if isinstance(model, Cascade) else (model,):
            if isinstance(part, SmallLM):
                adapter = None if part.adapter is None else part.adapter.fingerprint
                parts.append((name, part.identity().to_dict(), adapter))
            elif isinstance(part, UniversalEncoder) and part.weights_file is not None:
                parts.append((name, part.base_name, file_hash(part.weights_file)))
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
