"""Checks of 4-bit kernels, optimizers and attention on a GPU; see `benchmarks/gpu.py`."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from spacy_slmre.models.attention import AttentionGroups
from spacy_slmre.models.causal_lm.loading import configure_4bit_layers
from spacy_slmre.models.causal_lm.sequences import TrainingSequences
from spacy_slmre.models.prompts import PromptBuilder, PromptStyle
from speed.gpu_run import SHAPES, TINY, Row, Run, labeled_instances
from speed.workload import make_schema


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
    instances = labeled_instances(run.scaled(40, 2))
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
