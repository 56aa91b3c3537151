"""Loading a causal language model, in 4 bits or with full weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.q4_1 import Q4_1, read_q4_1
from spacy_slmre.models.checkpoint import explain_errors, load_config, load_network, load_tokenizer, read_model_config
from spacy_slmre.models.hub import quiet_loading, use_one_thread_in_forks

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

NF4 = "nf4"
QUANTIZATIONS = ("auto", NF4, None)


def load_base(
    folder: Path,
    *,
    quantization: str | None,
    dtype: torch.dtype,
    device: torch.device,
    keep_4bit: bool = False,
    any_layers: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load weights and tokenizer from a checked folder, in evaluation mode.

    Args:
        folder: Result of `locate_base`.
        quantization: "nf4" quantizes the linear layers to 4 bits (NF4, double quantization); None keeps the stored
            weights; "auto" is "nf4" unless the stored weights are already quantized.
        dtype: Compute type.
        device: Device to load to.
        keep_4bit: Keep 4-bit weights on a CPU (a quarter of the memory, several times slower). By default they are
            dequantized to `dtype` there, which does not change their values.
        any_layers: Accept layers other than full attention, if prompts are computed separately.

    Raises:
        ModelError: The architecture is not supported, a file is damaged or incomplete, or the weights cannot be kept in
            4 bits.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    use_one_thread_in_forks()
    check_architecture(folder, any_layers=any_layers)
    stored, method = quant_method(folder), resolve_quantization(folder, quantization)
    if keep_4bit and method == Q4_1:
        raise ModelError(
            f"model.keep_4bit = true, but the weights in {folder} are stored in Q4_1, which has no kernel for "
            'computing. Remove the setting, or set model.quantization = "nf4" to requantize them.'
        )
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa"}
    uses_bitsandbytes = method not in (None, Q4_1)
    if uses_bitsandbytes:
        options["device_map"] = {"": device}
        if stored != method:
            options["quantization_config"] = nf4_config(dtype)
    with quiet_loading():
        if stored == Q4_1:
            options |= read_q4_1(folder, dtype)
            model = load_network(MODEL_FOR_CAUSAL_LM_MAPPING[type(options["config"])], folder, **options)
        else:
            model = load_network(AutoModelForCausalLM, folder, **options)
        tokenizer = load_tokenizer(folder)
        if uses_bitsandbytes:
            configure_4bit_layers(model, dtype)
            if device.type == "cpu" and not keep_4bit:
                model = model.dequantize(dtype=dtype)
            # Otherwise, weights outside the 4-bit layers (embeddings, norms) would keep their stored type. Buffers are
            # not converted, because rotary frequencies must remain in float32.
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(dtype)
    if not uses_bitsandbytes:
        torch.nn.Module.to(model, device)
    return model.eval(), tokenizer


def check_architecture(folder: Path, *, any_layers: bool = False) -> None:
    """Raise ModelError if a model does not generate text, or, without `any_layers`, has other layers than attention.

    With sliding windows, convolutions or recurrent layers, blocks of the prompt tree would see tokens of other
    branches, or not see all of their own.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING, DynamicCache
    from transformers.cache_utils import DynamicLayer

    config = load_config(folder)
    # Transformers would also load an encoder as a language model, in which each token sees those after it.
    is_encoder = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if is_encoder or getattr(config, "is_encoder_decoder", False):
        kind = "an encoder" if is_encoder else "an encoder-decoder"
        raise ModelError(
            f"The base model in {folder} is {kind} ({config.model_type}), not a causal language model. Use one such as "
            "SmolLM2, Qwen2.5 or Llama 3.2, or train the encoder with rel_classifier."
        )
    if any_layers:
        return
    with explain_errors(folder):
        layers = DynamicCache(config=config).layers
    if kinds := sorted({type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer}):
        raise ModelError(
            f"The base model in {folder} has layers that cannot share a prompt tree ({', '.join(kinds)}). Use "
            "a model with full attention only (SmolLM2, Qwen2.5, Llama 3.2, …)."
        )


def quant_method(folder: Path) -> str | None:
    """Return the quantization method of stored weights, or None for full weights."""
    with explain_errors(folder):
        stored = read_model_config(folder, folder.name).get("quantization_config")
        return str(stored.get("quant_method", "bitsandbytes")) if stored else None


def resolve_quantization(folder: Path, quantization: str | None) -> str | None:
    """Return the quantization of the loaded linear layers: "q4_1", "nf4", or None.

    Weights that are already quantized keep their method ("bitsandbytes"); only Q4_1 can be requantized to NF4.
    """
    stored = quant_method(folder)
    if quantization == NF4 and stored in (None, Q4_1):
        return NF4
    return NF4 if quantization == "auto" and stored is None else stored


def nf4_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the config of NF4 with double quantization (QLoRA, arXiv 2305.14314)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def configure_4bit_layers(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Set the compute type, and keep bitsandbytes from repacking weights on AVX512-BF16 processors.

    Repacked weights are several times slower without an extra kernel, give wrong gradients after an evaluation during
    training, and cannot be saved without loss (bitsandbytes 0.50.2).
    """
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
            module.compute_dtype = dtype


def as_full_model(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Copy a model with dequantized weights to one without a quantization config, so that it can be saved."""
    from transformers import AutoModelForCausalLM

    config = model.config.to_dict()
    config.pop("quantization_config", None)
    full: PreTrainedModel = AutoModelForCausalLM.from_config(
        type(model.config).from_dict(config), attn_implementation="sdpa", dtype=dtype
    )
    full.load_state_dict(model.state_dict())
    full.tie_weights()
    torch.nn.Module.to(full, model.device)
    return full.eval()
