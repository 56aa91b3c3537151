"""An encoder that classifies pairs by the states of their markers."""

from __future__ import annotations

import copy
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from thinc.api import Optimizer
from torch import nn

from spacy_slmre.instances import RelationInstance, truncate_instances
from spacy_slmre.models.base import ModelError, TrainableModel
from spacy_slmre.models.encoder import storage
from spacy_slmre.models.encoder.levitated import LevitatedMarkers
from spacy_slmre.models.encoder.markers import Markers, SolidMarkers
from spacy_slmre.models.encoder.network import LevitatedNetwork, RelationNetwork, SolidNetwork, max_tokens
from spacy_slmre.models.encoder.settings import LEVITATED, EncoderSettings
from spacy_slmre.models.hub import locate_base, resolve_device, resolve_dtype
from spacy_slmre.models.thinc_shim import ThincShim
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.io import read_files, write_files
from spacy_slmre.util.settings import takes_settings

Score = Callable[..., torch.Tensor]
"""Takes the network's inputs and returns logits (n, n_labels) in float32."""


class EncoderClassifier(TrainableModel):
    """An encoder with a label head, which is created by training.

    Probabilities are a softmax over the labels of the schema; the head must have been trained on all of them.

    Args:
        settings: How to load, train and run it.
        stored: A saved classifier.
    """

    schema: None = None
    """An encoder knows labels by name only, without wordings and definitions."""

    def __init__(self, settings: EncoderSettings, stored: storage.StoredEncoder | None = None) -> None:
        self.settings = settings
        self.labels: tuple[str, ...] = stored.labels if stored else ()
        """The labels of the head, in the order of its outputs."""
        self.types: tuple[str, ...] = stored.types if stored else ()
        """The mapped entity types of the training data."""
        self._stored = stored
        self._lock = threading.RLock()
        self._shim: ThincShim | None = None
        self._markers: Markers | None = None
        self._score: Score | None = None

    # -- weights -------------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._shim is not None

    def load(self) -> Self:
        """Load the weights unless they are loaded.

        Raises:
            ModelError: The classifier was never trained, or the saved weights are damaged.
        """
        with self._lock:
            if self._shim is None:
                if self._stored is None:
                    raise ModelError(
                        "This encoder has no label head yet: train it with `spacy train` (see "
                        "configs/rel_classifier_cpu.cfg) or with nlp.initialize and nlp.update, or load a trained "
                        "pipeline."
                    )
                shim, markers = self._build(self._stored.folder, self.labels, self.types, weights=False)
                storage.load_weights(shim.network, self._stored)
                self._shim, self._markers = shim, markers
        return self

    def _forget(self) -> None:
        """Forget what was made from the weights, which have changed."""
        self._stored = self._score = None

    def _learn_rate_of(self, parameter: str) -> float:
        return 1.0 if parameter.startswith("encoder.") else self.settings.head_learn_rate

    @property
    def network(self) -> RelationNetwork:
        """The network in float32."""
        self.load()
        assert self._shim is not None
        return cast(RelationNetwork, self._shim.network)

    @property
    def markers(self) -> Markers:
        """The markers with their tokenizer."""
        self.load()
        assert self._markers is not None
        return self._markers

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.network.parameters()).device

    def initialize(self, schema: LabelSchema, instances: Sequence[RelationInstance]) -> None:
        """Start from the base encoder's weights, with a new head and markers for the instances' entity types.

        Raises:
            ValueError: The instances have fewer than two different labels.
            ModelError: The base encoder is not available.
        """
        labels = {instance.label for instance in instances}
        if len(labels) < 2:
            found = f"only one label ({', '.join(map(str, labels))})" if labels else "no labeled pair"
            raise ValueError(
                f"The training data have {found}, so there is nothing to learn. Add pairs with other labels, or pairs "
                "without a relation."
            )
        types = {m.type for instance in instances for m in (instance.head_mention, instance.tail_mention)}
        self.start(schema.names, types)

    def start(self, labels: Sequence[str], types: set[str] | Sequence[str]) -> None:
        """Start from the base encoder's weights, with a new head for labels and markers for entity types."""
        with self._lock:
            folder = locate_base(self.settings.base, self.settings.revision)
            names, kinds = tuple(labels), tuple(sorted(set(types)))
            self._shim, self._markers = self._build(folder, names, kinds, weights=True)
            # Assigned last, so that a failed load keeps the current labels.
            self.labels, self.types = names, kinds
            self._forget()

    def _build(
        self, folder: Path, labels: Sequence[str], types: Sequence[str], *, weights: bool
    ) -> tuple[ThincShim, Markers]:
        settings = self.settings
        # Tensors created in inference mode cannot require gradients.
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            packed = settings.markers == LEVITATED
            encoder, tokenizer = storage.load_encoder(folder, weights=weights, dropout=settings.dropout, packed=packed)
            limit = max_tokens(encoder)
            markers: Markers
            network: RelationNetwork
            if packed:
                markers = LevitatedMarkers(tokenizer, limit)
                network = LevitatedNetwork(encoder, len(labels), len(markers.new_tokens))
            else:
                n_words = cast(nn.Embedding, encoder.get_input_embeddings()).num_embeddings
                indexed = types if settings.type_embedding else ()
                markers = SolidMarkers(tokenizer, limit, n_words, settings.markers, types, indexed)
                n_types = len(types) + 1 if settings.type_embedding else 0
                network = SolidNetwork(encoder, len(labels), len(markers.new_tokens), n_types)
            if weights:
                network.init_markers([markers.ids_of(words) for words in markers.new_tokens])
            if settings.frozen_layers is not None:
                network.freeze(settings.frozen_layers)
            network.to(resolve_device(settings.device)).eval()
        return ThincShim(network, learn_rate_of=self._learn_rate_of), markers

    def add_labels(self, schema: LabelSchema) -> None:
        """Add outputs for new labels to a trained head; the logits of other labels do not change."""
        with self._lock:
            if self.labels and (new := [name for name in schema.names if name not in self.labels]):
                self.network.add_outputs(len(new))
                self.labels += tuple(new)
                self._forget()

    def set_labels(self, schema: LabelSchema) -> None:
        """Raise ModelError if the head was not trained on all labels of a schema."""
        if unknown := [name for name in schema.names if name not in self.labels]:
            raise ModelError(
                f"The encoder was not trained on the labels {', '.join(unknown)}, only on {', '.join(self.labels)}. "
                "Train it on them, or remove them from the labels."
            )

    # -- scoring -------------------------------------------------------------------------------------------

    def truncate(
        self, instances: Sequence[RelationInstance], schema: LabelSchema, max_context_tokens: int
    ) -> list[RelationInstance | None]:
        """Truncate long contexts, counting tokens without markers; the encoder's own limit also applies."""
        with self._lock:
            limit = min(max_context_tokens, self.markers.max_length - self.markers.max_added)
            if limit < 1:
                raise ModelError(
                    f"The encoder reads at most {self.markers.max_length} tokens, and markers take up to "
                    f"{self.markers.max_added}, so there is no room for a text. Use another encoder or other markers."
                )
            return truncate_instances(
                instances,
                limit,
                count_tokens=lambda contexts: [len(ids) for ids, _ in self.markers.tokenize(contexts)],
                offsets_of=lambda context: self.markers.tokenize([context])[0][1],
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
        """Return log-probabilities of all allowed labels; see `RelationModel.log_probs`."""
        self.set_labels(schema)
        columns = [self.labels.index(name) for name in schema.names]
        result = np.zeros((len(instances), len(columns)))
        with self._lock:
            score = self._scorer()
            for rows, inputs in self._batches(instances):
                logits = score(*inputs)[:, columns].double()
                if allowed is not None:
                    logits = logits.masked_fill(~torch.from_numpy(allowed[rows]).to(logits.device), -torch.inf)
                log_probs = F.log_softmax(logits, dim=-1).cpu().numpy()
                if allowed is not None:
                    log_probs[~allowed[rows].any(axis=1)] = -np.inf
                if np.isnan(log_probs).any():
                    raise ValueError(
                        "The encoder computed NaN values. Set model.dtype to float32; if that does not help, the "
                        "weights are damaged."
                    )
                result[rows] = log_probs
        return result

    def _batches(self, instances: Sequence[RelationInstance]) -> Iterator[tuple[list[int], tuple[torch.Tensor, ...]]]:
        for rows, arrays in self.markers.batches(instances, self.settings.max_batch_tokens):
            yield rows, tuple(torch.from_numpy(array).to(self.device) for array in arrays)

    def _scorer(self) -> Score:
        """Return a function that computes the logits of all labels without gradients."""
        if self._score is None:
            network = self.network.eval()
            if self.settings.runtime == "openvino":
                from spacy_slmre.models.encoder.runtime import OpenVINORuntime

                file = self._stored.runtime if self._stored is not None else None
                self._score = OpenVINORuntime.read(file) if file else OpenVINORuntime.convert(network)
            else:
                self._score = _torch_scorer(network, self.settings.dtype)
        return self._score

    # -- training ------------------------------------------------------------------------------------------

    def update(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        *,
        drop: float = 0.0,
        weights: np.ndarray | None = None,
    ) -> float:
        """Accumulate the gradients of the mean cross-entropy; see `TrainableModel.update`."""
        self.set_labels(schema)
        columns = [self.labels.index(name) for name in schema.names]
        gold = torch.tensor([schema.index[instance.label or ""] for instance in instances])
        given = np.ones(len(instances)) if weights is None else np.asarray(weights, dtype=float)
        shares = torch.from_numpy(given / len(instances))
        loss = 0.0
        with self._lock:
            network = self.network.train()
            self._forget()
            network.dropout.p = drop
            for rows, inputs in self._batches(instances):
                with self._autocast():
                    logits = network(*inputs)[:, columns]
                losses = F.cross_entropy(logits.float(), gold[rows].to(logits.device), reduction="none")
                part = (losses * shares[rows].to(losses)).sum()
                value = part.item()
                if not np.isfinite(value):
                    network.zero_grad()
                    return value
                part.backward()
                loss += value
        return loss

    def finish_update(self, optimizer: Optimizer) -> None:
        """Update the parameters with the accumulated gradients, and clear these."""
        with self._lock:
            if self._shim is not None:
                self._shim.finish_update(optimizer)
                self._forget()

    def _autocast(self) -> AbstractContextManager:
        dtype = resolve_dtype("auto", self.device)
        if not self.settings.mixed_precision or dtype != torch.bfloat16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=dtype)

    # -- saving --------------------------------------------------------------------------------------------

    def save(self, folder: Path, *, embed: bool) -> None:
        """Write everything that `restore` needs; the weights are always included, whatever `embed` is."""
        with self._lock:
            weights = None
            if self.labels:
                runtime = self._scorer() if self.settings.runtime == "openvino" else None
                weights = storage.TrainedWeights(self.network, self.markers.tokenizer, runtime)
            storage.write(folder, self.settings, self.labels, self.types, weights)

    def restore(self, folder: Path, *, temporary: bool = False) -> EncoderClassifier:
        """Return the model that `save` wrote; see `RelationModel.restore`.

        Raises:
            ModelError: The folder is incomplete or damaged, or does not match the settings.
        """
        stored = storage.read(folder)
        if stored is None:
            return EncoderClassifier(self.settings)
        for name, value in stored.shape.items():
            if getattr(self.settings, name) != value:
                raise ModelError(
                    f"model.{name} = {getattr(self.settings, name)!r}, but the weights in {folder} were trained "
                    f"with {value!r}. Use that value, or retrain."
                )
        restored = EncoderClassifier(self.settings, stored)
        if temporary:
            restored.load()
            restored._stored = None
        return restored

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes receive the files of a saved pipeline.
        files: dict[str, bytes] = {}
        if self.labels:
            with tempfile.TemporaryDirectory() as name:
                self.save(Path(name) / "model", embed=True)
                files = read_files(Path(name) / "model")
        return {"settings": self.settings, "files": files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["settings"])  # type: ignore[misc]
        if state["files"]:
            with tempfile.TemporaryDirectory() as name:
                write_files(Path(name), state["files"])
                restored = self.restore(Path(name), temporary=True)
            self.__dict__.update({**restored.__dict__, "_lock": self._lock})


@takes_settings(EncoderSettings)
def make_encoder_classifier(settings: EncoderSettings) -> EncoderClassifier:
    """Make an encoder without loading it; `@architectures = "spacy-slmre.EncoderClassifier.v1"`."""
    return EncoderClassifier(settings)


def _torch_scorer(network: RelationNetwork, dtype_setting: str) -> Score:
    dtype = resolve_dtype(dtype_setting, next(network.parameters()).device)
    # Further training needs the float32 weights, so a lower precision is a copy.
    serving = network if dtype == torch.float32 else copy.deepcopy(network).to(dtype)

    def score(*inputs: torch.Tensor) -> torch.Tensor:
        serving.eval()
        with torch.inference_mode():
            return serving(*inputs).float()

    return score
