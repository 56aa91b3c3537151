"""Compare packed scoring with the machine's rate of matrix products, and profile the rest."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile, record_function

from spacy_slmre.models.attention import AttentionGroups
from spacy_slmre.models.causal_lm import scoring
from spacy_slmre.models.causal_lm.decoder import NetworkDecoder
from spacy_slmre.models.causal_lm.llama import LlamaDecoder
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.models.causal_lm.trie import TrieSearch
from spacy_slmre.models.packing import PackedInput, TokenTree
from spacy_slmre.models.prompts import PromptBuilder
from speed.options import Options
from speed.timing import console, in_turns, median, ratios
from speed.workload import make_instances, make_schema, make_sentences

TOKENIZATION, PACKING, ATTENTION, HEAD = "tokenization", "packing and search", "attention", "head"
REST = "Python between operations"
# Functions of ours and the group of the profile that they and everything they call belong to.
RANGES = (
    (PromptBuilder, "contexts", TOKENIZATION),
    (PromptBuilder, "queries", TOKENIZATION),
    (scoring, "pack", PACKING),
    (TokenTree, "add", PACKING),
    (TokenTree, "take_input", PACKING),
    (TrieSearch, "frontier", PACKING),
    (TrieSearch, "expand", PACKING),
    (AttentionGroups, "attend", ATTENTION),
    (LlamaDecoder, "logits", HEAD),
    (NetworkDecoder, "logits", HEAD),
)


def limit(options: Options) -> dict[str, Any]:
    """Measure the share of matrix products at 12 pairs per sentence and 40 labels, and profile a run."""
    console.print("limit: products of matrices beside packed scoring")
    lm = make_small_lm(base=options.base, adapter=None, dtype=options.dtype, device=options.device).load()
    instances = make_instances(make_sentences(options.scaled(8), 12))
    schema = make_schema()

    def score() -> None:
        lm.top_k(instances, schema)

    score()  # caches the keys and values of the instruction
    lengths, needed = _count_tokens(lm, score)
    # Most tokens are computed in passes of this length; those of the trie search are short.
    length = max(set(lengths), key=lambda one: one * lengths.count(one))
    # A copy, because scoring would use the network of `lm` from now on.
    network = make_small_lm(base=options.base, adapter=None, dtype=options.dtype, device=options.device).network
    layers = [module for module in network.get_decoder().modules() if type(module) is torch.nn.Linear]
    if not layers:
        raise SystemExit("limit: the model has no plain linear layers. Use a base model without 4-bit weights.")
    flops = sum(2 * layer.in_features * layer.out_features for layer in layers)
    products = _products(layers, length)
    seconds = in_turns({"score": score, "products": products}, options.rounds)
    ideal = [needed / length * one for one in seconds["products"]]
    return {
        "tokens_needed": needed,
        "tokens_computed": sum(lengths),
        "packed_length": length,
        "flops_a_token": flops,
        "dtype": str(network.dtype).removeprefix("torch."),
        "gflops_s": flops * length / median(seconds["products"]) / 1e9,
        "seconds": median(seconds["score"]),
        "ideal_seconds": median(ideal),
        "share": median(ratios(ideal, seconds["score"])),
        "shares": ratios(ideal, seconds["score"]),
        "pairs": len(instances),
        "profile": _profile(score, lm.decoder.device),
    }


def _count_tokens(lm: SmallLM, score: Callable[[], None]) -> tuple[list[int], int]:
    """Return the tokens of each forward pass, padding included, and the number of tokens in the tree."""
    lengths: list[int] = []
    needed = 0
    add, forward = TokenTree.add, lm.decoder.forward

    def counting(tree: TokenTree, tokens: Any, parent: int = -1, **kwargs: Any) -> int:
        nonlocal needed
        needed += len(tokens) if parent >= 0 else 0  # the root, the instruction, is computed once
        return add(tree, tokens, parent, **kwargs)

    def recording(packed: PackedInput, *args: Any) -> Any:
        lengths.append(len(packed.tokens))
        return forward(packed, *args)

    with patch.object(TokenTree, "add", counting), patch.object(lm.decoder, "forward", recording):
        score()
    return lengths, needed


def _products(layers: list[torch.nn.Linear], length: int) -> Callable[[], None]:
    """Return a function that computes only the matrix products of all linear layers for one sequence."""
    weight = layers[0].weight
    inputs = {width: torch.randn(length, width).to(weight) for width in {layer.in_features for layer in layers}}

    @torch.inference_mode()
    def multiply() -> None:
        for layer in layers:
            F.linear(inputs[layer.in_features], layer.weight)
        if weight.is_cuda:
            torch.cuda.synchronize()

    return multiply


def _profile(score: Callable[[], None], device: torch.device) -> dict[str, Any]:
    """Profile one run: seconds by group, of the device on a GPU, and the remaining time of the host."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with _named(), profile(activities=activities) as profiler:
        started = time.perf_counter()
        score()
        whole = time.perf_counter() - started
    groups: Counter[str] = Counter()
    unit = 1e-6
    for event in profiler.events():
        if event.device_type != torch.autograd.DeviceType.CPU:
            continue  # kernels are counted with the operation that started them
        own = event.self_cpu_time_total if device.type == "cpu" else event.self_device_time_total
        groups[_group(event)] += own * unit
    groups[REST] += whole - sum(groups.values())
    return {"seconds": whole, "groups": {name: groups[name] for name in sorted(groups, key=groups.get)[::-1]}}


def _group(event: Any) -> str:
    """Return the group of an event: that of our code around it, or that of the operation."""
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    for ours in (TOKENIZATION, PACKING, ATTENTION, HEAD):
        if ours in names:
            return ours
    if any("scaled_dot_product" in name for name in names):
        return ATTENTION
    if any(name in ("aten::linear", "aten::matmul") for name in names):
        return "linear layers"
    return "norms and elementwise" if names[-1].startswith("aten::") else REST


@contextmanager
def _named() -> Iterator[None]:
    """Show our own code to the profiler under the name of its group."""
    wrapped: dict[Any, dict[str, Callable]] = defaultdict(dict)
    for owner, name, group in RANGES:
        wrapped[owner][name] = _recorded(getattr(owner, name), group)
    with ExitStack() as stack:
        for owner, functions in wrapped.items():
            for name, function in functions.items():
                stack.enter_context(patch.object(owner, name, function))
        yield


def _recorded(function: Callable, group: str) -> Callable:
    def recorded(*args: Any, **kwargs: Any) -> Any:
        with record_function(group):
            result = function(*args, **kwargs)
            return list(result) if isinstance(result, Iterator) else result

    return recorded
