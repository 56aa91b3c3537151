"""What the checks of `benchmarks/gpu.py` share: shapes of models, and a run with its results."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.benchmark import Timer
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.util.system import peak_memory, reset_peak_memory
from speed.workload import make_instances, make_schema, make_sentences

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


def labeled_instances(sentences: int) -> list[RelationInstance]:
    """Return instances with labels that follow from the types of their mentions, so that they can be learned."""
    names = make_schema().names
    return [
        replace(one, label=names[sum(map(ord, one.head_mention.type + one.tail_mention.type)) % len(names)])
        for one in make_instances(make_sentences(sentences, 12))
    ]
