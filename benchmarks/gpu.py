"""Check and measure on one NVIDIA GPU what otherwise only runs on CPUs.

Usage: bash benchmarks/gpu.sh [--output gpu.json] [--limit 460] [--only nf4,attention] [--dry-run]
       python scripts/readme_table.py --gpu gpu.json

The checks run one after the other in a separate process. A check that fails or takes too long is recorded with its
error, and the others run in a new process. A check that is expected to take longer than what is left of --limit is
skipped. Results are written after each check. Models have the shapes of published ones with random weights, and are
made on the GPU, so nothing is downloaded; the packaged model is used, too, if it is installed. With --dry-run,
everything is tiny and runs on the CPU, as a test of this script.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import io
import json
import math
import multiprocessing
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import make_parser
from speed.tables import gpu_tables, show
from speed.workload import make_instances, make_schema, make_sentences
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from transformers import AutoModelForCausalLM, BertConfig, BertModel, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.attention import AttentionGroups
from spacy_slmre.models.causal_lm.loading import configure_4bit_layers
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.models.causal_lm.sequences import TrainingSequences
from spacy_slmre.models.encoder.model import EncoderClassifier, make_encoder_classifier
from spacy_slmre.models.hub import PACKAGED_BASE, packaged_encoder, packaged_folder
from spacy_slmre.models.prompts import PromptBuilder, PromptStyle
from spacy_slmre.util.io import atomic_write
from spacy_slmre.util.system import hardware, peak_memory, reset_peak_memory, versions

LIMIT = 460
Row = dict[str, Any]
"""A row of the results: values by column, in the order of the columns."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@dataclass(frozen=True)
class Shape:
    """The shape of a language model, and how it is tuned in the study.

    Attributes:
        rank: Rank of the LoRA weights; alpha is twice the rank.
        init_lora: Their initialization; "qera" would take most of the time of the largest model.
        checkpointing: Whether activations are recomputed in tuning.
    """

    config: Any
    sizes: dict[str, int]
    rank: int
    init_lora: str = "qera"
    checkpointing: bool = False


