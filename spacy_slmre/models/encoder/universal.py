"""An encoder for any labels: it compares pairs with the wordings and definitions of labels."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self, cast

import torch
from safetensors.torch import save_file

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.checkpoint import WEIGHTS_FILE
from spacy_slmre.models.encoder.label_embeddings import LabelEmbeddings
from spacy_slmre.models.encoder.levitated import LevitatedMarkers
from spacy_slmre.models.encoder.network import LevitatedNetwork, MatchingHead, max_tokens
from spacy_slmre.models.encoder.pair_encoder import PairEncoder
from spacy_slmre.models.encoder.settings import PairEncoderSettings
from spacy_slmre.models.encoder.storage import load_encoder, load_weights
from spacy_slmre.models.few_shot import check_examples, fit_labels, positive_examples, read_examples, shift_labels
from spacy_slmre.models.hub import (
    PACKAGED_ENCODER,
    BaseModelInfo,
    copy_model,
    identify,
    keep_in_cache,
    locate_base,
    resolve_device,
)
from spacy_slmre.models.thinc_shim import ThincShim, cpu_tensors
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.io import file_hash, temporary_output
from spacy_slmre.util.json_files import check_fields, read_record
from spacy_slmre.util.settings import takes_settings

SHIPPED = Path(__file__).parents[2] / "adapters" / "universal_encoder"
"""The shipped weights."""
MODEL_FILE = "universal_encoder.json"
BASE_FOLDER = "base"
MAX_FITTED = 64
"""Number of label sets whose fitted weights are kept."""
# L2 penalty on weights that are fitted to examples: with 3 and 8 examples per label, 5, 10 and 20 were equally good on
# dev data.
_EXAMPLES_L2 = 10.0


@dataclass(frozen=True, kw_only=True)
class UniversalEncoderSettings(PairEncoderSettings):
    """Settings of an encoder for any labels: the arguments of `spacy-slmre.UniversalEncoder.v1`.

    Attributes:
        weights: "auto" for the shipped weights, or a folder that `UniversalEncoder.save` wrote.
        examples: JSONL file of few-shot examples, as for a language model. Labels move towards the pairs of their
            examples, which takes no time per pair. The file is read when the model is first used.
        dropout: Dropout rate inside the encoder in training; null keeps the rate of its config.
        head_learn_rate: Learning rate of the head and new marker tokens, as a multiple of the encoder's.
        mixed_precision: Train in bfloat16 if the hardware supports it; weights remain in float32.
        dtype: Type for inference: "float32", "bfloat16", "float16", or "auto": bfloat16 if the hardware supports it.
        device: "cpu", "cuda", "cuda:1", …, or "auto": the GPU if there is one.
        max_batch_tokens: Tokens of a batch, including padding.

    Raises:
        ModelError: A value is out of range.
    """

    weights: str = "auto"
    examples: str | None = None


@dataclass(frozen=True)
class StoredUniversalEncoder:
    """The content of a folder with weights.

    Attributes:
        base: The encoder that they were trained from, which also embeds the labels.
        threshold: Default threshold of relations.
        weights: File with the weights; None to start from the base encoder.
        base_folder: The base encoder, if it is in the folder.
        configured: The setting `weights` of the model that was saved.
        examples: The content of its few-shot examples.
    """

    base: BaseModelInfo
    threshold: float | None
    weights: Path | None
    base_folder: Path | None = None
    configured: str = "auto"
    examples: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def read(cls, folder: Path) -> StoredUniversalEncoder:
        """Read a folder. Raises ModelError if it is incomplete or damaged."""
        stored = read_record(folder / MODEL_FILE, _parse, ModelError)
        embedded = folder / BASE_FOLDER
        return replace(stored, weights=folder / WEIGHTS_FILE, base_folder=embedded if embedded.is_dir() else None)


def _parse(data: dict[str, Any]) -> StoredUniversalEncoder:
    check_fields(data, base=dict, threshold=(int, float, type(None)), configured=str)
    base, examples = BaseModelInfo.from_dict(data["base"]), check_examples(data.get("examples", []))
    return StoredUniversalEncoder(base, data["threshold"], None, None, data["configured"], examples)


class UniversalEncoder(PairEncoder):
    """An encoder whose labels need no training: the logit of a label depends on its wording and definition.

    Probabilities are a softmax over the labels of a schema. Training does not add weights for labels.

    Args:
        settings: How to load, train and run it.
        stored: The weights to use instead of those in the settings.
    """

    settings: UniversalEncoderSettings

    def __init__(self, settings: UniversalEncoderSettings, stored: StoredUniversalEncoder | None = None) -> None:
        super().__init__(settings)
        self._found = stored
        self._embed: LabelEmbeddings | None = None
        self._fitted: OrderedDict[str, torch.Tensor | None] = OrderedDict()
        self._is_trained = False

    @classmethod
    def from_base(cls, settings: UniversalEncoderSettings, base: str = PACKAGED_ENCODER) -> UniversalEncoder:
        """Make a model that starts from a sentence encoder, to be trained. Raises ModelError if that is not found."""
        info = identify(locate_base(base), base)
        return cls(settings, StoredUniversalEncoder(info, None, None))

    @property
    def _stored(self) -> StoredUniversalEncoder:
        """The weights, found when they are needed: a saved pipeline has its own, wherever those in the settings are."""
        if self._found is None:
            weights, examples = self.settings.weights, self.settings.examples
            found = StoredUniversalEncoder.read(SHIPPED if weights == "auto" else Path(weights).expanduser())
            if examples is not None:
                try:
                    found = replace(found, examples=read_examples(examples))
                except ValueError as error:
                    raise ModelError(f"model.{error}") from error
            self._found = found
        return self._found

    @property
    def default_threshold(self) -> float | None:
        """The minimum probability of a relation that was best on dev data."""
        return self._stored.threshold

    @default_threshold.setter
    def default_threshold(self, threshold: float | None) -> None:
        self._found = replace(self._stored, threshold=threshold)

    @property
    def base_name(self) -> str:
        """Name of the base encoder."""
        return self._stored.base.name

    def set_examples(self, examples: Sequence[RelationInstance]) -> None:
        """Replace the few-shot examples, labeled pairs; they are saved with the model."""
        with self._lock:
            self._found = replace(self._stored, examples=tuple(example.to_dict() for example in examples))
            self._fitted.clear()

    # -- weights -------------------------------------------------------------------------------------------

    def load(self) -> Self:
        """Load the weights unless they are loaded.

        Raises:
            ModelError: The base encoder is not available or another one, or the weights are damaged.
        """
        with self._lock:
            if self._shim is None:
                self._shim, self._markers, self._embed = self._build()
        return self

    def _build(self) -> tuple[ThincShim, LevitatedMarkers, LabelEmbeddings]:
        folder = self._base_folder()
        # Tensors created in inference mode cannot require gradients.
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoder, tokenizer = load_encoder(folder, dropout=self.settings.dropout, packed=True)
            encoder.get_input_embeddings().requires_grad_(False)
            # The embeddings of words are not trained, so that both encoders can share them.
            original = copy.deepcopy(encoder, {id(encoder.get_input_embeddings()): encoder.get_input_embeddings()})
            markers = LevitatedMarkers(tokenizer, max_tokens(encoder))
            network = LevitatedNetwork(encoder, MatchingHead, len(markers.new_tokens))
            if self._stored.weights is None:
                network.init_markers([markers.ids_of(words) for words in markers.new_tokens])
            else:
                load_weights(network, self._stored.weights, not_stored=[_words_name(network)])
            device = resolve_device(self.settings.device)
            network.to(device).eval()
            original.to(device)  # type: ignore[arg-type]
        shim = ThincShim(network, learn_rate_of=self._learn_rate_of)
        return shim, markers, LabelEmbeddings(original, tokenizer)

    def _base_folder(self) -> Path:
        """Return the checked folder of the base encoder."""
        base = self._stored.base
        folder = self._stored.base_folder or locate_base(base.name, base.revision)
        if identify(folder, base.name, base.revision).fingerprint != base.fingerprint:
            raise ModelError(
                f'The weights of this encoder belong to another version of "{base.name}" than the one in {folder}.'
            )
        return folder

    def initialize(self, schema: LabelSchema, instances: Sequence[RelationInstance]) -> None:
        """Do nothing: training continues with the weights, and labels have no weights of their own."""

    def add_labels(self, schema: LabelSchema) -> None:
        """Do nothing: labels have no weights of their own."""

    def set_labels(self, schema: LabelSchema) -> None:
        """Embed the labels, and fit them to the few-shot examples.

        Raises ValueError if an example has another label, and ModelError if one is too long.
        """
        with self._lock:
            self.load()
            if not self.network.training:
                self._fitted_weights(schema)

    def _logits(self, outputs: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
        assert self._embed is not None
        head = cast(MatchingHead, self.network.head)
        logits = outputs[:, :-1] @ head.label_vectors(self._embed(schema.positive_labels)).to(outputs).T
        if schema.negative_label is None:
            return logits
        column = schema.index[schema.negative_label]
        return torch.cat([logits[:, :column], outputs[:, -1:], logits[:, column:]], dim=1)

    def _with_examples(self, logits: torch.Tensor, outputs: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
        weights = self._fitted_weights(schema)
        return logits if weights is None else shift_labels(logits, outputs[:, :-1] @ weights.to(outputs).T, schema)

    def _fitted_weights(self, schema: LabelSchema) -> torch.Tensor | None:
        """Return what examples add to the vectors of positive labels, (n_labels, width); None without examples."""
        if not self._stored.examples:
            return None
        if schema.fingerprint not in self._fitted:
            self._fitted[schema.fingerprint] = self._fit(schema)
            if len(self._fitted) > MAX_FITTED:
                self._fitted.popitem(last=False)
        return self._fitted[schema.fingerprint]

    @torch.inference_mode(False)  # tensors created in inference mode cannot be used to compute gradients
    @torch.no_grad()
    def _fit(self, schema: LabelSchema) -> torch.Tensor | None:
        instances, gold = positive_examples(self, self._stored.examples, schema, self.markers.max_length)
        if not instances:
            return None
        rows, parts = zip(*((rows, self._scorer()(*inputs)) for rows, inputs in self._batches(instances)), strict=True)
        outputs = torch.cat(parts)
        logits = self._logits(outputs, replace(schema, labels=schema.positive_labels, negative_label=None))
        return fit_labels(logits, outputs[:, :-1], gold[list(chain(*rows))].to(outputs.device), l2=_EXAMPLES_L2)

    def _forget(self) -> None:
        super()._forget()
        self._fitted.clear()
        self._is_trained = True
        self.default_threshold = None  # it was chosen for the weights before training

    # -- saving --------------------------------------------------------------------------------------------

    def describe_files(self) -> Any:
        """Describe base encoder and weights; see `RelationModel.describe_files`."""
        weights = self._stored.weights
        files = {"base": self.base_name, "weights": None if weights is None else file_hash(weights)}
        return {**files, "threshold": self.default_threshold, "examples": list(self._stored.examples)}

    def save(self, folder: Path, *, embed: bool) -> None:
        """Write the weights, and the base encoder with `embed`; the folder is replaced atomically."""
        with self._lock, temporary_output(folder) as temporary:
            temporary.mkdir()
            self._write_weights(temporary / WEIGHTS_FILE)
            if embed:
                (temporary / BASE_FOLDER).mkdir()
                copy_model(self._base_folder(), temporary / BASE_FOLDER)
            stored = {"base": self._stored.base.to_dict(), "threshold": self._stored.threshold}
            data = {**stored, "configured": self.settings.weights, "examples": list(self._stored.examples)}
            (temporary / MODEL_FILE).write_text(json.dumps(data, indent=2), encoding="utf-8")

    def _write_weights(self, file: Path) -> None:
        if self._stored.weights is not None and not self._is_trained:
            shutil.copy(self._stored.weights, file)
        else:
            untrained = _words_name(cast(LevitatedNetwork, self.network))
            save_file({name: value for name, value in cpu_tensors(self.network).items() if name != untrained}, file)

    def restore(self, folder: Path, *, temporary: bool = False) -> UniversalEncoder:
        """Return the model that `save` wrote; see `RelationModel.restore`.

        If the setting `weights` was changed after saving, it takes precedence, with a warning; not if the folder is
        temporary.

        Raises:
            ModelError: The folder is incomplete or damaged.
        """
        stored = StoredUniversalEncoder.read(folder)
        if not temporary and self.settings.weights != stored.configured:
            warnings.warn(
                f'The saved weights are not used: model.weights was "{stored.configured}" when they were saved, and is '
                f'"{self.settings.weights}" now.',
                stacklevel=2,
            )
            return UniversalEncoder(self.settings)
        restored = UniversalEncoder(self.settings, stored)
        if temporary:
            restored.load()
            # The files will be gone.
            kept = None if stored.base_folder is None else keep_in_cache(stored.base_folder)
            restored._found = replace(stored, weights=None, base_folder=kept)
            restored._is_trained = True
        return restored

    def __getstate__(self) -> dict[str, Any]:
        files = self._saved_files(embed=self._stored.base_folder is not None) if self._is_trained else {}
        return {"arguments": (self.settings, self._stored), "files": files}


def _words_name(network: LevitatedNetwork) -> str:
    """Return the name of the embeddings of words, which are not trained and so not stored."""
    return next(name for name, parameter in network.named_parameters() if parameter is network.words.weight)


@takes_settings(UniversalEncoderSettings)
def make_universal_encoder(settings: UniversalEncoderSettings) -> UniversalEncoder:
    """Make an encoder for any labels without loading it; `@architectures = "spacy-slmre.UniversalEncoder.v1"`."""
    return UniversalEncoder(settings)
