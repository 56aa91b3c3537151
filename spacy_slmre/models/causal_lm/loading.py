"""Base models: finding them, checking them before anything runs, loading them in 4 bits or plain.

A base model is a folder in Hugging Face's form with weights as safetensors. Nothing here executes code
from a model folder, and pickled weights are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DynamicCache,
    PreTrainedModel,
)
from transformers.cache_utils import DynamicLayer
from transformers.utils import logging as hf_logging

from spacy_slmre.models.causal_lm.q4_1 import Q4_1, read_q4_1

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGED_BASE = "smollm2-135m-instruct"
"""Name of the base model that `python -m spacy slmre download-base` installs, without a model hub."""
CACHE_VARIABLE = "SPACY_SLMRE_CACHE"
NF4 = "nf4"
QUANTIZATIONS = ("auto", NF4, None)
ORIGIN_FILE = "slmre_origin.json"
"""In a folder that we wrote: from which weights it was made."""
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "*.model")
"""What of a model repository is fetched or copied: no pickles, no code."""

# Forked worker processes inherit torch's thread pool without its threads, and would wait for them for
# ever; a pool of one thread needs none.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class ModelError(ValueError):
    """A model cannot be used; the message names the setting and the remedy."""


@dataclass(frozen=True)
class BaseModelInfo:
    """Which base model this is.

    Attributes:
        name: Packaged name, folder or hub id.
        revision: Commit or tag on the hub, where given.
        fingerprint: Of the weights themselves; a 4-bit copy keeps that of the weights it was made from.
    """

    name: str
    revision: str | None = None
    fingerprint: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """Plain data for JSON."""
        return asdict(self)


def cache_folder() -> Path:
    """Where converted models lie: $SPACY_SLMRE_CACHE, else the user's cache folder."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spacy-slmre"


def packaged_folder() -> Path:
    """Where `download-base` puts the packaged base model."""
    return cache_folder() / f"{PACKAGED_BASE}-{Q4_1}"


def locate_base(name: str, revision: str | None = None) -> Path:
    """The folder of a base model, fetched from the hub only where it lies nowhere on this machine.

    Args:
        name: `PACKAGED_BASE`, a folder, or a hub id ("owner/model").
        revision: Commit or tag on the hub.

    Raises:
        ModelError: It is nowhere to be found, or its folder cannot be used.
    """
    if name == PACKAGED_BASE:
        folder = packaged_folder()
        if not (folder / "config.json").exists():
            raise ModelError(
                f'model.base = "{name}": the packaged base model is not installed (looked in {folder}). '
                "Install it once with:\n    python -m spacy slmre download-base"
            )
        check_folder(folder, name)
        return folder
    return find_folder(name, revision)


def find_folder(name: str, revision: str | None = None, *, ownerless: bool = False) -> Path:
    """The checked folder of any model: a folder as it is, or a hub id, fetched where it is not here yet.

    Args:
        name: A folder, or a hub id.
        revision: Commit or tag on the hub.
        ownerless: Take a plain word for a hub id too, as old models have ("roberta-base").

    Raises:
        ModelError: It is nowhere to be found, or its folder cannot be used.
    """
    if Path(name).expanduser().is_dir():
        folder = Path(name).expanduser()
    elif re.fullmatch(rf"([\w-][\w.-]*/){'?' if ownerless else ''}[\w-][\w.-]*", name):
        folder = _fetch(name, revision)
    else:
        raise ModelError(
            f'model.base = "{name}": no such folder, no hub id of the form "owner/model", and no packaged '
            "model."
        )
    check_folder(folder, name)
    return folder