SHAPES = {
    "135M": Shape(
        LlamaConfig,
        {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
        | {"num_attention_heads": 9, "num_key_value_heads": 3},
        rank=16,
    ),
    "0.5B": Shape(  # Qwen2.5-0.5B
        Qwen2Config,
        {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}
        | {"num_attention_heads": 14, "num_key_value_heads": 2},
        rank=32,
    ),
    "3B": Shape(  # Qwen2.5-3B
        Qwen2Config,
        {"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36}
        | {"num_attention_heads": 16, "num_key_value_heads": 2},
        rank=64,
        init_lora="default",
        checkpointing=True,
    ),
}
TINY = {"vocab_size": 2048, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2}


@dataclass
class Run:
    """What the checks of a run share.

    Attributes:
        dry: Whether everything is tiny and runs on the CPU.
        folder: Working folder, for models that several checks use.
        problems: Results of the current check that differ from what is expected.
        rows: Rows of the current check.
    """

    dry: bool
    folder: Path
    problems: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """The device to check."""
        return torch.device("cpu" if self.dry else "cuda:0")

    @property
    def dtype(self) -> str:
        """The setting `dtype` of models that are not compared by type."""
        return "float32" if self.dry else "auto"

    def scaled(self, number: int, tiny: int) -> int:
        """Return a number, or a small one in a dry run."""
        return tiny if self.dry else number

    def expect(self, holds: bool, problem: str) -> None:
        """Record a problem unless a condition holds."""
        if not holds:
            self.problems.append(problem)

    def milliseconds(self, function: Callable[[], object]) -> float:
        """Return the median time of a function, including the work that it starts on the GPU."""
        timer = Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
        measured = timer.timeit(1) if self.dry else timer.blocked_autorange(min_run_time=0.2)
        return 1000 * measured.median

    @contextmanager
    def memory(self, row: Row, column: str = "peak GB") -> Iterator[None]:
        """Add the peak memory of a block to a row."""
        self.free()
        reset_peak_memory()
        yield
        row[column] = peak_memory(self.device)

    def free(self) -> None:
        """Free memory of models that are no longer used."""
        gc.collect()
        if not self.dry:
            torch.cuda.empty_cache()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A byte-level BPE tokenizer with a chat template, for which most words of the workload are one token."""
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        texts = [sentence["text"] for sentence in make_sentences(50, 1)] + list(make_schema().names)
        trainer = trainers.BpeTrainer(
            vocab_size=2000,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        special = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "pad_token": SPECIAL[2]}
        return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT_TEMPLATE, **special)

    def base(self, name: str) -> str:
        """Return the folder of a model with a shape and random weights, which is made at the first call.

        The weights are larger than usual, so that probabilities depend on the text, and a wrong mask shows.
        """
        folder = self.folder / ("tiny" if self.dry else name)
        if not folder.exists():
            shape = SHAPES[name]
            options: dict[str, Any] = {
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 2,
                "tie_word_embeddings": True,
            }
            options |= {"max_position_embeddings": 8192, "initializer_range": 0.3 if self.dry else 0.05}
            config = shape.config(**(TINY if self.dry else shape.sizes), **options)
            torch.manual_seed(0)
            with self.device:
                network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
            unfinished = self.folder / "unfinished"
            network.save_pretrained(unfinished)
            self.tokenizer.save_pretrained(unfinished)
            unfinished.rename(folder)
        return str(folder)

    def lm(self, base: str, **settings: Any) -> SmallLM:
        """Load a language model, by default on the device to check, without an adapter."""
        options = {"adapter": None, "device": str(self.device), "dtype": self.dtype, **settings}
        return make_small_lm(base=base, **options).load()

    def probabilities(self, lm: SmallLM, instances: Sequence[RelationInstance]) -> np.ndarray:
        """Return the probabilities of all labels, (n_instances, n_labels)."""
        return np.exp(lm.log_probs(instances, make_schema()))

    def compare(self, name: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> Row:
        """Return a row that compares probabilities, (n_instances, n_labels).

        Differences are relative to the largest range of a label's probability, which is almost 1 for tuned models, but
        small for random weights. The largest difference may be at most `tolerance`.
        """
        spread = float(np.ptp(expected, axis=0).max())
        differences = np.abs(found - expected) / spread
        mean, largest = float(differences.mean()), float(differences.max())
        self.expect(largest <= tolerance, f"{name}: a probability differs by {largest:.2g}, more than {tolerance:g}")
        equal = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
        return {"compared": name, "equal labels": equal, "mean difference": mean, "largest": largest, "range": spread}


# -- kernels -----------------------------------------------------------------------------------------------


def nf4(run: Run) -> None:
    """Compare quantization, products and gradients of 4-bit layers with the CPU's and with plain weights."""
    import bitsandbytes as bnb

    layers = [("0.5B, up", 4864, 896), ("3B, up", 11008, 2048), ("3B, down", 2048, 11008)]
    for name, outputs, inputs in [("tiny", 128, 64)] if run.dry else layers:
        torch.manual_seed(0)
        weight = (0.02 * torch.randn(outputs, inputs)).bfloat16()
        make = partial(bnb.nn.Params4bit, requires_grad=False, quant_type="nf4", compress_statistics=True)
        on_cpu = make(weight).to("cpu")
        layer = bnb.nn.LinearNF4(inputs, outputs, bias=False, compute_dtype=torch.bfloat16, device="meta")
        layer.weight = make(weight, module=layer).to(run.device)
        configure_4bit_layers(layer, torch.bfloat16)  # type: ignore[arg-type]
        same = float((layer.weight.data.cpu() == on_cpu.data).float().mean())
        plain = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        lost = relative_error(plain.cpu(), bnb.functional.dequantize_4bit(on_cpu.data, on_cpu.quant_state))
        run.expect(
            same > 0.999 and lost < 0.01, f"{name}: quantized otherwise than on the CPU ({same:.4f}, {lost:.2g})"
        )
        for tokens in (1, 64, run.scaled(1024, 128)):
            x = torch.randn(tokens, inputs, device=run.device, dtype=torch.bfloat16, requires_grad=True)
            expected = x.float() @ plain.float().T
            with torch.no_grad():
                errors = {"product": relative_error(layer(x), expected)}
            output = layer(x)
            errors["product in training"] = relative_error(output, expected)
            output.sum().backward()
            assert x.grad is not None
            errors["gradient"] = relative_error(x.grad, plain.float().sum(dim=0).expand(tokens, -1))
            for kind, error in errors.items():
                run.expect(error < 0.01, f"{name}, {tokens} tokens: the {kind} differs by {error:.2g}")
            with torch.no_grad():
                times = {"4 bits": run.milliseconds(partial(layer, x))}
                times["bfloat16"] = run.milliseconds(partial(F.linear, x, plain))
            run.rows.append(
                {"layer": name, "tokens": tokens, "equal to the CPU's": same, "error": max(errors.values())}
                | {f"ms, {kind}": time for kind, time in times.items()}
            )


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference relative to the norm of what is expected."""
    found, expected = found.detach().float(), expected.detach().float()
    return float((found - expected).norm() / expected.norm())


def optimizers(run: Run) -> None:
    """Compare `training.optim` settings, with states that are saved and loaded halfway as in a resumed run."""
    from transformers import Trainer, TrainingArguments

    size = run.scaled(2048, 320)  # states of more than 100,000 values are paged
    final: dict[str, float] = {}
    for name in ("adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"):
        args = TrainingArguments(
            output_dir=str(run.folder / "optimizers"), optim=name, learning_rate=1e-3, use_cpu=run.dry, report_to="none"
        )
        make, options = Trainer.get_optimizer_cls_and_kwargs(args)
        torch.manual_seed(0)
        inputs = torch.randn(256, size, device=run.device)
        target = inputs @ (torch.randn(size, size, device=run.device) / size**0.5)
        weight = torch.nn.Parameter(torch.zeros(size, size, device=run.device))
        row: Row = {"optim": name}
        with run.memory(row, "peak GB"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Paged optimizers are not supported on CPU")
            optimizer = make([weight], **options)
            half = partial(_descend, inputs, target, steps=run.scaled(50, 2))
            start = time.perf_counter()
            half(weight, optimizer)
            row["ms a step"] = 1000 * (time.perf_counter() - start) / run.scaled(50, 2)
            state = io.BytesIO()
            torch.save(optimizer.state_dict(), state)
            state.seek(0)
            copy = torch.nn.Parameter(weight.detach().clone())
            resumed = make([copy], **options)
            resumed.load_state_dict(torch.load(state, map_location="cpu"))
            final[name] = half(weight, optimizer)
            half(copy, resumed)
        row["final loss"] = final[name]
        difference = relative_error(copy.detach(), weight.detach())
        run.rows.append({**row, "difference after resuming": difference})
        run.expect(difference < 1e-5, f"{name}: the weights differ by {difference:.2g} after resuming")
        ratio = final[name] / final["adamw_torch"]
        run.expect(0.67 < ratio < 1.5, f"{name}: the final loss is {ratio:.2f} times that of adamw_torch")


def _descend(
    inputs: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, optimizer: torch.optim.Optimizer, steps: int
) -> float:
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.mse_loss(inputs @ weight, target)
        loss.backward()
        optimizer.step()
    return loss.item()  # waits for the GPU


def attention(run: Run) -> None:
    """Compare kernels for the mask of a packed sequence, in training and behind a cached prefix."""
    for name, mask, shape in _attention_cases(run):
        query, key, value = _attention_inputs(run, len(mask), mask.shape[1], shape)
        bias = torch.zeros(mask.shape, dtype=query.dtype, device=run.device).masked_fill_(~mask, -torch.inf)
        groups = AttentionGroups(mask)
        full = partial(full_attention, mask)
        chosen = SDPBackend(torch._fused_sdp_choice(query, *_repeat(query, key, value), attn_mask=mask[None, None]))
        ways: dict[str, tuple[Callable[..., torch.Tensor], SDPBackend | None]] = {
            f"boolean mask (torch chooses {chosen.name.lower()})": (full, None),
            "additive mask": (partial(full_attention, bias), None),
            "boolean mask, memory-efficient kernel": (full, SDPBackend.EFFICIENT_ATTENTION),
            "boolean mask, cuDNN": (full, SDPBackend.CUDNN_ATTENTION),
            "boolean mask, plain products": (full, SDPBackend.MATH),
            "by groups, as on CPUs": (partial(_grouped_attention, groups), None),
        }
        expected = _gradients(full, [one.float() for one in (query, key, value)], SDPBackend.MATH)
        for number, (way, (attend, backend)) in enumerate(ways.items()):
            row: Row = {"mask": name, "attention": way}
            try:
                _measure_attention(run, row, partial(_with_backend, attend, backend), (query, key, value), expected)
            except RuntimeError as error:
                if number == 0 or "CUDA error" in str(error):
                    raise
                row["note"] = str(error).splitlines()[0][:80]  # a kernel that does not support masks
            run.rows.append(row)


def flex_attention(run: Run) -> None:
    """Compare flex attention, whose blocks follow the mask, with scaled dot-product attention."""
    from torch.nn.attention.flex_attention import create_block_mask
    from torch.nn.attention.flex_attention import flex_attention as attend

    compiled: Any = attend if run.dry else torch.compile(attend)

    def compare(name: str, mask: torch.Tensor, shape: tuple[int, int, int]) -> None:
        inputs = _attention_inputs(run, len(mask), mask.shape[1], shape)
        full = partial(full_attention, mask)
        expected = _gradients(full, [one.float() for one in inputs], SDPBackend.MATH)
        row: Row = {"mask": name, "attention": "scaled dot product"}
        _measure_attention(run, row, full, inputs, expected)
        run.rows.append(row)
        make = partial(
            create_block_mask, lambda b, h, q, k: mask[q, k], None, None, *mask.shape, device=str(run.device)
        )
        flex = partial(compiled, block_mask=make(), enable_gqa=True)
        start = time.perf_counter()
        flex(*inputs)
        row = {"mask": name, "attention": "flex attention", "s, compiling": time.perf_counter() - start}
        _measure_attention(run, row, flex, inputs, expected)
        run.rows.append(row | {"ms, mask": run.milliseconds(make)})

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        for name, mask, shape in _attention_cases(run):
            try:
                compare(name, mask, shape)
            except RuntimeError as error:  # compilers raise many kinds, all of them RuntimeErrors
                if "CUDA error" in str(error):
                    raise
                run.problems.append(f"{name}: {' '.join(str(error).split())[:200]}")


def full_attention(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Compute attention with the whole mask, as transformers does on GPUs."""
    return F.scaled_dot_product_attention(query, *_repeat(query, key, value), attn_mask=mask[None, None])


def _repeat(query: torch.Tensor, *shared: torch.Tensor) -> list[torch.Tensor]:
    """Repeat keys or values for the heads that share them."""
    return [one.repeat_interleave(query.shape[1] // one.shape[1], dim=1) for one in shared]


def _grouped_attention(groups: AttentionGroups, *inputs: torch.Tensor) -> torch.Tensor:
    return groups.attend(*inputs, None).transpose(1, 2)


def _attention_cases(run: Run) -> Iterator[tuple[str, torch.Tensor, tuple[int, int, int]]]:
    """Yield masks, bool (n_tokens, n_keys), with the number of heads, of key heads, and the head size."""
    prompts, schema = PromptBuilder(run.tokenizer, PromptStyle()), make_schema()
    instances = _labeled(run.scaled(40, 2))
    room = run.scaled(2048, 256)
    sequences = TrainingSequences(prompts, instances, schema, max_tokens=room, seed=0)
    longest = sequences[max(range(len(sequences)), key=sequences.size)].packed
    mask, prefix = torch.from_numpy(longest.mask).to(run.device), len(prompts.prefix(schema))
    for name in ("0.5B",) if run.dry else ("0.5B", "3B"):
        sizes = TINY if run.dry else SHAPES[name].sizes
        heads, key_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
        shape = (heads, key_heads, sizes["hidden_size"] // heads)
        yield f"{name}, {len(mask)} tokens", mask, shape
        yield f"{name}, {len(mask) - prefix} tokens after {prefix}", mask[prefix:], shape


def _attention_inputs(run: Run, tokens: int, keys: int, shape: tuple[int, int, int]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    sizes = [(shape[0], tokens), (shape[1], keys), (shape[1], keys)]
    return [torch.randn(1, *size, shape[2], device=run.device, dtype=torch.bfloat16) for size in sizes]


def _with_backend(
    attend: Callable[..., torch.Tensor], backend: SDPBackend | None, *inputs: torch.Tensor
) -> torch.Tensor:
    with sdpa_kernel(backend) if backend is not None else nullcontext():
        return attend(*inputs)


def _gradients(
    attend: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], backend: SDPBackend | None = None
) -> list[torch.Tensor]:
    """Return the output, and the gradients of queries, keys and values for a fixed gradient of the output."""
    own = [one.detach().requires_grad_() for one in inputs]
    with sdpa_kernel(backend) if backend is not None else nullcontext():
        output = attend(*own)
        torch.manual_seed(1)
        output.backward(
            torch.randn(output.shape, device=output.device).to(output)
        )  # in the order of a contiguous tensor
    return [output.detach(), *(one.grad for one in own if one.grad is not None)]


def _measure_attention(
    run: Run,
    row: Row,
    attend: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
) -> None:
    """Add errors, milliseconds and memory to a row."""
    with torch.no_grad():
        errors = [relative_error(attend(*inputs), expected[0])]
        row["ms, forward"] = run.milliseconds(partial(attend, *inputs))
    try:
        with run.memory(row):
            found = _gradients(attend, inputs)
        errors += map(relative_error, found, expected)
        row["ms, with gradients"] = run.milliseconds(partial(_gradients, attend, inputs))
    except NotImplementedError as error:  # flex attention has no gradients on CPUs
        row["note"] = str(error).splitlines()[0][:80]
    row["error"] = max(errors)
    run.expect(row["error"] < 0.05, f"{row['mask']}, {row['attention']}: differs by {row['error']:.2g}")


# -- models ------------------------------------------------------------------------------------------------


def equality(run: Run) -> None:
    """Compare probabilities on the GPU with those on the CPU in float32."""
    instances = make_instances(make_sentences(run.scaled(4, 1), run.scaled(12, 4)))
    bases = {"random 135M": (run.base("135M"), None)}
    if not run.dry and (packaged_folder() / "config.json").exists():
        bases[PACKAGED_BASE] = (PACKAGED_BASE, None)
        bases["shipped adapter"] = (PACKAGED_BASE, "auto")
    else:
        run.rows.append({"model": PACKAGED_BASE, "compared": "not measured (not installed, or a dry run)"})
    for name, (base, adapter) in bases.items():
        load = partial(run.lm, base, adapter=adapter)
        expected = {
            kind: run.probabilities(load(device="cpu", dtype="float32", quantization=kind), instances)
            for kind in (None, "nf4")
        }
        for dtype, quantization, tolerance in (
            ("float32", None, 1e-3),
            ("bfloat16", None, 0.25),
            ("float32", "nf4", 0.05),
            ("bfloat16", "nf4", 0.25),
        ):
            lm = load(dtype=dtype, quantization=quantization, keep_4bit=quantization is not None)
            kind = f"{dtype}, 4 bits" if quantization else dtype
            found = run.probabilities(lm, instances)
            run.rows.append({"model": name, **run.compare(kind, found, expected[quantization], tolerance)})
            del lm
            run.free()


def tune(run: Run, name: str) -> None:
    """Tune a model on generated sentences as `slmre tune` does, with the settings of the study."""
    from spacy_slmre.cli import slmre_cli
    from spacy_slmre.training.config import read_config, resolve_config
    from spacy_slmre.training.tune import tune

    shape, steps = SHAPES[name], run.scaled(40, 20)
    folder = run.folder / "corpora"
    folder.mkdir(exist_ok=True)
    for split, start, count in (("dev", 0, run.scaled(4, 2)), ("train", 4, run.scaled(500, 12))):
        rows = _documents(start + count)[start:]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        files = [str(folder / f"{split}.{ending}") for ending in ("jsonl", "spacy")]
        slmre_cli(["convert", files[0], "--format", "json", "-o", files[1], "-F"], standalone_mode=False)
    file = folder / "tune.cfg"
    file.write_text(f"""
[model]
@architectures = "spacy-slmre.SmallLM.v1"
base = "{run.base(name)}"
adapter = null
quantization = "nf4"
device = "{run.device}"

[lora]
rank = {run.scaled(shape.rank, 4)}
alpha = {2 * run.scaled(shape.rank, 4)}
init_lora = "{shape.init_lora}"

[training]
max_tokens = {run.scaled(2048, 512)}
gradient_accumulation_steps = 1
num_train_epochs = 1000
max_steps = {steps}
eval_steps = {steps}
gradient_checkpointing = {json.dumps(shape.checkpointing)}

[corpora]

[corpora.train]
@readers = "spacy-slmre.RelationCorpus.v1"
path = "{folder}/train.spacy"

[corpora.dev]
@readers = "spacy-slmre.RelationCorpus.v1"
path = "{folder}/dev.spacy"
""")
    started = time.perf_counter()
    with run.memory({}):
        metrics = tune(resolve_config(read_config(file), name), run.folder / f"tuned-{name}", overwrite=True)
    logs = [entry for entry in metrics["history"] if "loss" in entry]
    first, last = logs[0], logs[-1]
    seconds, done = last["seconds"] - first["seconds"], last["step"] - first["step"]
    run.expect(math.isfinite(last["loss"]), f"the loss at step {last['step']} is {last['loss']}")
    run.expect(last["loss"] < first["loss"], f"the loss rises from {first['loss']} to {last['loss']}")
    run.rows.append(
        {
            "model": name,
            "activation checkpointing": "yes" if shape.checkpointing else "no",
            "steps": metrics["steps"],
            "steps/s": done / seconds,
            "tokens/s": (last["epoch"] - first["epoch"]) * metrics["tokens_per_epoch"] / seconds,
            "pairs/s": (last["epoch"] - first["epoch"]) * metrics["pairs_per_epoch"] / seconds,
            "peak GB": metrics["peak_memory_gb"],
            "first loss": first["loss"],
            "last loss": last["loss"],
            "s, whole run": time.perf_counter() - started,
        }
    )


def scoring(run: Run, name: str) -> None:
    """Measure pairs per second and memory by precision and size of a packed sequence."""
    instances = make_instances(make_sentences(run.scaled(40, 2), 12))
    schema = make_schema()
    for kind in ("nf4", None):
        lm = run.lm(run.base(name), quantization=kind, keep_4bit=True)
        for tokens in (512,) if run.dry else (1024, 2048, 4096, 8192):
            sized = SmallLM(
                replace(lm.settings, max_batch_tokens=tokens), lm.resolved, network=(lm.network, lm.prompts.tokenizer)
            )
            row: Row = {"model": name, "weights": "4 bits" if kind else "bfloat16", "max_batch_tokens": tokens}
            with run.memory(row):
                score = partial(sized.top_k, instances, schema)
                score()
                row["pairs/s"] = 1000 * len(instances) / run.milliseconds(score)
            run.rows.append(row)
        del lm, sized


def keep_4bit(run: Run) -> None:
    """Compare 4-bit weights with and without `keep_4bit`, saved and restored, and weights that are not quantized."""
    instances = make_instances(make_sentences(run.scaled(4, 1), 12))
    base = run.base("0.5B")
    expected = None
    for name, settings in {
        "keep_4bit = true": {"quantization": "nf4", "keep_4bit": True},
        "keep_4bit = false": {"quantization": "nf4"},
        "saved in 4 bits": {"quantization": "nf4", "keep_4bit": True},
        "quantization = null": {"quantization": None},
    }.items():
        row: Row = {}
        with run.memory(row):
            lm = run.lm(base, **settings)
            if name == "saved in 4 bits":
                lm.save(run.folder / "saved", embed=True)
                lm = lm.restore(run.folder / "saved").load()
            found = run.probabilities(lm, instances)
            row["pairs/s"] = 1000 * len(instances) / run.milliseconds(lambda lm=lm: lm.top_k(instances, make_schema()))
        weights = sum(one.numel() * one.element_size() for one in lm.network.parameters()) / 1e9
        expected = found if expected is None else expected
        # On a CPU, `keep_4bit` also changes how products are computed; without quantization, weights differ.
        tolerance = math.inf if settings["quantization"] is None else 1e-3
        run.rows.append({**run.compare(name, found, expected, tolerance), "weights GB": weights, **row})
        del lm


def updates(run: Run) -> None:
    """Train with spaCy's optimizer, as `nlp.update` does, and compare scores of the encoder with the CPU's."""
    from thinc.api import Adam

    instances, schema, base = _labeled(run.scaled(8, 2)), make_schema(), _encoder(run)
    encoders = {
        f"rel_classifier, {markers} markers": make_encoder_classifier(
            base=base, markers=markers, device=str(run.device), dtype=run.dtype
        )
        for markers in ("typed", "levitated")
    }
    trained: dict[str, Any] = {"slm_relations": run.lm(run.base("135M")), **encoders}
    for name, model in trained.items():
        row: Row = {"component": name}
        with run.memory(row):
            model.initialize(schema, instances)
            optimizer = Adam(1e-3)
            start, losses = time.perf_counter(), []
            for _ in range(run.scaled(20, 3)):
                losses.append(model.update(instances, schema))
                model.finish_update(optimizer)
            row["updates/s"] = len(losses) / (time.perf_counter() - start)
        run.expect(losses[-1] < losses[0], f"{name}: the loss rises from {losses[0]:.3g} to {losses[-1]:.3g}")
        found = np.exp(model.log_probs(instances, schema))
        restored = deepcopy(model)  # as a worker process receives it
        run.rows.append(row | run.compare("copied", np.exp(restored.log_probs(instances, schema)), found, 1e-2))
    for name, encoder in encoders.items():
        folder = run.folder / name
        encoder.save(folder, embed=True)
        settings = replace(encoder.settings, device="cpu", dtype="float32")
        expected = np.exp(EncoderClassifier(settings).restore(folder).log_probs(instances, schema))
        found = np.exp(encoder.log_probs(instances, schema))
        row = {"component": name, **run.compare("float32 on the CPU", found, expected, 0.25)}
        with run.memory(row):
            seconds = run.milliseconds(partial(encoder.top_k, instances, schema)) / 1000
        run.rows.append({**row, "pairs/s": len(instances) / seconds})


def _encoder(run: Run) -> str:
    """Return the folder of the packaged encoder, or of a tiny one if it is not installed."""
    if not run.dry and (packaged := packaged_encoder()) is not None:
        return str(packaged)
    folder = run.folder / "encoder-base"
    tokenizer = deepcopy(run.tokenizer)
    tokenizer.add_special_tokens({"cls_token": SPECIAL[1], "sep_token": SPECIAL[2]})
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _labeled(sentences: int) -> list[RelationInstance]:
    """Return instances with labels that follow from the types of their mentions, so that they can be learned."""
    names = make_schema().names
    return [
        replace(one, label=names[sum(map(ord, one.head_mention.type + one.tail_mention.type)) % len(names)])
        for one in make_instances(make_sentences(sentences, 12))
    ]


def _documents(count: int) -> list[dict[str, Any]]:
    """Return documents in our JSON form with the labels of `_labeled`."""
    documents: dict[str, dict[str, Any]] = {}
    for one in _labeled(count):
        text = one.context.text
        mentions = [
            {"start": m.start, "end": m.end, "text": text[m.start : m.end], "type": m.type}
            for m in one.context.mentions
        ]
        document = documents.setdefault(text, {"id": str(len(documents)), "text": text, "entities": mentions})
        relation = {"head": mentions[one.head], "tail": mentions[one.tail], "label": one.label, "score": 1.0}
        document.setdefault("relations", []).append(relation)
    return list(documents.values())


# -- running -----------------------------------------------------------------------------------------------

CHECKS: dict[str, tuple[Callable[[Run], None], int]] = {
    "nf4": (nf4, 25),
    "equality": (equality, 40),
    "optimizers": (optimizers, 20),
    "attention": (attention, 30),
    "tune_0.5B": (partial(tune, name="0.5B"), 50),
    "scoring_0.5B": (partial(scoring, name="0.5B"), 25),
    "keep_4bit": (keep_4bit, 30),
    "tune_3B": (partial(tune, name="3B"), 90),
    "scoring_3B": (partial(scoring, name="3B"), 40),
    "updates": (updates, 30),
    "flex_attention": (flex_attention, 60),
}
"""Checks by name, with the seconds that they are expected to take."""


class Worker:
    """A process that runs checks, until it is stopped."""

    def __init__(self, dry: bool, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=_work, args=(remote, dry, folder), daemon=True)
        self._process.start()
        remote.close()

    def run(self, name: str, seconds: float | None) -> dict[str, Any]:
        """Run a check, for at most this time, and return its result."""
        self._connection.send(name)
        if not self._connection.poll(seconds):
            return {"status": "failed", "error": f"stopped after {seconds:.0f} s", "rows": []}
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            return {"status": "failed", "error": f"the process ended with {self._process.exitcode}", "rows": []}

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _work(connection: Connection, dry: bool, folder: Path) -> None:
    while True:
        name = connection.recv()
        run = Run(dry, folder)
        result: dict[str, Any] = {"status": "passed"}
        try:
            CHECKS[name][0](run)
        except Exception as error:
            traceback.print_exc()
            where = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
            result = {"status": "failed", "error": " ".join(message.split())[:600]}
        else:
            if run.problems:
                result = {"status": "failed", "error": "; ".join(run.problems)}
        connection.send({**result, "rows": run.rows})
        run.free()


def main() -> None:
    """Run the checks and write their results."""
    args = _parse()
    begun = time.monotonic()
    device = torch.device("cpu" if args.dry_run else "cuda:0")
    if not args.dry_run and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU. Use --dry-run to test this script on a CPU.")
    results: dict[str, Any] = {
        "machine": hardware(device),
        "date": datetime.date.today().isoformat(),
        "versions": {**versions(), "cuda": torch.version.cuda},
        "dry_run": args.dry_run,
        "checks": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        worker: Worker | None = None
        for name in args.only or CHECKS:
            expected = CHECKS[name][1]
            left = args.limit - (time.monotonic() - begun)
            if not args.dry_run and left < expected:
                result: dict[str, Any] = {"status": "skipped", "error": f"{left:.0f} s left", "rows": []}
            else:
                worker = worker or Worker(args.dry_run, Path(folder))
                started = time.monotonic()
                # The first check includes the start of the process.
                result = worker.run(name, None if args.dry_run else min(left, 60 + 2 * expected))
                result["seconds"] = time.monotonic() - started
            if result["status"] == "failed" and worker is not None:
                worker.stop()  # after an error, the state of the GPU is unknown
                worker = None
            results["checks"][name] = result
            print(f"{name}: {result['status']} {result.get('error', '')}", flush=True)
            if args.output:
                atomic_write(args.output, json.dumps(results, indent=1))
        if worker is not None:
            worker.stop()
    for table in gpu_tables(results):
        show(table)
    if failed := [name for name, result in results["checks"].items() if result["status"] == "failed"]:
        raise SystemExit(f"Failed: {', '.join(failed)}")


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds for everything (default: {LIMIT})")
    parser.add_argument("--only", type=_names, help=f"checks, separated by commas: {', '.join(CHECKS)}")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in CHECKS]:
        raise argparse.ArgumentTypeError(f"unknown checks: {', '.join(unknown)}")
    return names


if __name__ == "__main__":
    main()
