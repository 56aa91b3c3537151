"""Measure two ways of computing less in the language model that change its results: int8 layers and early leaving.

    python benchmarks/approximations.py FOLDER … --sets kbp37 mnre [--train FOLDER …] [--pairs 400] [--rounds 5]

A FOLDER has label sets as in `assets/universal_corpus`. Whole passages with at most `--pairs` pairs of each set are
scored, in float32 on a CPU. Prints for each set:

* int8: torch's dynamic int8 linear layers, with a scale for each output channel, instead of float32: all of them, and
  all but `down_proj`, whose inputs have outliers. CPU time in alternating rounds, the share of pairs with the same most
  probable label, and micro-F1 with the default threshold;
* early leaving: after each of several layers, a logistic regression on the hidden state at a pair's answer decides
  whether the pair surely has no relation. It learns from the label sets of `--train` to predict what the whole model
  decides. The table shows the share of pairs that could leave if 99% of the relations of the whole model were kept, the
  threshold being chosen on the same pairs, and the share of the computation that this saves: a bound for what could be
  gained.
"""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import median

import numpy as np
import torch
from common import make_parser
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic
from unseen_labels import fitting_pairs, gold_relations, take_passages

from spacy_slmre.corpus.label_sets import LabelSetCorpus, LabelSetReader
from spacy_slmre.instances import RelationInstance, contexts_of
from spacy_slmre.metrics import count
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.models.causal_lm.scoring import PreparedLabels
from spacy_slmre.models.packing import TokenTree
from spacy_slmre.schema import LabelSchema

KEPT = 0.99
LAYERS = (5, 10, 15, 20, 25)
# The head stays in float32, because only rows of it are used.
INT8 = {"all": ("lm_head",), "all but down_proj": ("lm_head", "down_proj")}


def as_int8(lm: SmallLM, kept: tuple[str, ...]) -> SmallLM:
    """Return a copy of a language model with int8 linear layers, except those with a name in `kept`."""
    linear = [name for name, module in lm.network.named_modules() if isinstance(module, torch.nn.Linear)]
    chosen = {name: per_channel_dynamic_qconfig for name in linear if name.rpartition(".")[2] not in kept}
    network = quantize_dynamic(lm.network, chosen)
    return SmallLM(lm.settings, lm.resolved, network=(network, lm.prompts.tokenizer))


def decide(lm: SmallLM, instances: list[RelationInstance], schema: LabelSchema) -> tuple[np.ndarray, np.ndarray]:
    """Return the most probable label of each pair, and its positive label if it would be written, otherwise -1."""
    log_probs = lm.log_probs(instances, schema, k=2)
    most_probable = log_probs.argmax(axis=1)
    if schema.negative_label is not None:
        log_probs[:, schema.index[schema.negative_label]] = -np.inf
    best = log_probs.argmax(axis=1)
    is_written = np.exp(log_probs.max(axis=1)) >= (lm.default_threshold or 0.0)
    return most_probable, np.where(is_written, best, -1)


def compare_int8(
    lm: SmallLM, variants: dict[str, SmallLM], corpus: LabelSetCorpus, max_pairs: int, rounds: int
) -> list[list[str]]:
    """Return a row of numbers for each variant."""
    passages = take_passages(corpus, max_pairs)
    schema = corpus.schema
    pairs, instances = fitting_pairs(lm, passages, schema)
    results, seconds = {}, defaultdict(list)
    models = {"float32": lm, **variants}
    for number in range(rounds):
        for name in list(models)[:: -1 if number % 2 else 1]:
            models[name].set_labels(schema)
            start = time.process_time()
            results[name] = decide(models[name], instances, schema)
            seconds[name].append(time.process_time() - start)
    rows = []
    for name, (most_probable, written) in results.items():
        ratios = [one / other for one, other in zip(seconds["float32"], seconds[name], strict=True)]
        relations = {(pair, schema.names[c]) for pair, c in zip(pairs, written, strict=True) if c >= 0}
        equal = (most_probable == results["float32"][0]).mean()
        speed = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        f1 = count(gold_relations(passages), relations).f1
        rows.append([corpus.name, str(len(pairs)), name, speed, f"{equal:.3f}", f"{f1:.3f}"])
    return rows


