"""What all encoders have in common: they read the markers of a pair, and share training and prediction."""

from __future__ import annotations

import copy
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from thinc.api import Optimizer

from spacy_slmre.instances import RelationInstance, contexts_of, gold_columns, truncate_instances
from spacy_slmre.models.base import ModelError, ModelInfo, TrainableModel
from spacy_slmre.models.encoder.markers import Markers
from spacy_slmre.models.encoder.network import RelationNetwork
from spacy_slmre.models.encoder.settings import PairEncoderSettings
from spacy_slmre.models.hub import resolve_dtype
from spacy_slmre.models.thinc_shim import ThincShim
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.io import read_files, write_files

Score = Callable[..., torch.Tensor]
"""Takes the network's inputs and returns its outputs (n, n_outputs) in float32."""


class PairEncoder(TrainableModel):
    """An encoder that computes the label probabilities of a pair from the states of its markers."""

    schema: None = None
    settings: PairEncoderSettings

    def __init__(self, settings: PairEncoderSettings) -> None:
        self.settings = settings
        self._lock = threading.RLock()
        self._shim: ThincShim | None = None
        self._markers: Markers | None = None
        self._score: Score | None = None

    @property
    @abstractmethod
    def base_name(self) -> str:
        """Name of the base encoder."""

    @abstractmethod
    def _logits(self, outputs: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
        """Compute the logits of a schema's labels, (n, n_labels), from the network's outputs."""

    # -- weights -------------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._shim is not None

    def _forget(self) -> None:
        """Forget what was made from the weights, which have changed."""
        self._score = None

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
        result = np.zeros((len(instances), len(schema.labels)))
        with self._lock, torch.inference_mode():
            score = self._scorer()
            for rows, inputs in self._batches(instances):
                outputs = score(*inputs)
                logits = self._logits(outputs, schema).double()
                if allowed is not None:
                    logits = logits.masked_fill(~torch.from_numpy(allowed[rows]).to(logits.device), -torch.inf)
                log_probs = F.log_softmax(self._with_examples(logits, outputs, schema), dim=-1).cpu().numpy()
                if allowed is not None:
                    log_probs[~allowed[rows].any(axis=1)] = -np.inf
                if np.isnan(log_probs).any():
                    raise ValueError(
                        "The encoder computed NaN values. Set model.dtype to float32; if that does not help, the "
                        "weights are damaged."
                    )
                result[rows] = log_probs
        return result

    @property
    def info(self) -> ModelInfo:
        """What reports say about the encoder; see `RelationModel.info`."""
        n_parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return ModelInfo("encoder", self.base_name, n_parameters, self.device)

    def count_tokens(self, instances: Sequence[RelationInstance], schema: LabelSchema) -> int:
        """Count the tokens of contexts and markers; see `RelationModel.count_tokens`."""
        contexts = contexts_of(instances)
        lengths = [len(ids) for ids, _ in self.markers.tokenize(contexts)]
        by_context = dict(zip(contexts, lengths, strict=True))
        return sum(by_context[instance.context] + self.markers.max_added for instance in instances)

    def _with_examples(self, logits: torch.Tensor, outputs: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
        """Return logits, (n_pairs, n_labels), with the effect of few-shot examples, if the model has any."""
        return logits

    def _batches(self, instances: Sequence[RelationInstance]) -> Iterator[tuple[list[int], tuple[torch.Tensor, ...]]]:
        for rows, arrays in self.markers.batches(instances, self.settings.max_batch_tokens):
            yield rows, tuple(torch.from_numpy(array).to(self.device) for array in arrays)

    def _scorer(self) -> Score:
        """Return a function that computes the network's outputs without gradients."""
        if self._score is None:
            self._score = self._make_scorer(self.network.eval())
        return self._score

    def _make_scorer(self, network: RelationNetwork) -> Score:
        return _torch_scorer(network, self.settings.dtype)

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
        gold = torch.tensor(gold_columns(instances, schema))
        given = np.ones(len(instances)) if weights is None else np.asarray(weights, dtype=float)
        shares = torch.from_numpy(given / len(instances))
        loss = 0.0
        with self._lock:
            network = self.network.train()
            self._forget()
            network.head.dropout.p = drop
            for rows, inputs in self._batches(instances):
                with self._autocast():
                    outputs = network(*inputs)
                logits = self._logits(outputs.float(), schema)
                losses = F.cross_entropy(logits, gold[rows].to(logits.device), reduction="none")
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

    # -- pickling ------------------------------------------------------------------------------------------

    def _saved_files(self, *, embed: bool) -> dict[str, bytes]:
        """Return the files that `save` writes."""
        with tempfile.TemporaryDirectory() as name:
            self.save(Path(name) / "model", embed=embed)
            return read_files(Path(name) / "model")

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Worker processes receive the files of a model that was trained; others they read themselves.
        self.__init__(*state["arguments"])  # type: ignore[misc]
        if state["files"]:
            with tempfile.TemporaryDirectory() as name:
                write_files(Path(name), state["files"])
                restored = self.restore(Path(name), temporary=True)
            self.__dict__.update({**restored.__dict__, "_lock": self._lock})


def _torch_scorer(network: RelationNetwork, dtype_setting: str) -> Score:
    dtype = resolve_dtype(dtype_setting, next(network.parameters()).device)
    # Further training needs the float32 weights, so a lower precision is a copy.
    serving = network if dtype == torch.float32 else copy.deepcopy(network).to(dtype)

    def score(*inputs: torch.Tensor) -> torch.Tensor:
        serving.eval()
        with torch.inference_mode():
            return serving(*inputs).float()

    return score
