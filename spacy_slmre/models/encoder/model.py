"""An encoder that labels relation instances: marked arguments, and a softmax over the labels."""

from __future__ import annotations

import copy
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from thinc.api import Optimizer

from spacy_slmre.instances import RelationInstance, contexts_of, shorten
from spacy_slmre.models.causal_lm.loading import ModelError, resolve_device, resolve_dtype
from spacy_slmre.models.encoder import storage
from spacy_slmre.models.encoder.loading import load_encoder, locate_encoder
from spacy_slmre.models.encoder.markers import MarkedText, Markers
from spacy_slmre.models.encoder.network import RelationNetwork
from spacy_slmre.models.encoder.settings import EncoderSettings
from spacy_slmre.models.thinc_shim import TorchShim
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.io import read_files, write_files

ROUND_TO = 8
"""Lengths of batches are multiples of this: few shapes, which runtimes and allocators keep ready."""


class EncoderClassifier:
    """An encoder with a label head. Without training it has no head, and answers nothing.

    One schema a call: the probabilities are a softmax over the labels of that schema, all of which the head
    must have been trained on.

    Args:
        settings: How to build, train and run it.
        trained: What `save` wrote, where this was trained before.
    """

    def __init__(self, settings: EncoderSettings, trained: storage.StoredEncoder | None = None) -> None:
        self.settings = settings
        self._trained = trained
        self._lock = threading.RLock()
        self.labels: tuple[str, ...] = trained.labels if trained else ()
        """The labels of the head, in the order of its outputs."""
        self.types: tuple[str, ...] = trained.types if trained else ()
        """The mapped entity types that were there in training."""
        self._shim: TorchShim | None = None
        self._markers: Markers | None = None
        self._serving: Predictor | None = None

    @property
    def schema(self) -> None:
        """An encoder knows labels by name only; wordings and definitions are none of its business."""
        return None

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._shim is not None

    @property
    def is_trained(self) -> bool:
        """Whether there is a label head."""
        return bool(self.labels)

    # -- weights -----------------------------------------------------------------------------------

    def load(self) -> EncoderClassifier:
        """Load the weights now rather than at first use; does nothing where they are loaded.

        Raises:
            ModelError: There was no training, or the saved weights are damaged.
        """
        with self._lock:
            if self._shim is None:
                if self._trained is None:
                    raise ModelError(
                        "This encoder has no label head yet: train it with `spacy train` (see configs/"
                        "rel_classifier_cpu.cfg) or nlp.initialize and nlp.update, or load a trained "
                        "pipeline."
                    )
                built = self._build(self._trained.folder, self.labels, self.types, weights=False)
                storage.load_weights(built[0]._model, self._trained)
                self._shim, self._markers = built
        return self

    def start(self, labels: Iterable[str], types: Iterable[str]) -> None:
        """Begin anew: the base encoder's weights, and a head for these labels.

        Args:
            labels: Names of all labels, the negative one included.
            types: Mapped entity types that typed markers are made for.

        Raises:
            ModelError: The base encoder cannot be had.
        """
        with self._lock:
            folder = locate_encoder(self.settings.base, self.settings.revision)
            names, kinds = tuple(labels), tuple(sorted(set(types)))
            self._shim, self._markers = self._build(folder, names, kinds, weights=True)
            # Only now: a model that cannot be had leaves the one that there is as it was.
            self.labels, self.types = names, kinds
            self._trained = self._serving = None

    def _build(
        self, folder: Path, labels: Sequence[str], types: Sequence[str], *, weights: bool
    ) -> tuple[TorchShim, Markers]:
        # Weights made under somebody's inference mode could never be trained.
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            encoder, tokenizer = load_encoder(folder, weights=weights, dropout=self.settings.dropout)
            known = cast(torch.nn.Embedding, encoder.get_input_embeddings())
            markers = Markers(tokenizer, known.num_embeddings, self.settings.markers, types)
            n_types = len(types) + 1 if self.settings.type_embedding else 0
            network = RelationNetwork(encoder, len(labels), len(markers.new_tokens), n_types)
            if weights and network.markers is not None:
                with torch.no_grad():
                    for row, words in enumerate(markers.new_tokens):
                        ids = tokenizer(words, add_special_tokens=False)["input_ids"]
                        network.markers.weight[row] = known.weight[ids].mean(dim=0)
            if self.settings.frozen_layers is not None:
                network.freeze(self.settings.frozen_layers)
            network.to(resolve_device(self.settings.device)).eval()
        shim = TorchShim(network, learn_rate_of=self._learn_rate_of)
        return shim, markers

    def _learn_rate_of(self, parameter: str) -> float:
        return 1.0 if parameter.startswith("encoder.") else self.settings.head_learn_rate

    @property
    def network(self) -> RelationNetwork:
        """The network in float32."""
        self.load()
        assert self._shim is not None
        return self._shim._model

    @property
    def markers(self) -> Markers:
        """The markers with their tokenizer."""
        self.load()
        assert self._markers is not None
        return self._markers

    def add_labels(self, names: Iterable[str]) -> None:
        """More outputs for labels that the head lacks; its logits for the others stay as they are."""
        with self._lock:
            if new := [name for name in names if name not in self.labels]:
                self.network.add_outputs(len(new))
                self.labels += tuple(new)
                self._trained = None
                self._serving = None

    def set_labels(self, schema: LabelSchema) -> None:
        """Make sure that the head has the labels of a schema.

        Raises:
            ModelError: It was not trained on one of them.
        """
        if unknown := [name for name in schema.names if name not in self.labels]:
            raise ModelError(
                f"The label head was not trained on {', '.join(unknown)}; it has: {', '.join(self.labels)}. "
                "Train it on them, or leave them out of the labels."
            )

    def truncate(
        self, instances: Sequence[RelationInstance], schema: LabelSchema, max_context_tokens: int
    ) -> list[RelationInstance | None]:
        """Shorten contexts of more than `max_context_tokens` tokens around their pairs.

        Args:
            instances: Any instances.
            schema: The labels; they take no room here.
            max_context_tokens: Most tokens of a context without markers; the encoder's own limit applies too.

        Returns:
            For every instance itself, its shortened form, or None where its two arguments stand farther
            apart than that.
        """
        with self._lock:
            limit = min(max_context_tokens, self.network.most_tokens - self.markers.room)
            if limit < 1:
                raise ModelError(
                    f"The encoder reads {self.network.most_tokens} tokens, of which markers take "
                    f"{self.markers.room}: nothing is left for a text. Take another encoder, or other "
                    "markers."
                )
            return shorten(
                instances,
                limit,
                count_tokens=lambda contexts: [len(ids) for ids, _ in self.markers.tokenize(contexts)],
                offsets_of=lambda context: self.markers.tokenize([context])[0][1],
            )

    # -- computing ---------------------------------------------------------------------------------

    def log_probs(self, instances: Sequence[RelationInstance], schema: LabelSchema) -> np.ndarray:
        """Log-probabilities of all labels: float64 (n_instances, n_labels); each row's exp sums to 1."""
        self.set_labels(schema)
        columns = [self.labels.index(name) for name in schema.names]
        result = np.zeros((len(instances), len(columns)))
        with self._lock:
            predict = self._predictor()
            for rows, inputs in self._batches(instances, schema):
                logits = predict(*inputs)
                log_probs = F.log_softmax(logits[:, columns].double(), dim=-1).cpu().numpy()
                if np.isnan(log_probs).any():
                    raise ValueError(
                        "The encoder computed values that are not numbers. Set model.dtype to float32; if "
                        "it is that already, the weights are damaged."
                    )
                result[rows] = log_probs
        return result

    def top_k(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        k: int = 1,
        allowed: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k most probable labels; all labels are computed in any case.

        Args:
            instances: What to label.
            schema: The labels.
            k: How many.
            allowed: Which labels may be answered, bool (n_instances, n_labels). The probabilities stay
                those over all labels.

        Returns:
            Columns of `schema.labels` and log-probabilities, each (n_instances, min(k, n_labels)), best
            first. Where fewer than k labels are allowed, the rest have -inf.
        """
        if k < 1:
            raise ValueError(f"k = {k}, but it must be at least 1.")
        log_probs = self.log_probs(instances, schema)
        if allowed is not None:
            log_probs = np.where(allowed, log_probs, -np.inf)
        columns = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
        return columns, np.take_along_axis(log_probs, columns, axis=1)

    def _batches(
        self, instances: Sequence[RelationInstance], schema: LabelSchema
    ) -> Iterator[tuple[list[int], tuple[torch.Tensor, ...]]]:
        """Rows and inputs of batches of like length, of `max_batch_tokens` tokens or one instance at most."""
        contexts = contexts_of(instances)
        tokenized = dict(zip(contexts, self.markers.tokenize(contexts), strict=True))
        marked = [self.markers.mark(instance, *tokenized[instance.context]) for instance in instances]
        order = sorted(range(len(marked)), key=lambda row: len(marked[row].tokens))
        rows: list[int] = []
        for row in order:
            if rows and (len(rows) + 1) * _rounded(len(marked[row].tokens)) > self.settings.max_batch_tokens:
                yield rows, self._inputs(rows, marked, instances)
                rows = []
            rows.append(row)
        if rows:
            yield rows, self._inputs(rows, marked, instances)

    def _inputs(
        self, rows: Sequence[int], marked: Sequence[MarkedText], instances: Sequence[RelationInstance]
    ) -> tuple[torch.Tensor, ...]:
        longest = max(len(marked[row].tokens) for row in rows)
        length = max(longest, min(_rounded(longest), self.network.most_tokens))
        tokens = np.full((len(rows), length), self.markers.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        for n, row in enumerate(rows):
            ids = marked[row].tokens
            tokens[n, : len(ids)] = ids
            mask[n, : len(ids)] = 1
        arrays = [tokens, mask, np.array([[marked[row].head, marked[row].tail] for row in rows])]
        if self.settings.type_embedding:
            # 0 stands for a type that was not there in training.
            index = {kind: n for n, kind in enumerate(self.types, 1)}
            pairs = [(instances[row].head_mention.type, instances[row].tail_mention.type) for row in rows]
            arrays.append(np.array([[index.get(kind, 0) for kind in pair] for pair in pairs]))
        device = next(self.network.parameters()).device
        return tuple(torch.from_numpy(array).to(device) for array in arrays)

    def _predictor(self) -> Predictor:
        """What gives logits without gradients: the network, a copy of it in fewer bits, or a runtime."""
        if self._serving is None:
            network = self.network.eval()
            if self.settings.runtime == "openvino":
                from spacy_slmre.models.encoder.runtime import OpenVINORuntime

                stored = self._trained.runtime if self._trained is not None else None
                self._serving = OpenVINORuntime.read(stored) if stored else OpenVINORuntime.convert(network)
            else:
                self._serving = _torch_predictor(network, self.settings.dtype)
        return self._serving

    # -- training ----------------------------------------------------------------------------------

    def update(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        *,
        drop: float = 0.0,
        weights: np.ndarray | None = None,
    ) -> float:
        """Add the gradient of the mean cross-entropy of labelled instances to that of the parameters.

        Args:
            instances: Instances with their gold labels.
            schema: The labels.
            drop: Dropout of the marker states.
            weights: How much each instance counts (n_instances,); the mean stays one over their number.

        Returns:
            The loss. Where it is not finite, all gradients are cleared, those of earlier updates included.
        """
        self.set_labels(schema)
        columns = [self.labels.index(name) for name in schema.names]
        gold = torch.tensor([schema.index[instance.label or ""] for instance in instances])
        given = np.ones(len(instances)) if weights is None else np.asarray(weights, dtype=float)
        shares = torch.from_numpy(given / len(instances))
        loss = 0.0
        with self._lock:
            network = self.network.train()
            self._trained = self._serving = None  # what is saved is no longer what this is
            network.dropout.p = drop
            device = next(network.parameters()).device
            for rows, inputs in self._batches(instances, schema):
                with self._autocast(device):
                    logits = network(*inputs)
                target = gold[rows].to(device)
                losses = F.cross_entropy(logits[:, columns].float(), target, reduction="none")
                part = (losses * shares[rows].to(losses)).sum()
                value = part.item()
                if not np.isfinite(value):
                    network.zero_grad()
                    return value
                part.backward()
                loss += value
        return loss

    def finish_update(self, optimizer: Optimizer) -> None:
        """Let the optimizer use the gradients, and clear them."""
        with self._lock:
            if self._shim is not None:
                self._shim.finish_update(optimizer)
                self._trained = self._serving = None

    def _autocast(self, device: torch.device) -> AbstractContextManager:
        dtype = resolve_dtype("auto", device)
        if not self.settings.mixed_precision or dtype != torch.bfloat16:
            return nullcontext()
        return torch.autocast(device.type, dtype=dtype)

    # -- state -------------------------------------------------------------------------------------

    def save(self, folder: Path, *, embed: bool) -> None:
        """Write everything that is needed to have the same model again; the weights are always its own.

        Args:
            folder: Where to.
            embed: Makes no difference here.
        """
        with self._lock:
            if self.is_trained:
                self.load()
            storage.write(folder, self.settings, self.labels, self.types, self._to_write())

    def _to_write(self) -> storage.Weights | None:
        if not self.is_trained:
            return None
        runtime = self._predictor() if self.settings.runtime == "openvino" else None
        return storage.Weights(self.network, self.markers.tokenizer, runtime)

    def restore(self, folder: Path, *, temporary: bool = False) -> EncoderClassifier:
        """The model that `save` wrote, with the run-time settings (device, dtype, runtime, …) of this one.

        Args:
            folder: Where from.
            temporary: The folder will not stay.

        Raises:
            ModelError: The folder is incomplete or damaged, or this one's settings ask for another network.
        """
        stored = storage.read(folder)
        if stored is None:
            return EncoderClassifier(self.settings)
        for name, value in stored.shape.items():
            if getattr(self.settings, name) != value:
                raise ModelError(
                    f"model.{name} = {getattr(self.settings, name)!r}, but the weights in {folder} were "
                    f"trained with {value!r}. Take that, or train anew."
                )
        restored = EncoderClassifier(self.settings, stored)
        if temporary:
            restored.load()
            restored._trained = None
        return restored

    def __getstate__(self) -> dict[str, Any]:
        # For worker processes: the same files that a saved pipeline has.
        files: dict[str, bytes] = {}
        if self.is_trained:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name) / "model"
                self.save(folder, embed=True)
                files = read_files(folder)
        return {"settings": self.settings, "files": files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["settings"])  # type: ignore[misc]
        if not state["files"]:
            return
        with tempfile.TemporaryDirectory() as name:
            write_files(Path(name), state["files"])
            restored = self.restore(Path(name), temporary=True)
        lock = self._lock
        self.__dict__.update(restored.__dict__)
        self._lock = lock


Predictor = Callable[..., torch.Tensor]
"""Takes the network's inputs, gives logits (n, n_labels) in float32."""


def _torch_predictor(network: RelationNetwork, dtype_setting: str) -> Predictor:
    dtype = resolve_dtype(dtype_setting, next(network.parameters()).device)
    # A copy in fewer bits stands beside the weights in float32, which more training would need.
    serving = network if dtype == torch.float32 else copy.deepcopy(network).to(dtype)

    def predict(*inputs: torch.Tensor) -> torch.Tensor:
        serving.eval()
        with torch.inference_mode():
            return serving(*inputs).float()

    return predict


def _rounded(length: int) -> int:
    return -(-length // ROUND_TO) * ROUND_TO
