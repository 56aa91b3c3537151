"""An encoder that classifies pairs by the states of their markers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import nn

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.encoder import storage
from spacy_slmre.models.encoder.levitated import LevitatedMarkers
from spacy_slmre.models.encoder.markers import Markers, SolidMarkers
from spacy_slmre.models.encoder.network import LabelHead, LevitatedNetwork, RelationNetwork, SolidNetwork, max_tokens
from spacy_slmre.models.encoder.pair_encoder import PairEncoder, Score
from spacy_slmre.models.encoder.settings import LEVITATED, EncoderSettings
from spacy_slmre.models.hub import locate_base, resolve_device
from spacy_slmre.models.thinc_shim import ThincShim
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.settings import takes_settings


class EncoderClassifier(PairEncoder):
    """An encoder with a label head, which is created by training.

    Probabilities are a softmax over the labels of the schema; the head must have been trained on all of them.

    Args:
        settings: How to load, train and run it.
        stored: A saved classifier.
    """

    settings: EncoderSettings

    def __init__(self, settings: EncoderSettings, stored: storage.StoredEncoder | None = None) -> None:
        super().__init__(settings)
        self.labels: tuple[str, ...] = stored.labels if stored else ()
        """The labels of the head, in the order of its outputs."""
        self.types: tuple[str, ...] = stored.types if stored else ()
        """The mapped entity types of the training data."""
        self._stored = stored

    @property
    def base_name(self) -> str:
        """Name of the base encoder."""
        return Path(self.settings.base).name

    # -- weights -------------------------------------------------------------------------------------------

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
                storage.load_weights(shim.network, self._stored.weights)
                self._shim, self._markers = shim, markers
        return self

    def _forget(self) -> None:
        super()._forget()
        self._stored = None

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
            std = getattr(encoder.config, "initializer_range", 0.02)
            make_head = partial(LabelHead, n_labels=len(labels), std=std)
            markers: Markers
            network: RelationNetwork
            if packed:
                markers = LevitatedMarkers(tokenizer, limit)
                network = LevitatedNetwork(encoder, make_head, len(markers.new_tokens))
            else:
                n_words = cast(nn.Embedding, encoder.get_input_embeddings()).num_embeddings
                indexed = types if settings.type_embedding else ()
                markers = SolidMarkers(tokenizer, limit, n_words, settings.markers, types, indexed)
                n_types = len(types) + 1 if settings.type_embedding else 0
                network = SolidNetwork(encoder, make_head, len(markers.new_tokens), n_types)
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
                network = self.network
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(self.settings.seed)
                    cast(LabelHead, network.head).add_outputs(len(new))
                self.labels += tuple(new)
                self._forget()

    def set_labels(self, schema: LabelSchema) -> None:
        """Raise ModelError if the head was not trained on all labels of a schema."""
        if unknown := [name for name in schema.names if name not in self.labels]:
            raise ModelError(
                f"The encoder was not trained on the labels {', '.join(unknown)}, only on {', '.join(self.labels)}. "
                "Train it on them, or remove them from the labels."
            )

    def _logits(self, outputs: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
        return outputs[:, [self.labels.index(name) for name in schema.names]]

    def _make_scorer(self, network: RelationNetwork) -> Score:
        if self.settings.runtime != "openvino":
            return super()._make_scorer(network)
        from spacy_slmre.models.encoder.runtime import OpenVINORuntime

        file = self._stored.runtime if self._stored is not None else None
        return OpenVINORuntime.read(file) if file else OpenVINORuntime.convert(network)

    # -- saving --------------------------------------------------------------------------------------------

    def describe_files(self) -> None:
        """Return None: trained weights are part of the pipeline; see `RelationModel.describe_files`."""

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
        return {"arguments": (self.settings,), "files": self._saved_files(embed=True) if self.labels else {}}


@takes_settings(EncoderSettings)
def make_encoder_classifier(settings: EncoderSettings) -> EncoderClassifier:
    """Make an encoder without loading it; `@architectures = "spacy-slmre.EncoderClassifier.v1"`."""
    return EncoderClassifier(settings)
