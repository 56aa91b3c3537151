"""The network in OpenVINO's runtime, which is faster than torch on CPUs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from spacy_slmre.models.causal_lm.loading import ModelError, quiet_loading
from spacy_slmre.models.encoder.network import RelationNetwork


class OpenVINORuntime:
    """Gives logits like the network that it was converted from.

    Args:
        model: OpenVINO's model of the network.
    """

    def __init__(self, model: Any) -> None:
        openvino = _import()
        self._model = model
        # As many threads as torch is allowed, so that one setting (OMP_NUM_THREADS) holds for both.
        options = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self._compiled = openvino.Core().compile_model(model, "CPU", options)

    @classmethod
    def convert(cls, network: RelationNetwork) -> OpenVINORuntime:
        """Convert a network, which takes some seconds.

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
                # Tracing warns of shapes that are fixed for good; they are those of the weights.
                warnings.simplefilter("ignore")
                model = openvino.convert_model(network, example_input=tuple(example))
        except Exception as error:  # whatever a converter may raise
            raise ModelError(
                f'OpenVINO cannot convert this encoder ({error}): set model.runtime = "torch".'
            ) from error
        return cls(model)

    @classmethod
    def read(cls, file: Path) -> OpenVINORuntime:
        """Read what `write` wrote.

        Raises:
            ModelError: OpenVINO is not installed, or the file is damaged.
        """
        openvino = _import()
        try:
            return cls(openvino.Core().read_model(file))
        except RuntimeError as error:
            raise ModelError(f"{file} is damaged: delete it, and it is made again ({error}).") from error

    def write(self, file: Path) -> None:
        """Write the model: an .xml file, and its weights in float32 beside it as .bin."""
        _import().save_model(self._model, file, compress_to_fp16=False)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits (n, n_labels) of the network's inputs."""
        output = self._compiled([tensor.cpu().numpy() for tensor in inputs])[0]
        return torch.from_numpy(output.copy())  # the runtime uses that memory again


def _import() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            "model.runtime = \"openvino\" needs OpenVINO: pip install 'spacy-slmre[openvino]'"
        ) from error
    return openvino
