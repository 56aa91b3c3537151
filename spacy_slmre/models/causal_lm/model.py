"""A small language model that labels relation instances: loading, scoring, training and saving."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

import numpy as np
import torch
import torch.nn.functional as F
from thinc.api import Optimizer

from spacy_slmre.instances import RelationInstance, contexts_of, truncate_instances
from spacy_slmre.models.base import ModelError, ModelInfo, TrainableModel
from spacy_slmre.models.causal_lm import storage
from spacy_slmre.models.causal_lm.adapter import Adapter, AdapterRecord
from spacy_slmre.models.causal_lm.decoder import Decoder, NetworkDecoder
from spacy_slmre.models.causal_lm.llama import load_llama
from spacy_slmre.models.causal_lm.loading import load_base, quant_method, resolve_quantization
from spacy_slmre.models.causal_lm.lora import LoraSettings, add_lora, read_lora, set_dropout, unfreeze_lora
from spacy_slmre.models.causal_lm.loss import Batch, accumulate_gradients
from spacy_slmre.models.causal_lm.qera import init_with_qera
from spacy_slmre.models.causal_lm.scoring import PreparedLabels, context_limit, score_labels
from spacy_slmre.models.causal_lm.sequences import TrainingSequences
from spacy_slmre.models.causal_lm.settings import ResolvedSettings, SmallLMSettings, resolve_settings
from spacy_slmre.models.checkpoint import check_folder, load_tokenizer
from spacy_slmre.models.few_shot import fit_labels, positive_examples, shift_labels
from spacy_slmre.models.hub import (
    BaseModelInfo,
    identify,
    keep_in_cache,
    locate_base,
    quiet_loading,
    resolve_device,
    resolve_dtype,
)
from spacy_slmre.models.prompts import PromptBuilder, PromptStyle
from spacy_slmre.models.thinc_shim import ThincShim
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.settings import takes_settings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_PREPARED = 8  # label sets whose trie and prefix are cached
# L2 penalty on weights that are fitted to examples: with 3 examples per label, 0.02 and 0.05 were about equally good on
# dev data, and 0.1 was worse.
_EXAMPLES_L2 = 0.02
# Decoders that are never trained, because their adapter is merged: models with the same weights share one in memory.
_SHARED: WeakValueDictionary[tuple, Decoder] = WeakValueDictionary()


class SmallLM(TrainableModel):
    """A decoder with its prompts and an optional adapter, loaded at first use.

    Args:
        settings: How to load and run the model.
        resolved: The settings with the content of the files that they name; read at first use by default.
        folder: Folder of the base model, if it is embedded in a pipeline.
        fingerprint: Expected fingerprint of the base model.
        network: A loaded network and its tokenizer.
    """

    def __init__(
        self,
        settings: SmallLMSettings,
        resolved: ResolvedSettings | None = None,
        *,
        folder: Path | None = None,
        fingerprint: str | None = None,
        network: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.fingerprint = fingerprint
        self._resolved = resolved
        self._lock = threading.RLock()
        self._prepared: OrderedDict[str, PreparedLabels] = OrderedDict()
        self._decoder: Decoder | None = None
        self._prompts: PromptBuilder | None = None
        self._peft: PeftModel | None = None
        self._is_merged = self._is_shared = False
        self._tuned_on: Mapping[str, LabelSchema] | None = None
        self._shim: ThincShim | None = None
        self._has_unsaved_weights = False
        if network is not None:
            self._decoder = NetworkDecoder(network[0])
            self._prompts = PromptBuilder(network[1], self.style)

    # -- resolved settings ---------------------------------------------------------------------------------

    @property
    def resolved(self) -> ResolvedSettings:
        """Base model, prompt style and adapter. Raises ModelError if a configured file is missing."""
        if self._resolved is None:
            self._resolved = resolve_settings(self.settings)
        return self._resolved

    @property
    def style(self) -> PromptStyle:
        """The prompt style."""
        return self.resolved.style

    @property
    def adapter(self) -> Adapter | None:
        """The adapter, without updates since the last `export_adapter`."""
        return self.resolved.adapter

    @property
    def schema(self) -> LabelSchema | None:
        """The label set that the adapter was tuned on; None unless it was tuned on exactly one."""
        return self.adapter.record.schema if self.adapter and self.adapter.record else None

    @property
    def default_threshold(self) -> float | None:
        """The threshold that was best for the adapter on development data; None if it has none or was trained on."""
        record = self.adapter.record if self.adapter is not None else None
        return None if record is None or self._has_unsaved_weights else record.threshold

    @property
    def quantization(self) -> str | None:
        """The quantization setting; "auto" is resolved to that of the adapter's record, if there is one."""
        if self.settings.quantization == "auto" and self.adapter is not None and self.adapter.record is not None:
            return self.adapter.record.quantization
        return self.settings.quantization

    def locate(self) -> Path:
        """Return the folder of the base model. Raises ModelError if it is not found."""
        if self.folder is None:
            return locate_base(self.resolved.base, self.resolved.revision)
        check_folder(self.folder, self.resolved.base)
        return self.folder

    def identity(self) -> BaseModelInfo:
        """Return name, revision and fingerprint of the base model. Raises ModelError if it is not found."""
        return identify(self.locate(), self.resolved.base, self.resolved.revision)

    # -- loading -------------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._decoder is not None

    def load(self) -> Self:
        """Load the weights for scoring, unless they are loaded.

        Raises ModelError if base model or adapter are unavailable or do not fit each other.
        """
        with self._lock:
            if self._decoder is None:
                self._reload()
        return self

    def _load_network(self, *, merge: bool = True) -> PreTrainedModel:
        """Return the model of transformers, loaded unless it is loaded.

        `merge` merges an adapter into the base model if possible, for faster scoring; training needs separate weights.
        """
        with self._lock:
            is_own = isinstance(self._decoder, NetworkDecoder) and not self._is_shared
            if not is_own or (self._is_merged and not merge):
                self._reload(merge=merge, as_network=True)
            assert isinstance(self._decoder, NetworkDecoder)
            return self._decoder.network

    def _reload(self, *, merge: bool = True, as_network: bool = False) -> None:
        base = self.identity()  # may raise, so before anything is dropped
        self._decoder = self._peft = None
        self._is_merged = self._is_shared = False
        self.clear_cache()
        # Tensors created in inference mode cannot require gradients or track versions.
        with torch.inference_mode(False):
            decoder, tokenizer = self._load(base, merge, as_network)
        self._prompts = PromptBuilder(tokenizer, self.style)
        self._decoder = decoder

    def _load(self, base: BaseModelInfo, merge: bool, as_network: bool) -> tuple[Decoder, PreTrainedTokenizerBase]:
        if self.fingerprint not in (None, base.fingerprint):
            raise ModelError(
                f'The pipeline was saved with other weights of "{base.name}", or another config, tokenizer or template '
                f"than in {self.locate()}. Set model.base or model.revision to the same model, or save it again."
            )
        if self.adapter is not None:
            self.adapter.check_base(base)
        device = resolve_device(self.settings.device)
        options: dict[str, Any] = {
            "quantization": self.quantization,
            "dtype": resolve_dtype(self.settings.dtype, device),
            "device": device,
            "keep_4bit": self.settings.keep_4bit,
        }
        folder = self.locate()
        # Only decoders for scoring are shared: a network that was asked for may be changed.
        key = (base.fingerprint, self.adapter and self.adapter.fingerprint, *options.values())
        decoder = None if as_network else _SHARED.get(key)
        if decoder is None and not as_network and not options["keep_4bit"]:
            method = resolve_quantization(folder, options["quantization"])
            decoder = load_llama(folder, self.adapter, method, options["dtype"], device)
        if decoder is not None:
            _SHARED[key] = decoder
            self._is_merged = self._is_shared = True
            with quiet_loading():
                return decoder, load_tokenizer(folder)
        network, tokenizer = load_base(folder, **options)
        decoder = NetworkDecoder(network)
        if self.adapter is not None:
            self._is_merged = merge and self.adapter.merge(network)
            if not self._is_merged:
                with quiet_loading():
                    self._peft = self.adapter.attach(network)
            elif not as_network:
                _SHARED[key] = decoder
                self._is_shared = True
        return decoder, tokenizer

    @property
    def decoder(self) -> Decoder:
        """What scoring computes with, including the adapter."""
        self.load()
        assert self._decoder is not None
        return self._decoder

    @property
    def network(self) -> PreTrainedModel:
        """The model of transformers, including the adapter; scoring uses it from now on, so it may be changed.

        It is not shared with other models.
        """
        return self._load_network()

    @property
    def prompts(self) -> PromptBuilder:
        """The prompt builder for this model's tokenizer and style."""
        self.load()
        assert self._prompts is not None
        return self._prompts

    def set_prompt_style(self, style: PromptStyle) -> None:
        """Change the prompt style, before an adapter is tuned."""
        with self._lock:
            self._resolved = replace(self.resolved, style=style)
            if self._prompts is not None:
                self._prompts = PromptBuilder(self._prompts.tokenizer, style)
            self.clear_cache()

    def set_examples(self, examples: Sequence[RelationInstance]) -> None:
        """Replace the few-shot examples that labels are fitted to, labeled pairs; they are saved with the model."""
        with self._lock:
            data = tuple(example.to_dict() for example in examples)
            self._resolved = replace(self.resolved, examples=data)
            self.clear_cache()

    def clear_cache(self) -> None:
        """Drop cached prefixes and fitted labels.

        In-place changes of weights by torch's own operators are detected without it.
        """
        with self._lock:
            self._prepared.clear()

    # -- scoring -------------------------------------------------------------------------------------------

    def set_labels(self, schema: LabelSchema) -> None:
        """Prepare the trie and the prefix of a schema, and fit its labels to examples.

        Raises ModelError if the instruction or an example is too long or two labels have the same tokens, and
        ValueError if a few-shot example has another label.
        """
        with self._lock:
            context_limit(self.decoder, self._prepare(schema))
            self._fitted(schema)

    def _prepare(self, schema: LabelSchema) -> PreparedLabels:
        key = schema.fingerprint
        if key not in self._prepared:
            self._prepared[key] = PreparedLabels(self.prompts, schema)
        self._prepared.move_to_end(key)
        while len(self._prepared) > MAX_PREPARED:
            self._prepared.popitem(last=False)
        return self._prepared[key]

    def truncate(
        self, instances: Sequence[RelationInstance], schema: LabelSchema, max_context_tokens: int
    ) -> list[RelationInstance | None]:
        """Truncate long contexts, counting tokens with numbered mentions; the model's own limit also applies."""
        with self._lock:
            limit = min(max_context_tokens, context_limit(self.decoder, self._prepare(schema)))
            return truncate_instances(
                instances,
                limit,
                count_tokens=lambda contexts: list(map(len, self.prompts.contexts(contexts))),
                offsets_of=lambda context: self.prompts.token_offsets(context.text),
            )

    def log_probs(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        allowed: np.ndarray | None = None,
        *,
        k: int | None = None,
        min_prob: float = 0.0,
    ) -> np.ndarray:
        """Return log-probabilities of labels, computing only what `k` requires; see `RelationModel.log_probs`."""
        with self._lock:
            weights = self._fitted(schema)
            if weights is None:
                return self._score(instances, schema, allowed, k=k, min_prob=min_prob)[0]
            # Any label may become more probable.
            log_probs, states = self._score(instances, schema, allowed)
            if states is None:
                return log_probs
            shifts = (F.normalize(states, dim=-1) @ weights.T).cpu()
            return shift_labels(torch.from_numpy(log_probs), shifts, schema).numpy()

    def _score(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        allowed: np.ndarray | None = None,
        **options: Any,
    ) -> tuple[np.ndarray, torch.Tensor | None]:
        return score_labels(
            self.decoder,
            self.prompts,
            self._prepare(schema),
            instances,
            allowed=allowed,
            max_tokens=self.settings.max_batch_tokens,
            use_prefix_cache=self.settings.prefix_cache,
            **options,
        )

    def _fitted(self, schema: LabelSchema) -> torch.Tensor | None:
        """Return the weights of positive labels fitted to examples, (n_labels, hidden_size); None without examples."""
        if not self.resolved.examples:
            return None
        labels, version = self._prepare(schema), self.decoder.version
        if labels.fitted is None or labels.fitted[1] != version:
            labels.fitted = self._fit(schema, labels), version
        return labels.fitted[0]

    def _fit(self, schema: LabelSchema, labels: PreparedLabels) -> torch.Tensor | None:
        limit = context_limit(self.decoder, labels)
        instances, gold = positive_examples(self, self.resolved.examples, schema, limit)
        log_probs, states = self._score(instances, schema)
        if states is None:  # there are no examples, or only one label
            return None
        columns = [schema.index[label.name] for label in schema.positive_labels]
        logits = torch.from_numpy(log_probs[:, columns]).to(states)
        return fit_labels(logits, F.normalize(states, dim=-1), gold.to(states.device), l2=_EXAMPLES_L2)

    @property
    def info(self) -> ModelInfo:
        """What reports say about the model; see `RelationModel.info`."""
        decoder = self.decoder
        return ModelInfo("slm", Path(self.resolved.base).name, decoder.n_parameters, decoder.device)

    def count_tokens(self, instances: Sequence[RelationInstance], schema: LabelSchema) -> int:
        """Count the tokens of prompts without answers; see `RelationModel.count_tokens`."""
        contexts = contexts_of(instances)
        lengths = dict(zip(contexts, map(len, self.prompts.contexts(contexts)), strict=True))
        queries = sum(map(len, self.prompts.queries(instances)))
        prefix = len(self.prompts.prefix(schema))
        return queries + sum(prefix + lengths[instance.context] for instance in instances)

    def describe_files(self) -> Any:
        """Describe base model, adapter and prompts; see `RelationModel.describe_files`."""
        adapter = None if self.adapter is None else self.adapter.fingerprint
        files = {"base": self.identity().to_dict(), "adapter": adapter, "prompts": self.style.to_dict()}
        return {**files, "threshold": self.default_threshold, "examples": list(self.resolved.examples)}

    # -- training ------------------------------------------------------------------------------------------

    def initialize(self, schema: LabelSchema, instances: Sequence[RelationInstance]) -> None:
        """Do nothing: the labels are part of the prompt, and an adapter is created by the first update."""

    def add_labels(self, schema: LabelSchema) -> None:
        """Do nothing: the labels are part of the prompt."""

    def begin_training(
        self, schema: LabelSchema | Mapping[str, LabelSchema], lora: LoraSettings | None = None, *, seed: int = 0
    ) -> PeftModel:
        """Load the weights, make the adapter trainable, and return the model wrapped by peft.

        The base model remains frozen; the wrapper shares its layers with `network`. `schema` may be several label sets
        by name, or an empty mapping for training with random labels, which makes an adapter for any labels; `lora`
        describes the adapter that is created if there is none, and which of its layers are trained. Raises ModelError
        if the model has fewer layers.
        """
        with self._lock, torch.inference_mode(False):
            network = self._load_network(merge=False)
            lora = lora or LoraSettings()
            if self._peft is None:
                with quiet_loading():
                    self._peft = add_lora(network, lora, seed)
            if network.device.type == "cpu":
                from spacy_slmre.models.causal_lm.fused_lora import fuse_lora  # imports peft

                fuse_lora(network)
            unfreeze_lora(network, lora)
            set_dropout(network, lora.dropout)
            self._tuned_on = {"": schema} if isinstance(schema, LabelSchema) else dict(schema)
            self._has_unsaved_weights = True  # any optimizer may change them from now on
            return self._peft

    def init_lora_with_qera(self, batches: Iterable[Batch]) -> None:
        """Initialize the adapter so that it compensates for quantizing the base model to NF4.

        About ten thousand tokens of training data are enough. The base model is loaded once more with full weights.
        Has no effect if the weights are not quantized, or were stored quantized. Raises ValueError if training has not
        begun.
        """
        if self._peft is None:
            raise ValueError("There are no LoRA weights to initialize: call `begin_training` first.")
        folder = self.locate()
        if resolve_quantization(folder, self.quantization) != quant_method(folder):
            with self._lock, torch.inference_mode(False):
                init_with_qera(self.network, folder, batches)

    def update(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        *,
        drop: float = 0.0,
        weights: np.ndarray | None = None,
    ) -> float:
        """Accumulate the gradients of the mean loss over labeled instances; see `TrainableModel.update`.

        The first update creates an adapter of rank `settings.lora_rank` if there is none.
        """
        if not instances:
            return 0.0
        with self._lock:
            if self._tuned_on is None:
                rank = self.settings.lora_rank
                self.begin_training(schema, LoraSettings(rank=rank, alpha=2 * rank))
            elif self._tuned_on.keys() == {""}:
                self._tuned_on = {"": schema}  # labels may have been added
            context_limit(self.decoder, self._prepare(schema))  # raises if the instruction is too long
            max_tokens = self.settings.max_batch_tokens
            sequences = TrainingSequences(self.prompts, instances, schema, max_tokens=max_tokens, weights=weights)
            set_dropout(self.network, drop)
            self.network.train()
            return accumulate_gradients(self.network, sequences, len(instances))

    def finish_update(self, optimizer: Optimizer) -> None:
        """Update the adapter with the accumulated gradients; do nothing if training has not begun."""
        with self._lock:
            if self._tuned_on is None:
                return
            if self._shim is None:
                self._shim = ThincShim(self.network)
            self._shim.finish_update(optimizer)
            self._has_unsaved_weights = True  # since the last export
            # Torch does not detect Thinc's changes of the weights, so cached prefixes are dropped explicitly.
            self.clear_cache()

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """Return the adapter's weights, for an optimizer."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def export_adapter(self, dtype: torch.dtype = torch.float32, threshold: float | None = None) -> Adapter:
        """Return the trained weights as an adapter with a default threshold; `save` will write it.

        Raises ValueError before training.
        """
        if self._peft is None or self._tuned_on is None:
            raise ValueError("There is no adapter to export: call `begin_training` first.")
        with self._lock:
            config, weights = read_lora(self._peft, dtype)
            record = AdapterRecord(self.identity(), self.style, self._tuned_on, self.quantization, threshold)
            adapter = Adapter(config, weights, record)
            self._resolved = replace(self.resolved, adapter=adapter)
            self._has_unsaved_weights = False
            return adapter

    # -- saving --------------------------------------------------------------------------------------------

    def save(self, folder: Path, *, embed: bool) -> None:
        """Write everything that `restore` needs; the weights need not be loaded.

        `embed` writes the base model, in 4 bits if it runs in 4 bits; otherwise its name and fingerprint are written.
        Raises ModelError if the base model is not found.
        """
        base = self.identity()
        if self._has_unsaved_weights:
            self.export_adapter()
        source = self.locate() if embed else None
        storage.write(folder, self.settings, self.resolved, base, source, self.quantization)

    def restore(self, folder: Path, *, temporary: bool = False) -> SmallLM:
        """Return the model that `save` wrote; see `RelationModel.restore`.

        Adapter and prompt style are the saved ones. All other settings are those of this model, so the base model may
        have moved. Raises ModelError if the folder is incomplete or damaged.
        """
        stored = storage.read(folder)
        if temporary and stored.folder is not None:
            stored = replace(stored, folder=keep_in_cache(stored.folder))
        resolved, fingerprint = stored.resolve(self.settings, from_bytes=temporary), stored.base.fingerprint
        return SmallLM(self.settings, resolved, folder=stored.folder, fingerprint=fingerprint)

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes load the weights themselves, which is faster than sending them.
        if self._has_unsaved_weights:
            self.export_adapter()
        names = {"resolved": self._resolved, "folder": self.folder, "fingerprint": self.fingerprint}
        return {"settings": self.settings, **names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


@takes_settings(SmallLMSettings)
def make_small_lm(settings: SmallLMSettings) -> SmallLM:
    """Make a small language model without loading it; `@architectures = "spacy-slmre.SmallLM.v1"`."""
    return SmallLM(settings)
