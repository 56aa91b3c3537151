"""Adapters: LoRA weights with a record of how they were tuned.

An adapter folder contains peft's `adapter_config.json` and `adapter_model.safetensors`, and `slmre_adapter.json` with
base model, quantization, prompt style, layout of the prompt tree, and labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.loading import NF4, QUANTIZATIONS
from spacy_slmre.models.causal_lm.lora import MAX_RANK, merge_into_weights, merge_lora, wrap_with_peft
from spacy_slmre.models.hub import BaseModelInfo
from spacy_slmre.models.prompts import PromptStyle
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.json_files import check_fields, read_record
from spacy_slmre.util.settings import check_choice, check_probability

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
RECORD_FILE = "slmre_adapter.json"
PACKAGED_ADAPTER = Path(__file__).parents[2] / "adapters" / "universal"
"""The shipped adapter for any labels on the packaged base model."""
LAYOUT = "causal-tree.v1"
"""Attention in the packed prompt: tokens attend to ancestors and to earlier tokens of their block."""


@dataclass(frozen=True)
class AdapterRecord:
    """How an adapter was tuned.

    Attributes:
        schemas: The label sets that it was tuned on, by name; empty if labels were random, so that the adapter is for
            any labels, with or without definitions and few-shot examples.
        quantization: The quantization setting of the base model.
        threshold: The minimum probability of a relation that was best on development data; None for the most probable
            label of each pair.
    """

    base: BaseModelInfo
    style: PromptStyle
    schemas: Mapping[str, LabelSchema] = field(default_factory=dict)
    quantization: str | None = "auto"
    threshold: float | None = None

    @property
    def schema(self) -> LabelSchema | None:
        """The label set; None unless it was tuned on exactly one."""
        return next(iter(self.schemas.values())) if len(self.schemas) == 1 else None

    @property
    def is_for_any_labels(self) -> bool:
        """Whether the adapter was tuned with random labels."""
        return not self.schemas

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, in which the only label set has no name."""
        several = {} if self.schema else self.schemas
        return {
            "base": self.base.to_dict(),
            "quantization": self.quantization,
            "style": self.style.to_dict(),
            "schema": self.schema.to_dict() if self.schema else None,
            "layout": LAYOUT,
            "threshold": self.threshold,
            "schemas": {name: schema.to_dict() for name, schema in several.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AdapterRecord:
        """Read the result of `to_dict`.

        Raises:
            KeyError: A key is missing.
            TypeError, ValueError: A value is invalid.
        """
        optional: dict[str, Any] = {"schema": None, "schemas": {}, "quantization": NF4, "threshold": None}
        data = {**optional, **data}
        check_fields(
            data, base=dict, style=dict, schema=(dict, NoneType), schemas=dict, threshold=(float, int, NoneType)
        )
        schemas = {"": data["schema"]} if data["schema"] else data["schemas"]
        record = cls(
            BaseModelInfo.from_dict(data["base"]),
            PromptStyle.from_dict(data["style"]),
            {name: LabelSchema.from_dict(one) for name, one in schemas.items()},
            data["quantization"],
            data["threshold"],
        )
        check_choice(record, "adapter", quantization=QUANTIZATIONS)
        check_probability(record, "adapter", names=["threshold"])
        return record


def _parse_config(data: dict[str, Any]) -> dict[str, Any]:
    for rank in (data.get("r", 8), *(data.get("rank_pattern") or {}).values()):
        if not isinstance(rank, int) or not 1 <= rank <= MAX_RANK:
            raise ValueError(f"the rank {rank!r} is not a number from 1 to {MAX_RANK}")
    return data


def _parse_record(data: Mapping[str, Any]) -> tuple[AdapterRecord, str]:
    return AdapterRecord.from_dict(data), data["layout"]


@dataclass(frozen=True)
class Adapter:
    """The files of an adapter, held in memory (a few MB).

    Attributes:
        config: peft's configuration.
        weights: Content of the safetensors file.
        record: How it was tuned; None for an adapter that was made elsewhere.
    """

    config: Mapping[str, Any]
    weights: bytes
    record: AdapterRecord | None = None

    @classmethod
    def from_folder(cls, folder: str | Path) -> Adapter:
        """Read an adapter folder.

        Raises:
            ModelError: It is missing, incomplete, pickled or damaged, or has another prompt layout.
        """
        folder = Path(folder).expanduser()
        where = f'model.adapter = "{folder}"'
        if not folder.is_dir():
            raise ModelError(f"{where}: there is no such folder.")
        if not (folder / WEIGHTS_FILE).exists():
            pickles = [path.name for path in folder.glob("*.bin")]
            found = f"only pickled weights ({', '.join(pickles)}), which are never read" if pickles else "none"
            raise ModelError(f"{where}: expected the weights in {WEIGHTS_FILE}, found {found}.")
        config = read_record(folder / CONFIG_FILE, _parse_config, ModelError)
        record, layout = None, LAYOUT
        if (folder / RECORD_FILE).exists():
            record, layout = read_record(folder / RECORD_FILE, _parse_record, ModelError)
        if layout != LAYOUT:
            raise ModelError(
                f"{where} was tuned with the prompt layout {layout}; this version of spacy-slmre supports "
                f"{LAYOUT}. Install the version that the adapter was tuned with."
            )
        return cls(config, (folder / WEIGHTS_FILE).read_bytes(), record)

    @property
    def fingerprint(self) -> str:
        """A hash of configuration and weights."""
        config = json.dumps(dict(self.config), sort_keys=True).encode()
        return hashlib.sha256(config + self.weights).hexdigest()

    def to_folder(self, folder: Path) -> None:
        """Write the adapter folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(json.dumps(dict(self.config), indent=2), encoding="utf-8")
        (folder / WEIGHTS_FILE).write_bytes(self.weights)
        if self.record is not None:
            (folder / RECORD_FILE).write_text(json.dumps(self.record.to_dict(), indent=2), encoding="utf-8")

    def check_base(self, base: BaseModelInfo) -> None:
        """Raise ModelError if the adapter was tuned on another base model, by fingerprint."""
        if self.record is None or None in (self.record.base.fingerprint, base.fingerprint):
            return
        if self.record.base.fingerprint != base.fingerprint:
            raise ModelError(
                f'The adapter was tuned on "{self.record.base.name}" (fingerprint '
                f'{self.record.base.fingerprint}), but model.base = "{base.name}" has other weights, or another '
                f"config, tokenizer or chat template (fingerprint {base.fingerprint}). Set model.base to the adapter's "
                "base model."
            )

    def merge(self, model: PreTrainedModel) -> bool:
        """Merge the adapter into a loaded base model in place, if possible; return whether it was merged.

        Raises ModelError if the weights are damaged.
        """
        return merge_lora(model, self.config, self._tensors())

    def merge_into(self, weights: Mapping[str, torch.Tensor]) -> bool:
        """Merge the adapter into the weights of linear layers by name, if possible; see `merge`."""
        return merge_into_weights(weights, self.config, self._tensors())

    def attach(self, model: PreTrainedModel) -> PeftModel:
        """Add the adapter to a loaded base model in place, and return the model wrapped by peft, in evaluation mode.

        Raises ModelError if the weights are damaged or do not fit the model.
        """
        from peft import PeftConfig, set_peft_model_state_dict

        tensors = self._tensors()
        try:
            # peft would warn if the base model's folder has moved.
            overrides = {"inference_mode": True, "base_model_name_or_path": None}
            config = PeftConfig.from_peft_type(**{**self.config, **overrides})
            peft_model = wrap_with_peft(model, config, autocast_adapter_dtype=False)
            result: Any = set_peft_model_state_dict(peft_model, tensors)
        except Exception as error:  # peft raises many kinds of errors for a config of another form
            raise ModelError(f"The adapter does not fit the base model: {type(error).__name__}: {error}") from error
        missing = [key for key in result.missing_keys if "lora_" in key]
        if missing or result.unexpected_keys:
            raise ModelError(
                f"The adapter does not fit the base model: {len(missing)} of its layers have no weights and "
                f"{len(result.unexpected_keys)} weights have no layer."
            )
        return peft_model.eval()

    def _tensors(self) -> dict[str, torch.Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self.weights)
        except SafetensorError as error:
            raise ModelError(
                f"The weights of the adapter are damaged ({error}). Copy it again, or tune a new one."
            ) from error
