"""Training a `SmallLM` step by step: what it needs beyond scoring."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from thinc.api import Optimizer

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.causal_lm import loading
from spacy_slmre.models.causal_lm.adapter import Adapter, AdapterRecord
from spacy_slmre.models.causal_lm.attention import use_grouped_attention
from spacy_slmre.models.causal_lm.lora import LoraSettings, add_lora, read_lora, set_dropout, unfreeze_lora
from spacy_slmre.models.causal_lm.loss import Batch, as_batch, packed_loss
from spacy_slmre.models.causal_lm.qera import begin_with_rounding, input_sizes
from spacy_slmre.models.causal_lm.sequences import TrainingSequences
from spacy_slmre.models.prompts import PromptBuilder, PromptStyle
from spacy_slmre.models.thinc_shim import TorchShim
from spacy_slmre.schema import LabelSchema

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from peft import PeftModel
    from transformers import PreTrainedModel

    from spacy_slmre.models.causal_lm.loading import BaseModelInfo
    from spacy_slmre.models.causal_lm.model import SmallLM
    from spacy_slmre.models.causal_lm.settings import SmallLMSettings


class Trainable:
    """Adds training to `SmallLM`: `begin_training`, `update` and `finish_update`, `export_adapter`."""

    settings: SmallLMSettings
    adapter: Adapter | None
    _lock: threading.RLock
    _prompts: PromptBuilder | None
    _peft: PeftModel | None = None
    _merged = False
    _tuned_on: Mapping[str, LabelSchema] | None = None
    _shim: TorchShim | None = None
    _unkept = False

    if TYPE_CHECKING:  # what `SmallLM` has

        @property
        def network(self) -> PreTrainedModel: ...  # noqa: D102
        @property
        def quantization(self) -> str | None: ...  # noqa: D102
        def load(self, *, merge: bool = True) -> SmallLM: ...  # noqa: D102
        @property
        def prompts(self) -> PromptBuilder: ...  # noqa: D102
        def set_labels(self, schema: LabelSchema) -> None: ...  # noqa: D102
        def forget(self) -> None: ...  # noqa: D102
        def identity(self) -> BaseModelInfo: ...  # noqa: D102
        def locate(self) -> Path: ...  # noqa: D102

    def begin_training(
        self,
        schema: LabelSchema | Mapping[str, LabelSchema],
        lora: LoraSettings | None = None,
        *,
        seed: int = 0,
    ) -> PeftModel:
        """Load the weights and make those of the adapter trainable; the base stays as it is.

        Args:
            schema: The labels that will be trained on, or several label sets by name.
            lora: Size of a new adapter, which is made where there is none.
            seed: Seed of its weights.

        Returns:
            The model as peft has it; its layers are those of `network`.

        Raises:
            ModelError: Base model or adapter cannot be had, or `lora` does not fit them.
        """
        with self._lock, torch.inference_mode(False):
            network = self.load(merge=False).network
            lora = lora or LoraSettings()
            if self._peft is None:
                self._peft = add_lora(network, lora, seed)
            unfreeze_lora(network)
            set_dropout(network, lora.dropout)
            self._tuned_on = {"": schema} if isinstance(schema, LabelSchema) else dict(schema)
            return self._peft

    def init_lora_with_qera(self, batches: Iterable[Batch]) -> None:
        """Let the adapter's weights begin with what the base model's have lost when they were rounded to NF4.

        Takes the memory of the base model with plain weights while it lasts. Does nothing where none were
        rounded: where they stay plain, or lay in 4 bits already.

        Args:
            batches: Packed sequences of what will be trained on; some ten thousand tokens suffice.

        Raises:
            ValueError: Training has not begun.
        """
        if self._peft is None:
            raise ValueError("There are no weights to begin with: call `begin_training` first.")
        folder = self.locate()
        if loading.resolve_quantization(folder, self.quantization) == loading.quant_method(folder):
            return
        with self._lock, torch.inference_mode(False):
            device = self.network.device
            plain, _ = loading.load_base(folder, quantization=None, dtype=self.network.dtype, device=device)
            use_grouped_attention(plain)
            on_device = ({name: tensor.to(device) for name, tensor in batch.items()} for batch in batches)
            begin_with_rounding(self.network, plain, input_sizes(plain, on_device))

    def set_prompt_style(self, style: PromptStyle) -> None:
        """Put prompts in another style from now on; for a model whose adapter is yet to be tuned."""
        with self._lock:
            self.settings = replace(self.settings, style=style)
            if self._prompts is not None:
                self._prompts = PromptBuilder(self._prompts.tokenizer, style)
            self.forget()

    def update(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        *,
        drop: float = 0.0,
        weights: Sequence[float] | None = None,
    ) -> float:
        """Add the gradients of the mean loss over labelled instances to those of the adapter's weights.

        A model whose training has not begun gets an adapter of the size that its settings name. The network
        is left in training mode, which scoring does not mind.

        Args:
            instances: TrainingInstances instances, whose contexts fit the model (see `fit`).
            schema: Their labels.
            drop: Dropout in front of the adapter's weights.
            weights: Weight of each instance, (n_instances,); the mean stays one over their number.

        Returns:
            The mean loss: the negative log-probability of the gold label, weighted. Where it is no finite
            number, no gradients are left.

        Raises:
            ValueError: An instance has no label of the schema.
        """
        if not instances:
            return 0.0
        with self._lock:
            if self._tuned_on is None:
                rank = self.settings.lora_rank
                self.begin_training(schema, LoraSettings(rank=rank, alpha=2 * rank))
            self.set_labels(schema)
            sequences = TrainingSequences(
                self.prompts,
                instances,
                schema,
                room=self.settings.max_batch_tokens,
                weights=weights,
            )
            set_dropout(self.network, drop)
            self.network.train()
            total = 0.0
            for sequence in sequences:
                batch = {name: tensor.to(self.network.device) for name, tensor in as_batch(sequence).items()}
                loss = packed_loss(self.network, batch) / len(instances)
                value = float(loss.detach())
                if not math.isfinite(value):
                    self.network.zero_grad()
                    return value
                loss.backward()
                total += value
            return total

    def finish_update(self, optimizer: Optimizer) -> None:
        """Let one of Thinc's optimizers use the gradients, and clear them; without training, do nothing."""
        with self._lock:
            if self._tuned_on is None:
                return
            if self._shim is None:
                self._shim = TorchShim(self.network)
            self._shim.finish_update(optimizer)
            self._unkept = True
            # Thinc writes into the weights behind the back of torch, which counts changes.
            self.forget()

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """The adapter's weights, for an optimizer."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def export_adapter(self, dtype: torch.dtype = torch.float32) -> Adapter:
        """Make the weights as they are now the model's adapter, which `save` writes.

        Args:
            dtype: What its weights are written in.

        Raises:
            ValueError: Training has not begun.
        """
        if self._peft is None or self._tuned_on is None:
            raise ValueError("There is no adapter to keep: call `begin_training` first.")
        with self._lock:
            config, weights = read_lora(self._peft, dtype)
            schemas = dict(self._tuned_on)
            only = next(iter(schemas.values())) if len(schemas) == 1 else None
            record = AdapterRecord(
                self.identity(),
                self.settings.style,
                only,
                schemas={} if only is not None else schemas,
                quantization=self.quantization,
            )
            self.adapter, self._unkept = Adapter(config, weights, record), False
            return self.adapter
