"""Folders of base models: checking, identifying and loading their files.

Code from a model folder is never run, and pickled weights are never loaded. Whatever is wrong with a file, the error is
a ModelError that names the folder and the cause.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from spacy_slmre.models.base import ModelError
from spacy_slmre.util.json_files import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
ORIGIN_FILE = "slmre_origin.json"
"""In model folders written by this package: name and fingerprint of the original model."""
OFFLINE = {"local_files_only": True, "trust_remote_code": False}
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
TEMPLATE_FILES = ("chat_template.*",)
# Entries of config files that change neither tokens nor probabilities.
_IRRELEVANT = {"_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}


# -- checking ----------------------------------------------------------------------------------------------


def check_folder(folder: Path, name: str) -> None:
    """Raise ModelError if a folder has no model, no safetensors weights, or requires running its own code."""
    where = f'model.base = "{name}"'
    config = read_model_config(folder, name)
    for file in weight_files(folder, name):
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{where}: {file} is damaged or incomplete ({error}). Copy it again.") from error
    if (folder / "adapter_config.json").exists():
        # Transformers would load the base model that it names, from anywhere.
        raise ModelError(
            f"{where}: {folder} contains an adapter (adapter_config.json). Set model.base to the adapter's base model, "
            "and model.adapter to this folder."
        )
    if "auto_map" in config:
        raise ModelError(
            f"{where} requires custom code (auto_map in {CONFIG_FILE}), which is never run. "
            "Use a model whose architecture is part of transformers."
        )
    for setting in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if config.get(setting) not in (None, 1, 1.0):
            raise ModelError(f"{where} scales its logits ({setting}), which is not supported.")


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the files that the weights are read from: one, or those that an index names.

    Raises:
        ModelError: There are none, or the index names another file than safetensors in the folder.
    """
    where = f'model.base = "{name}"'
    if (folder / WEIGHTS_FILE).exists():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).exists():
        shards = read_object(folder / INDEX_FILE, ModelError).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ModelError(f'{where}: {folder / INDEX_FILE} has no "weight_map" that names the files of the weights.')
        for file in shards.values():
            if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
                raise ModelError(
                    f"{where}: {folder / INDEX_FILE} names {file!r}, which is not a safetensors file in its folder. "
                    "Other files are never read, because loading a pickle can run code."
                )
        files = [folder / file for file in sorted(set(shards.values()))]
        if missing := [file.name for file in files if not file.exists()]:
            raise ModelError(f"{where}: {folder} is incomplete: {', '.join(missing[:3])} is missing. Copy it again.")
        return files
    others = sorted(path.name for ending in ("safetensors", "bin", "pt", "pth") for path in folder.glob(f"*.{ending}"))
    pickles = [file for file in others if not file.endswith(".safetensors")]
    found = f"only pickled weights ({', '.join(pickles)})" if pickles and pickles == others else "no weights"
    raise ModelError(
        f"{where}: {folder} contains {found}, but needs {WEIGHTS_FILE} or {INDEX_FILE}. Only safetensors are read, "
        "because loading a pickle can run code. Use a revision that has them, or convert the model with "
        "`save_pretrained` where you trust it."
    )


def read_model_config(folder: Path, name: str) -> dict[str, Any]:
    """Read a model's config.json. Raises ModelError if it is missing or not a JSON object."""
    if not (folder / CONFIG_FILE).exists():
        raise ModelError(f'model.base = "{name}": {folder} has no {CONFIG_FILE}, so it is not a model.')
    return read_object(folder / CONFIG_FILE, ModelError)


# -- identity ----------------------------------------------------------------------------------------------


def fingerprint(folder: Path) -> str:
    """Return a fingerprint of everything that determines a model's answers.

    That is the weights, the architecture, the tokenizer and the chat template. A copy in 4 bits keeps the fingerprint
    of the original, unless its files have changed since they were written.
    """
    content = content_fingerprint(folder)
    if not (folder / ORIGIN_FILE).exists():
        return content
    origin = read_object(folder / ORIGIN_FILE, ModelError)
    if not isinstance(origin.get("fingerprint"), str):
        raise ModelError(f"{folder / ORIGIN_FILE} is damaged: it has no fingerprint. Copy the model again.")
    return origin["fingerprint"] if origin.get("content", content) == content else content


def write_origin(folder: Path, source: str, original: str | None) -> None:
    """Record where the model in a complete folder comes from, with the fingerprint of the original."""
    data = {"source": source, "fingerprint": original, "content": content_fingerprint(folder)}
    (folder / ORIGIN_FILE).write_text(json.dumps(data, indent=2), encoding="utf-8")