def answer_states(lm: SmallLM, instances: list[RelationInstance], schema: LabelSchema) -> tuple[np.ndarray, np.ndarray]:
    """Return the hidden states at each pair's answer, (n_pairs, n_layers, hidden_size), and the share of queries.

    The latter is the share of the tokens of a pair's context and its queries that are queries, (n_pairs,).
    """
    labels = PreparedLabels(lm.prompts, schema)
    root = labels.trie.nodes[0].prefix_tokens
    layers = lm.network.get_decoder().layers
    found: dict[int, torch.Tensor] = {}

    def remember(number: int):
        def hook(_module, _inputs, output) -> None:
            found[number] = (output[0] if isinstance(output, tuple) else output).reshape(
                -1, lm.network.config.hidden_size
            )

        return hook

    hooks = [layers[number - 1].register_forward_hook(remember(number)) for number in LAYERS]
    states = np.zeros((len(instances), len(LAYERS), lm.network.config.hidden_size), dtype=np.float32)
    shares = np.zeros(len(instances))
    for context in contexts_of(instances):
        rows = [row for row, instance in enumerate(instances) if instance.context == context]
        tree = TokenTree()
        prefix = tree.add(labels.prefix)
        with lm.decoder.evaluating():
            computed = labels.prefix_cache(lm.decoder)
            tree.take_input()
            start = len(tree)
            text = tree.add(lm.prompts.contexts([context])[0], prefix)
            n_text = len(tree) - start
            queries = [[*tokens, *root] for tokens in lm.prompts.queries([instances[row] for row in rows])]
            ends = [tree.last_token(block) - tree.n_computed for block in tree.add_paths(queries, text)]
            n_new = len(tree) - start
            lm.decoder.forward(tree.take_input(), computed, ends)
        for column, number in enumerate(LAYERS):
            states[rows, column] = found[number][ends].numpy()
        shares[rows] = 1 - n_text / n_new
    for hook in hooks:
        hook.remove()
    return states, shares


def early_leaving(
    lm: SmallLM, train: list[LabelSetCorpus], corpora: list[LabelSetCorpus], max_pairs: int
) -> list[list[str]]:
    """Return a row of numbers for each label set and layer."""

    def measure(corpus: LabelSetCorpus) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        _, instances = fitting_pairs(lm, take_passages(corpus, max_pairs), corpus.schema)
        written = decide(lm, instances, corpus.schema)[1] >= 0
        return *answer_states(lm, instances, corpus.schema), written

    seen = [measure(corpus) for corpus in train]
    rows = []
    probes = []
    for column in range(len(LAYERS)):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced"))
        probes.append(
            probe.fit(
                np.concatenate([states[:, column] for states, _, _ in seen]),
                np.concatenate([written for _, _, written in seen]),
            )
        )
    n_layers = lm.network.config.num_hidden_layers
    for corpus in corpora:
        states, shares, written = measure(corpus)
        for column, number in enumerate(LAYERS):
            scores = probes[column].decision_function(states[:, column])
            lowest = np.quantile(scores[written], 1 - KEPT) if written.any() else np.inf
            leaves = scores < lowest
            saved = (leaves * shares).mean() * (1 - number / n_layers)
            rows.append([corpus.name, str(len(written)), str(number), f"{leaves.mean():.2f}", f"{saved:.2f}"])
    return rows


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--sets", nargs="*", default=[], help="names of label sets (default: all)")
    parser.add_argument("--train", nargs="*", default=[], help="folders of label sets to learn when pairs may leave")
    parser.add_argument("--pairs", type=int, default=400, help="maximum number of pairs of a set")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    lm = make_small_lm(dtype="float32", device="cpu").load()
    corpora = LabelSetReader(tuple(arguments.folders), tuple(arguments.sets))()
    console = Console(width=110)
    if arguments.rounds:
        variants = {f"int8: {name}": as_int8(lm, kept) for name, kept in INT8.items()}
        table = Table("set", "pairs", "layers", "speed", "same label", "micro-F1")
        for corpus in corpora:
            for row in compare_int8(lm, variants, corpus, arguments.pairs, arguments.rounds):
                table.add_row(*row)
        console.print(table)
    if arguments.train:
        train = LabelSetReader(tuple(arguments.train))()
        table = Table("set", "pairs", "after layer", "pairs that leave", "computation saved")
        for row in early_leaving(lm, train, corpora, arguments.pairs):
            table.add_row(*row)
        console.print(table)


if __name__ == "__main__":
    main()