def _fetch(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    for local in (True, False):
        try:
            folder = snapshot_download(
                name, revision=revision, allow_patterns=list(MODEL_FILES), local_files_only=local
            )
        except Exception as error:
            failure = error
        else:
            # The cache may hold no more than a tokenizer, of an earlier use.
            if not local or list(Path(folder).glob("*.safetensors")):
                return Path(folder)
    raise ModelError(
        f'model.base = "{name}"{f" at revision {revision}" if revision else ""}: no such folder here, not in '
        f"the Hugging Face cache, and the hub could not serve it ({type(failure).__name__}). Check the name, "
        f"or fetch it on a machine with a network (`hf download {name}`) and give the folder as model.base."
    ) from failure


def check_folder(folder: Path, name: str) -> None:
    """Refuse a folder that is no model, has no safetensors, or wants to run code of its own.

    Raises:
        ModelError: With what was found and what to do.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f'model.base = "{name}": {folder} has no config.json, so it is no model.') from error
    except ValueError as error:
        raise ModelError(f'model.base = "{name}": {folder / "config.json"} is no JSON ({error}).') from error
    if not list(folder.glob("*.safetensors")):
        pickles = [path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)]
        found = f"only pickled weights ({', '.join(pickles)})" if pickles else "no weights"
        raise ModelError(
            f'model.base = "{name}": {folder} holds {found}. Weights are read from safetensors alone, since '
            "a pickle can run code: take a revision that has them, or convert it where you trust it with "
            "`save_pretrained`."
        )
    if "auto_map" in config:
        raise ModelError(
            f'model.base = "{name}" asks for code from its own folder (auto_map in config.json), which is '
            "never run. Take a model whose architecture transformers itself has."
        )
    for setting in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if config.get(setting) not in (None, 1, 1.0):
            raise ModelError(f'model.base = "{name}" scales its logits ({setting}), which is not supported.')


def check_architecture(folder: Path) -> None:
    """Refuse a model with other layers than full attention.

    Sliding windows, convolutions and recurrent layers let blocks of the prompt tree see what is not theirs,
    or not see what is.

    Raises:
        ModelError: It has such layers, or transformers does not know its architecture.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        layers = DynamicCache(config=config).layers
    except (ValueError, KeyError, OSError) as error:
        raise ModelError(f"{folder} is no model that transformers knows ({error}).") from error
    if kinds := sorted({type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer}):
        raise ModelError(
            f"The base model in {folder} has layers that the shared prompt tree does not work with "
            f"({', '.join(kinds)}). Take one with full attention only (SmolLM2, Qwen2.5, Llama 3.2, …)."
        )


def identify(folder: Path, name: str, revision: str | None = None) -> BaseModelInfo:
    """Name, revision and fingerprint of a base model's folder."""
    if folder.parent.name == "snapshots":
        revision = folder.name  # in the hub's cache, the commit: a branch may move, a commit does not
    origin = folder / ORIGIN_FILE
    if origin.exists():
        return BaseModelInfo(name, revision, json.loads(origin.read_text(encoding="utf-8"))["fingerprint"])
    return BaseModelInfo(name, revision, fingerprint(*sorted(folder.glob("*.safetensors"))))


def fingerprint(*files: Path) -> str:
    """A hash of weight files: their sizes, first 64 KiB (names and shapes) and 256 spots spread over each.

    It tells one training's weights from another's in a moment, for files of any size. It is no proof
    against someone who alters a file with intent.
    """
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 16))
            for spot in range(256):
                stream.seek(size * spot // 256)
                digest.update(stream.read(1024))
    return digest.hexdigest()[:32]


# -- loading -------------------------------------------------------------------------------------------


def resolve_device(device: str) -> torch.device:
    """The torch device for a setting; "auto" is the GPU where there is one.

    Raises:
        ModelError: It is no device, or there is no GPU.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f'model.device = "{device}" is no device: use "auto", "cpu" or "cuda".') from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f'model.device = "{device}", but torch finds no GPU here: use "auto" or "cpu".')
    return resolved


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The compute type for a setting; "auto" is bfloat16 where the hardware computes in it, else float32.

    Raises:
        ModelError: It is no compute type that is supported.
    """
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype in types:
        return types[dtype]
    if dtype != "auto":
        raise ModelError(f'model.dtype = "{dtype}": use "auto", {", ".join(map(repr, types))}.')
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def load_base(
    folder: Path,
    *,
    quantization: str | None,
    dtype: torch.dtype,
    device: torch.device,
    keep_4bit: bool = False,
    any_layers: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load weights and tokenizer from a checked folder, in evaluation mode.

    Args:
        folder: What `locate_base` gave.
        quantization: "nf4" puts the linear layers through 4 bits (NF4, double quantisation); None takes the
            weights as they lie; "auto" does so where they lie in 4 bits, and else is "nf4".
        dtype: Compute type.
        device: Where to.
        keep_4bit: Keep the weights in 4 bits on a CPU too (a quarter of the memory, several times
            slower). By default they are brought back to `dtype` there, with exactly the 4-bit values.
        any_layers: Take models with other layers than full attention too, for prompts that stand alone.

    Raises:
        ModelError: It has other layers, or cannot be kept in 4 bits.
    """
    if not any_layers:
        check_architecture(folder)
    lies, form = quant_method(folder), resolve_quantization(folder, quantization)
    if keep_4bit and form == Q4_1:
        raise ModelError(
            f"model.keep_4bit = true, but the weights in {folder} lie in Q4_1, which nothing computes in. "
            'Leave it out, or set model.quantization = "nf4", which rounds them once more.'
        )
    options: dict[str, Any] = {
        "dtype": dtype,
        "attn_implementation": "sdpa",
        "use_safetensors": True,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    by_bitsandbytes = form not in (None, Q4_1)
    if by_bitsandbytes:
        options["device_map"] = {"": device}
        if lies != form:
            options["quantization_config"] = nf4_config(dtype)
    with quiet_loading():
        if lies == Q4_1:
            options |= read_q4_1(folder, dtype)
            architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(options["config"])]
            model = architecture.from_pretrained(None, **options)
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if by_bitsandbytes:
            correct_4bit_layers(model, dtype)
            if device.type == "cpu" and not keep_4bit:
                model = model.dequantize(dtype=dtype)
            # What was saved in another type and is not 4-bit (embeddings, norms) keeps it otherwise; buffers
            # are left alone, since rotary frequencies must stay in float32.
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(dtype)
    if not by_bitsandbytes:
        torch.nn.Module.to(model, device)
    return model.eval(), tokenizer


def quant_method(folder: Path) -> str | None:
    """By which method the weights in a folder are quantised; None where they are plain."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    own = config.get("quantization_config")
    return str(own.get("quant_method", "bitsandbytes")) if own else None


def resolve_quantization(folder: Path, quantization: str | None) -> str | None:
    """Which quantised values the linear layers have once they are loaded: "q4_1", "nf4", or None.

    What somebody else has quantised is called by its method ("bitsandbytes"), and never quantised again.
    """
    lies = quant_method(folder)
    if quantization == NF4 and lies in (None, Q4_1):
        return NF4
    return NF4 if quantization == "auto" and lies is None else lies


def nf4_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with double quantisation, as QLoRA (arXiv 2305.14314) has it."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def correct_4bit_layers(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Set the compute type, and keep bitsandbytes from re-packing weights on AVX512-BF16 processors.

    The re-packed form is several times slower without an extra kernel, gives wrong gradients after an
    evaluation in the middle of training, and cannot be saved without loss (bitsandbytes 0.50.2).
    """
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
            module.compute_dtype = dtype


def as_plain(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A model that was read from quantised weights and brought back, with nothing left that says so.

    transformers cannot save one that was quantised: its weights are moved into a model that never was.

    Args:
        model: Its weights are plain by now.
        dtype: What they are kept in.
    """
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    plain: PreTrainedModel = type(model)._from_config(
        type(model.config).from_dict(config), attn_implementation="sdpa", dtype=dtype
    )
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    torch.nn.Module.to(plain, model.device)
    return plain.eval()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' progress bars and notes: a 0.2 s load needs none, and ours say more."""
    verbosity = hf_logging.get_verbosity()
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
