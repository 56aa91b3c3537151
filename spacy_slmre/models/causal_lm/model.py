"""A small language model that labels relation instances: packed prompt trees, answers scored in a trie."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from spacy_slmre.instances import RelationInstance, contexts_of, shorten
from spacy_slmre.models.causal_lm import loading, storage
from spacy_slmre.models.causal_lm.adapter import Adapter
from spacy_slmre.models.causal_lm.attention import attention_inputs, use_grouped_attention
from spacy_slmre.models.causal_lm.loading import BaseModelInfo, ModelError
from spacy_slmre.models.causal_lm.lora import merge_lora
from spacy_slmre.models.causal_lm.packing import ROUND_TO, Piece, TokenTree, plan
from spacy_slmre.models.causal_lm.settings import SmallLMSettings
from spacy_slmre.models.causal_lm.training import Trainable
from spacy_slmre.models.causal_lm.trie import LabelTrie, TrieSearch
from spacy_slmre.models.prompts import PromptBuilder
from spacy_slmre.schema import LabelSchema

ROOM_BEHIND_CONTEXT = 512
"""Tokens that are kept free for a query and its answer."""
KEPT_SCHEMAS = 4
"""For how many label sets the computed prefix and the trie are kept."""


class _Prepared:
    """What one label set needs: its trie, the tokens of its prefix, their keys and values."""

    def __init__(self, builder: PromptBuilder, schema: LabelSchema) -> None:
        try:
            self.trie = LabelTrie(builder.answers(schema))
        except ValueError as error:
            names = ", ".join(schema.names)
            raise ModelError(
                f"{error} Give these labels other wordings (labels 0, 1, …: {names})."
            ) from error
        self.prefix = builder.prefix(schema)
        self.cache: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        self.version: object = None


class SmallLM(Trainable):
    """A decoder with its prompts and, where given, an adapter. Weights are loaded at first use.

    One schema a call: `log_probs` gives every label's log-probability, `best` the exact top k and stops as
    soon as they are certain. Both always score in evaluation mode, whatever mode the network is in.

    Args:
        settings: How to load and run.
        adapter: LoRA weights to put on the base.
        folder: Where the base model lies, where this is known (a model embedded in a pipeline).
        fingerprint: What the base model's weights must have, where this is known (a saved pipeline).
        configured: What the config says of model and prompt, to notice where it is changed after saving.
        problem: An error in the settings that a saved pipeline would mend, raised if weights are wanted.
        network: A loaded network and its tokenizer, in place of loading them.
    """

    def __init__(
        self,
        settings: SmallLMSettings,
        adapter: Adapter | None = None,
        *,
        folder: Path | None = None,
        fingerprint: str | None = None,
        problem: ModelError | None = None,
        configured: Mapping[str, Any] | None = None,
        network: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None,
    ) -> None:
        self.settings = settings
        self.adapter = adapter
        self.folder = folder
        self.fingerprint = fingerprint
        self.problem = problem
        self.configured = dict(configured or {})
        self._lock = threading.RLock()
        self._network: PreTrainedModel | None = None
        self._prompts: PromptBuilder | None = None
        self._prepared: OrderedDict[str, _Prepared] = OrderedDict()
        if network is not None:
            self._network = network[0]
            use_grouped_attention(self._network)
            self._prompts = PromptBuilder(network[1], settings.style)

    @property
    def schema(self) -> LabelSchema | None:
        """The label set that the adapter was tuned on, where it was tuned on one."""
        return self.adapter.record.schema if self.adapter and self.adapter.record else None

    @property
    def quantization(self) -> str | None:
        """How the base model is loaded: as set, or with "auto" as the adapter was tuned."""
        setting = self.settings.quantization
        return self.adapter.quantization(setting) if self.adapter else setting

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._network is not None

    def load(self, *, merge: bool = True) -> SmallLM:
        """Load the weights now rather than at first use; does nothing where they are loaded.

        Args:
            merge: Add an adapter's weights to the base model's where this can be done, for scoring; without,
                they stand apart, for training. Merged weights cannot be parted again and are loaded anew.

        Raises:
            ModelError: Base model or adapter cannot be had, or they do not fit each other.
        """
        with self._lock:
            if self._network is None or (self._merged and not merge):
                if self._network is not None:
                    self.identity()  # what could not be loaded again is not dropped
                self._network = self._peft = None
                self._merged = False
                self.forget()
                # Weights made under somebody's inference mode could never be trained, nor tell of changes.
                with torch.inference_mode(False):
                    network, tokenizer = self._load(merge)
                self._prompts = PromptBuilder(tokenizer, self.settings.style)
                self._network = network
        return self

    def _load(self, merge: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        settings, base = self.settings, self.identity()
        if self.fingerprint not in (None, base.fingerprint):
            raise ModelError(
                f'The pipeline was saved with other weights of "{base.name}" ({self.fingerprint}) '
                f"than those found in {self.locate()} ({base.fingerprint}). Give the same model as "
                "model.base or model.revision, or save the pipeline again."
            )
        if self.adapter is not None:
            self.adapter.check_base(base)
        device = loading.resolve_device(settings.device)
        network, tokenizer = loading.load_base(
            self.locate(),
            quantization=self.quantization,
            dtype=loading.resolve_dtype(settings.dtype, device),
            device=device,
            keep_4bit=settings.keep_4bit,
        )
        use_grouped_attention(network)
        if self.adapter is not None:
            self._peft = self.adapter.attach(network)
            self._merged = merge and merge_lora(self._peft)
        return network, tokenizer

    def locate(self) -> Path:
        """The folder of the base model.

        Raises:
            ModelError: It is nowhere to be found.
        """
        if self.folder is None:
            return loading.locate_base(self.settings.base, self.settings.revision)
        loading.check_folder(self.folder, self.settings.base)
        return self.folder

    def identity(self) -> BaseModelInfo:
        """Name, revision and fingerprint of the base model's weights.

        Raises:
            ModelError: They are nowhere to be found, or a setting of the model is wrong.
        """
        if self.problem is not None:
            raise self.problem
        return loading.identify(self.locate(), self.settings.base, self.settings.revision)

    @property
    def network(self) -> PreTrainedModel:
        """The decoder, adapter included."""
        self.load()
        assert self._network is not None
        return self._network

    @property
    def prompts(self) -> PromptBuilder:
        """The prompts, tokenised."""
        self.load()
        assert self._prompts is not None
        return self._prompts

    def set_labels(self, schema: LabelSchema) -> None:
        """Have trie and prefix of a schema ready.

        Raises:
            ModelError: Its labels cannot be told apart, or its instruction is too long for the model.
            ValueError: A demonstration has a label that the schema lacks.
        """
        with self._lock:
            self._context_limit(self._prepare(schema))

    def truncate(
        self, instances: Sequence[RelationInstance], schema: LabelSchema, max_context_tokens: int
    ) -> list[RelationInstance | None]:
        """Shorten contexts of more than `max_context_tokens` tokens (numbering included) around their pairs.

        Args:
            instances: Any instances.
            schema: The labels, whose list takes room too.
            max_context_tokens: Most tokens of a context; the model's own limit applies as well.

        Returns:
            For every instance itself, its shortened form, or None where its two arguments stand farther
            apart than that.
        """
        with self._lock:
            return self._truncate(instances, schema, max_context_tokens)

    def _truncate(
        self, instances: Sequence[RelationInstance], schema: LabelSchema, max_context_tokens: int
    ) -> list[RelationInstance | None]:
        limit = min(max_context_tokens, self._context_limit(self._prepare(schema)))
        return shorten(
            instances,
            limit,
            count_tokens=lambda contexts: list(map(len, self.prompts.contexts(contexts))),
            offsets_of=lambda context: self.prompts.token_offsets(context.text),
        )

    def log_probs(self, instances: Sequence[RelationInstance], schema: LabelSchema) -> np.ndarray:
        """Log-probabilities of all labels: float64 (n_instances, n_labels); each row's exp sums to 1."""
        search = self._search(instances, schema, None, None)
        return search.labels

    def top_k(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        k: int = 1,
        allowed: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The exact k most probable labels, computing no more of the trie than they need.

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
        return self._search(instances, schema, k, allowed).top(k)

    def forget(self) -> None:
        """Drop computed prefixes; changes of weights in place are noticed without it."""
        with self._lock:
            self._prepared.clear()

    # -- computing ---------------------------------------------------------------------------------

    def _search(
        self,
        instances: Sequence[RelationInstance],
        schema: LabelSchema,
        k: int | None,
        allowed: np.ndarray | None,
    ) -> TrieSearch:
        with self._lock:
            network, prompts = self.network, self.prompts
            prepared = self._prepare(schema)
            result = TrieSearch(prepared.trie, len(instances), k, allowed)
            if not instances or not prepared.trie.forks:
                return result
            contexts = contexts_of(instances)
            position = {context: n for n, context in enumerate(contexts)}
            context_of = [position[instance.context] for instance in instances]
            context_tokens = prompts.contexts(contexts)
            first = prepared.trie.forks[0].feed
            query_tokens = [[*tokens, *first] for tokens in prompts.queries(instances)]
            self._check_lengths(prepared, context_tokens, query_tokens, context_of)
            # All labels: every fork of the trie will be computed behind every query.
            later = sum(len(fork.feed) for fork in prepared.trie.forks[1:]) if k is None else 0
            sequences = plan(
                [len(tokens) for tokens in context_tokens],
                query_tokens,
                context_of,
                self.settings.max_batch_tokens,
                [later] * len(instances),
            )
            with _evaluating(network):
                for pieces in sequences:
                    self._score(prepared, pieces, context_tokens, query_tokens, result)
            return result

    def _score(
        self,
        prepared: _Prepared,
        pieces: Sequence[Piece],
        context_tokens: Sequence[Sequence[int]],
        query_tokens: Sequence[list[int]],
        result: TrieSearch,
    ) -> None:
        """Search the labels of the instances in one sequence, and put them into the result."""
        tree = TokenTree()
        prefix = tree.add(prepared.prefix)
        cache = DynamicCache(config=self.network.config)
        if self.settings.prefix_cache:
            for layer, (keys, values) in enumerate(self._prefix_cache(prepared)):
                cache.update(keys, values, layer)
            tree.take_input()
        rows: list[int] = []
        ends: dict[tuple[int, int], int] = {}  # (row, fork) → block whose last token decides there
        for piece in pieces:
            context = tree.add(context_tokens[piece.context], prefix, two_way=self.settings.style.two_way)
            blocks = tree.add_paths([query_tokens[query] for query in piece.queries], context)
            for query, block in zip(piece.queries, blocks, strict=True):
                ends[len(rows), 0] = block
                rows.append(query)
        index = np.array(rows)
        allowed = None if result.allowed is None else result.allowed[index]
        search = TrieSearch(prepared.trie, len(rows), result.k, allowed)
        requests = list(search.requests())
        while requests:
            # In the order of rows, what belongs to one context stands together.
            for row, fork in sorted((row, fork) for fork, members in requests for row in members):
                node = prepared.trie.forks[fork]
                if node.parent >= 0:
                    ends[row, fork] = tree.add(node.feed, ends[row, node.parent])
            start = tree.computed
            hidden = self._forward(tree, cache, ROUND_TO)
            for fork, members in requests:
                places = [tree.last_token(ends[row, fork]) - start for row in members]
                logits = self._logits(hidden[places], prepared.trie.forks[fork].tokens)
                search.resolve(fork, members, F.log_softmax(logits, dim=-1).double().cpu().numpy())
            requests = list(search.requests())
        result.labels[index] = search.labels

    def _forward(self, tree: TokenTree, cache: DynamicCache, round_to: int = 1) -> torch.Tensor:
        """Hidden states of the tree's new tokens: (n_tokens, hidden_size); fills the cache."""
        packed = tree.take_input(self.prompts.end_token, round_to)
        device = self.network.device
        output = self.network.get_decoder()(
            input_ids=torch.from_numpy(packed.tokens)[None].to(device),
            position_ids=torch.from_numpy(packed.positions)[None].to(device),
            **attention_inputs(torch.from_numpy(packed.mask).to(device)),
            past_key_values=cache,
            use_cache=True,
        )
        return output.last_hidden_state[0]

    def _logits(self, hidden: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        """Logits of some tokens only, in float32: (n_places, n_tokens)."""
        head = self.network.get_output_embeddings()
        columns = torch.tensor(tokens, device=hidden.device)
        if type(head) is not torch.nn.Linear:  # an adapted or quantised head has no plain rows
            return head(hidden)[:, columns].float()
        bias = None if head.bias is None else head.bias[columns].float()
        return F.linear(hidden.float(), head.weight[columns].float(), bias)

    def _prefix_cache(self, prepared: _Prepared) -> list[tuple[torch.Tensor, torch.Tensor]]:
        version = self._weights_version()
        if prepared.cache is None or prepared.version != version:
            tree = TokenTree()
            tree.add(prepared.prefix)
            cache = DynamicCache(config=self.network.config)
            self._forward(tree, cache)
            prepared.cache = [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore
            prepared.version = version
        return prepared.cache

    def _prepare(self, schema: LabelSchema) -> _Prepared:
        key = schema.fingerprint
        if key not in self._prepared:
            self._prepared[key] = _Prepared(self.prompts, schema)
        self._prepared.move_to_end(key)
        while len(self._prepared) > KEPT_SCHEMAS:
            self._prepared.popitem(last=False)
        return self._prepared[key]

    def _weights_version(self) -> tuple[int, int]:
        # Every in-place change of a tensor counts its version up.
        return id(self._network), sum(parameter._version for parameter in self.network.parameters())

    def _context_limit(self, prepared: _Prepared) -> int:
        """Most tokens of a context that leave room for prefix, query and answer."""
        positions = getattr(self.network.config, "max_position_embeddings", None) or 2**31
        limit = int(positions) - len(prepared.prefix) - ROOM_BEHIND_CONTEXT
        if limit < 1:
            raise ModelError(
                f"Instruction, labels and demonstrations take {len(prepared.prefix)} tokens of the "
                f"{positions} that the model reads: nothing is left for a text. Use fewer labels, or drop "
                "definitions or demonstrations."
            )
        return limit

    def _check_lengths(
        self,
        prepared: _Prepared,
        contexts: Sequence[Sequence[int]],
        queries: Sequence[Sequence[int]],
        context_of: Sequence[int],
    ) -> None:
        limit = getattr(self.network.config, "max_position_embeddings", None)
        longest = max(len(contexts[c]) + len(query) for query, c in zip(queries, context_of, strict=True))
        needed = len(prepared.prefix) + longest + max(len(fork.feed) for fork in prepared.trie.forks)
        if limit is not None and needed > limit:
            raise ModelError(
                f"A prompt of {needed} tokens ({len(prepared.prefix)} of them instruction, labels and "
                f"demonstrations) is longer than the {limit} that the model reads. Set a smaller "
                "max_context_tokens, or drop definitions or demonstrations."
            )

    # -- state -------------------------------------------------------------------------------------

    def save(self, folder: Path, *, embed: bool) -> None:
        """Write what is needed to have the same model again; the weights need not be loaded.

        Args:
            folder: Where to.
            embed: Write the whole base model, in 4 bits where it runs so; otherwise its name, revision and
                fingerprint.

        Raises:
            ModelError: The base model cannot be had.
        """
        base = self.identity()
        if self._unkept:
            self.export_adapter()
        source = self.locate() if embed else None
        storage.write(folder, self.settings, self.adapter, base, self.configured, source, self.quantization)

    def restore(self, folder: Path, *, temporary: bool = False) -> SmallLM:
        """The model that `save` wrote, with the run-time settings (device, compute type, …) of this one.

        What this one's config says otherwise of model and prompt than when it was saved was changed on
        purpose, and stays.

        Args:
            folder: Where from.
            temporary: The folder will not stay.

        Raises:
            ModelError: The folder is incomplete or damaged.
        """
        stored = storage.read(folder)
        if temporary:
            stored = storage.keep_in_cache(stored)
        changed = {name for name in stored.configured if stored.configured[name] != self.configured.get(name)}
        settings, adapter, problem = stored.apply_to(self.settings), stored.adapter, None
        if changed & {"base", "revision"}:
            own = self.settings
            settings, base_folder = replace(settings, base=own.base, revision=own.revision), None
        else:
            base_folder = stored.folder
        if "quantization" in changed:
            settings = replace(settings, quantization=self.settings.quantization)
        if changed & {"adapter", "label_list", "definitions", "demonstrations", "templates", "two_way"}:
            settings = replace(settings, style=self.settings.style)
            adapter, problem = self.adapter, self.problem
        return SmallLM(
            settings,
            adapter,
            folder=base_folder,
            fingerprint=stored.base.fingerprint,
            problem=problem,
            configured=stored.configured | {name: self.configured.get(name) for name in changed},
        )

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes load the weights themselves: sending them would cost more.
        if self._unkept:
            self.export_adapter()
        names = ("settings", "adapter", "folder", "fingerprint", "problem", "configured")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


@contextmanager
def _evaluating(network: PreTrainedModel) -> Iterator[None]:
    training = network.training
    if training:
        network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if training:
            network.train()
