"""Adapters: LoRA weights, and what an adapter knows about itself.

An adapter folder holds peft's `adapter_config.json` and `adapter_model.safetensors`, and beside them
`slmre_adapter.json`: base model with fingerprint and quantisation, prompt style, attention layout and labels.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_slmre.models.causal_lm.loading import NF4, BaseModelInfo, ModelError
from spacy_slmre.models.prompts import PromptStyle
from spacy_slmre.schema import LabelSchema

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
RECORD_FILE = "slmre_adapter.json"
PACKAGED_ADAPTER = Path(__file__).parents[2] / "adapters" / "general"
"""The adapter for everyday relations on the packaged base model; its README says how it was made."""
LAYOUTS = {False: "causal-tree.v1", True: "two-way-tree.v1"}
"""Who sees whom in the packed prompt, by `PromptStyle.two_way`: ancestors, and within the own block what
stands before, or, in a context that is read two ways, all of it."""


@dataclass(frozen=True)
class AdapterRecord:
    """What an adapter was tuned on and with.

    Attributes:
        base: The base model.
        style: How prompts were put.
        schema: The labels and their wordings; None where it was tuned on several label sets.
        schemas: The label sets by benchmark, where it was tuned on several.
        quantization: The setting that the base model was loaded with.
    """

    base: BaseModelInfo
    style: PromptStyle
    schema: LabelSchema | None = None
    schemas: Mapping[str, LabelSchema] = field(default_factory=dict)
    quantization: str | None = "auto"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "base": self.base.to_dict(),
            "quantization": self.quantization,
            "style": self.style.to_dict(),
            "schema": self.schema.to_dict() if self.schema else None,
            "layout": LAYOUTS[self.style.two_way],
            "schemas": {name: schema.to_dict() for name, schema in self.schemas.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AdapterRecord:
        """The inverse of `to_dict`."""
        schema = data.get("schema")
        return cls(
            BaseModelInfo(**data["base"]),
            PromptStyle.from_dict(data["style"]),
            LabelSchema.from_dict(schema) if schema else None,
            {name: LabelSchema.from_dict(one) for name, one in data.get("schemas", {}).items()},
            data.get("quantization", NF4),  # older adapters were tuned so
        )


@dataclass(frozen=True)
class Adapter:
    """An adapter's files, held in memory (a few MB).

    Attributes:
        config: peft's configuration.
        weights: The safetensors file.
        record: What it knows about itself; None for an adapter that another program tuned.
    """

    config: Mapping[str, Any]
    weights: bytes
    record: AdapterRecord | None = None

    @classmethod
    def from_folder(cls, folder: str | Path) -> Adapter:
        """Read an adapter folder.

        Raises:
            ModelError: It is absent, incomplete, pickled, or a file of it is damaged.
        """
        folder = Path(folder).expanduser()
        where = f'model.adapter = "{folder}"'
        if not folder.is_dir():
            raise ModelError(f"{where}: there is no such folder.")
        if not (folder / WEIGHTS_FILE).exists():
            pickles = [path.name for path in folder.glob("*.bin")]
            found = (
                f"only pickled weights ({', '.join(pickles)}), which are never read" if pickles else "none"
            )
            raise ModelError(f"{where}: expected the weights in {WEIGHTS_FILE}, found {found}.")
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            record_file = folder / RECORD_FILE
            record, layout = None, None
            if record_file.exists():
                data = json.loads(record_file.read_text(encoding="utf-8"))
                record, layout = AdapterRecord.from_dict(data), data["layout"]
                if layout in LAYOUTS.values() and layout != LAYOUTS[record.style.two_way]:
                    raise ValueError(f"its layout {layout} does not go with its prompt style")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{where}: {CONFIG_FILE} or {RECORD_FILE} is missing or damaged ({error}). Copy the adapter "
                "again, or tune it anew."
            ) from error
        if record is not None and layout not in LAYOUTS.values():
            raise ModelError(
                f"{where} was tuned with the attention layout {layout}, this version of spacy-slmre has "
                f"{', '.join(LAYOUTS.values())}. Install the version that the adapter was tuned with."
            )
        return cls(config, (folder / WEIGHTS_FILE).read_bytes(), record)

    def quantization(self, setting: str | None) -> str | None:
        """How to load the base model: as set, and with "auto" as this adapter was tuned, where it knows."""
        return self.record.quantization if self.record and setting == "auto" else setting

    def to_folder(self, folder: Path) -> None:
        """Write the adapter folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(json.dumps(dict(self.config), indent=2), encoding="utf-8")
        (folder / WEIGHTS_FILE).write_bytes(self.weights)
        if self.record is not None:
            (folder / RECORD_FILE).write_text(json.dumps(self.record.to_dict(), indent=2), encoding="utf-8")

    def check_base(self, base: BaseModelInfo) -> None:
        """Refuse a base model other than the one that the adapter was tuned on.

        Raises:
            ModelError: The fingerprints differ.
        """
        if self.record is None or None in (self.record.base.fingerprint, base.fingerprint):
            return
        if self.record.base.fingerprint != base.fingerprint:
            raise ModelError(
                f'The adapter was tuned on "{self.record.base.name}" (fingerprint '
                f'{self.record.base.fingerprint}), but model.base = "{base.name}" has other weights '
                f"(fingerprint {base.fingerprint}). Give the base model that the adapter belongs to."
            )

    def attach(self, model: PreTrainedModel) -> PeftModel:
        """Put the adapter into the layers of a loaded base model, in place, in evaluation mode.

        Returns:
            The model as peft has it.

        Raises:
            ModelError: The weights are damaged or do not fit the model.
        """
        from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(self.weights)
        except SafetensorError as error:
            raise ModelError(
                f"The adapter's weights are damaged ({error}). Copy the adapter again, or tune it anew."
            ) from error
        try:
            # Which base it is, we know better by fingerprint; peft would warn of a folder that moved.
            overrides = {"inference_mode": True, "base_model_name_or_path": None}
            config = PeftConfig.from_peft_type(**{**self.config, **overrides})
            with warnings.catch_warnings():
                # peft asks transformers for an attribute under its former name.
                warnings.simplefilter("ignore", FutureWarning)
                peft_model = get_peft_model(model, config, autocast_adapter_dtype=False)
            result: Any = set_peft_model_state_dict(peft_model, tensors)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise ModelError(f"The adapter does not fit the base model: {error}") from error
        missing = [key for key in result.missing_keys if "lora_" in key]
        if missing or result.unexpected_keys:
            raise ModelError(
                f"The adapter does not fit the base model: {len(missing)} of its layers have no weights and "
                f"{len(result.unexpected_keys)} weights have no layer."
            )
        return peft_model.eval()