def content_fingerprint(folder: Path) -> str:
    """Return a hash of the files that determine a model's answers, as they are."""
    digest = hashlib.sha256(weights_fingerprint(*weight_files(folder, str(folder))).encode())
    files = {file for pattern in (*TOKENIZER_FILES, *TEMPLATE_FILES) for file in folder.glob(pattern) if file.is_file()}
    for file in (folder / CONFIG_FILE, *sorted(files)):
        digest.update(f"{file.name}\n".encode())
        if file.name in (CONFIG_FILE, "tokenizer_config.json"):
            data = read_object(file, ModelError)
            relevant = {key: value for key, value in data.items() if key not in _IRRELEVANT}
            digest.update(json.dumps(relevant, sort_keys=True).encode())
        else:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:32]


def weights_fingerprint(*files: Path) -> str:
    """Return a hash of weight files: their sizes, first 64 KiB (names and shapes) and 256 samples of each.

    It is fast for files of any size and distinguishes differently trained weights, but does not protect against
    deliberate manipulation.
    """
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 16))
            for sample in range(256):
                stream.seek(size * sample // 256)
                digest.update(stream.read(1024))
    return digest.hexdigest()[:32]


# -- loading -----------------------------------------------------------------------------------------------


@contextmanager
def explain_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the libraries that read a model's files into a ModelError with the folder and the cause."""
    try:
        yield
    except (ModelError, MemoryError, torch.OutOfMemoryError):  # these say nothing about the files
        raise
    except Exception as error:  # transformers, tokenizers and safetensors raise many kinds, even plain Exception
        cause = "the shapes of the weights differ from those in config.json"
        if "ignore_mismatched_sizes" not in str(error):
            cause = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        raise ModelError(
            f"The model in {folder} cannot be loaded ({cause}). A file is damaged or belongs to another model: copy "
            "the model again, or use another one."
        ) from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all weights of a checked folder by name. Raises ModelError if a file is damaged."""
    with explain_errors(folder):
        state: dict[str, Tensor] = {}
        for file in weight_files(folder, str(folder)):
            state |= load_file(file)
        return state


def load_config(folder: Path) -> PreTrainedConfig:
    """Load the config of a checked folder. Raises ModelError if transformers does not know the model."""
    from transformers import AutoConfig

    with explain_errors(folder):
        return AutoConfig.from_pretrained(folder, **OFFLINE)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checked folder. Raises ModelError if it is missing or damaged."""
    with explain_errors(folder):
        file = folder / "tokenizer_config.json"
        if file.exists() and read_object(file, ModelError).get("tokenizer_class") == "TokenizersBackend":
            # What AutoTokenizer would return, but it imports transformers' model classes, which takes seconds.
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, **OFFLINE)


def load_network(
    architecture: Any,
    folder: Path,
    *,
    is_optional: Callable[[PreTrainedModel, str], bool] = lambda network, name: False,
    state: Mapping[str, Any] | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Load a network from a checked folder, so that each of its parameters has exactly the weights in the files.

    Args:
        architecture: A model class of transformers.
        folder: Result of `locate_base`.
        is_optional: Whether a weight, by name, may be missing in the files or in the network.
        state: The weights, if they are not in the form that transformers reads.
        options: Arguments of `from_pretrained`.

    Raises:
        ModelError: A file is damaged, or weights are missing, unknown or of another shape. Tied weights, such as an
            output layer that is the embeddings, are not missing.
    """
    source = folder if state is None else None
    with explain_errors(folder):
        network, report = architecture.from_pretrained(
            source, state_dict=state, use_safetensors=True, output_loading_info=True, **OFFLINE, **options
        )
    problems = {"missing": report["missing_keys"], "unknown": report["unexpected_keys"]}
    problems["of another shape"] = [key[0] for key in report["mismatched_keys"]]
    for problem, names in problems.items():
        if wrong := sorted(name for name in names if not is_optional(network, name)):
            raise ModelError(
                f"The weights in {folder} do not belong to the {type(network).__name__} in its {CONFIG_FILE}: "
                f"{len(wrong)} are {problem} ({_shorten(wrong)}). The copy is incomplete, or a file belongs to another "
                "model, for instance an encoder or one with another number of layers."
            )
    if report["error_msgs"]:
        raise ModelError(f"The weights in {folder} are damaged: {'; '.join(map(str, report['error_msgs'][:3]))}")
    return network


def belongs_to(network: PreTrainedModel, name: str) -> bool:
    """Return whether a weight, by name, is in a part of a network, in contrast to a head for another task."""
    part = name.removeprefix(f"{network.base_model_prefix}.").split(".")[0]
    return part in dict(network.named_children())


def is_buffer(network: nn.Module, name: str) -> bool:
    """Return whether a name is that of a value that a network computes by itself, such as position ids."""
    return any(name.endswith(known) for known, _ in network.named_buffers())


def _shorten(names: Collection[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
