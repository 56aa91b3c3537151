"""Prediction with OpenVINO, which is faster than torch on CPUs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.encoder.network import RelationNetwork
from spacy_slmre.models.hub import quiet_loading
from spacy_slmre.util.extras import require_extra


class OpenVINORuntime:
    """Computes the same logits as the network that it was converted from.

    Args:
        model: The converted network.
    """

    def __init__(self, model: Any) -> None:
        openvino = _import()
        self._model = model
        # As many threads as torch, so that OMP_NUM_THREADS applies to both.
        options = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self._compiled = openvino.Core().compile_model(model, "CPU", options)

    @classmethod
    def convert(cls, network: RelationNetwork) -> OpenVINORuntime:
        """Convert a network, which takes a few seconds.

        Raises:
            ModelError: OpenVINO is not installed, or cannot convert it.
        """
        openvino = _import()
        length = 16
        example = [
            torch.arange(2 * length).reshape(2, length) + 5,
            torch.ones(2, length, dtype=torch.long),
            torch.tensor([[1, 4], [2, 3]]),
        ]
        if network.types is not None:
            example.append(torch.zeros(2, 2, dtype=torch.long))
        try:
            with torch.inference_mode(), warnings.catch_warnings(), quiet_loading():
                # Tracing warns about constant shapes; these are only the shapes of weights.
                warnings.simplefilter("ignore")
                model = openvino.convert_model(network, example_input=tuple(example))
        except Exception as error:  # converters raise many kinds of errors
            raise ModelError(f'OpenVINO cannot convert this encoder ({error}). Set model.runtime = "torch".') from error
        return cls(model)

    @classmethod
    def read(cls, file: Path) -> OpenVINORuntime:
        """Read a file written by `write`.

        Raises:
            ModelError: OpenVINO is not installed, or the file is damaged.
        """
        openvino = _import()
        try:
            return cls(openvino.Core().read_model(file))
        except RuntimeError as error:
            raise ModelError(f"{file} is damaged ({error}). Delete it, and the network is converted again.") from error

    def write(self, file: Path) -> None:
        """Write the model as an .xml file, and its float32 weights as a .bin file next to it."""
        _import().save_model(self._model, file, compress_to_fp16=False)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Compute logits (n, n_labels) from the network's inputs."""
        output = self._compiled([tensor.cpu().numpy() for tensor in inputs])[0]
        return torch.from_numpy(output.copy())  # OpenVINO reuses the memory


def _import() -> Any:
    with require_extra("openvino", 'model.runtime = "openvino"'):
        import openvino
    return openvino
