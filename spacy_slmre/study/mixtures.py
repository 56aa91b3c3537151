"""Mixtures: samples of several converted benchmarks, described by a manifest instead of copied.

Every document has a rank, a hash of seed, benchmark, split and position. A group of benchmarks that share a
cap gives its documents of lowest rank, until the cap is reached; of the last document only the first pairs
are taken, so that caps are met to the pair. The rank of that last document is all that a manifest has to keep
of a sample. Ranks depend on nothing else: the same seed gives the same sample on every machine.

A benchmark without a training split gives its dev split for one, less the documents that stand in its test
split too; the manifest keeps their positions. Dev has nothing of it then: who trains on it holds some out.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confection import Config
from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_slmre.corpus.docbin import corpus_files, file_hash, read_docs, read_user_data
from spacy_slmre.corpus.gold_docs import BENCHMARK
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.relations import PAIRS, RELATIONS, Relation
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import get_benchmark

BALANCES = ("none", "domain", "benchmark")
_PAIRS_KEY = f"spacy_slmre.{PAIRS}"


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a mixture is made of.

    Attributes:
        name: Its name.
        benchmarks: Names of the benchmarks.
        caps: Most annotated pairs of each split; 0 takes all.
        balance: "none" pools all benchmarks, "domain" takes equally many pairs of each domain, "benchmark"
            of each benchmark.
        seed: Seed of the sample.

    Raises:
        CorpusError: A value is out of its range.
    """

    name: str
    benchmarks: tuple[str, ...]
    caps: Mapping[str, int]
    balance: str = "none"
    seed: int = 42

    def __post_init__(self) -> None:
        if self.balance not in BALANCES:
            raise CorpusError(f'balance = "{self.balance}", but it must be one of {", ".join(BALANCES)}.')
        if not self.benchmarks or len(set(self.benchmarks)) < len(self.benchmarks):
            raise CorpusError("A mixture needs benchmarks, each of them once.")
        if not self.caps or any(not isinstance(cap, int) or cap < 0 for cap in self.caps.values()):
            raise CorpusError("A mixture needs at least one split, with a cap of 0 (no cap) or more.")

    @classmethod
    def from_file(cls, path: str | Path) -> Mixture:
        """Read a mixture from a config file.

        Raises:
            CorpusError: The file cannot be read, or it describes no mixture.
        """
        try:
            section = Config().from_disk(path)["mixture"]
            return cls(**{**section, "benchmarks": tuple(section["benchmarks"])})
        except OSError as error:
            raise CorpusError(f"{path} cannot be read: {error.strerror}.") from error
        except (KeyError, TypeError, ValueError) as error:
            raise CorpusError(f"{path} describes no mixture: {error}") from error


def converted_benchmarks(mixture: str | Path, corpora: Path) -> tuple[list[str], list[str]]:
    """The benchmarks of a mixture that are converted, and those that are not.

    Raises:
        CorpusError: The mixture cannot be read, or none of its benchmarks is there.
    """
    wanted = Mixture.from_file(mixture).benchmarks
    there = [name for name in wanted if (corpora / name).is_dir()]
    if not there:
        raise CorpusError(f"No benchmark of {mixture} is in {corpora}. Convert them: slmre convert-all")
    return there, [name for name in wanted if name not in there]


@dataclass
class _Source:
    """One split of one benchmark while its sample is drawn."""

    benchmark: str
    path: str
    files: list[dict[str, Any]]
    sizes: list[int]
    threshold: int = -1
    last_pairs: int = 0
    documents: int = 0
    pairs: int = 0
    left_out: dict[str, Any] | None = None
    """Where a dev split is for training: the test split that it was compared with, and which documents stand
    there too."""

    def to_dict(self) -> dict[str, Any]:
        left_out = len(self.left_out["positions"]) if self.left_out else 0
        content = {
            "benchmark": self.benchmark,
            "domain": get_benchmark(self.benchmark).domain,
            "path": self.path,
            "files": self.files,
            "available": {"documents": len(self.sizes) - left_out, "pairs": sum(self.sizes)},
            "sample": {"documents": self.documents, "pairs": self.pairs},
            "threshold": f"{max(self.threshold, 0):016x}",
            "last_pairs": self.last_pairs,
        }
        return content if self.left_out is None else {**content, "left_out": self.left_out}


@dataclass
class _Group:
    sources: list[_Source] = field(default_factory=list)

    @property
    def pairs(self) -> int:
        return sum(sum(source.sizes) for source in self.sources)


def make_manifest(mixture: Mixture, corpora: str | Path, *, skip_missing: bool = False) -> dict[str, Any]:
    """Draw the samples of a mixture.

    In a mixture with the splits train and dev, a benchmark that has only the second is trained on it.

    Args:
        mixture: The mixture.
        corpora: Folder of converted benchmarks: `<benchmark>/<split>.spacy`.
        skip_missing: Do without benchmarks and splits that are not there.

    Returns:
        The manifest: for each split its sources with files, hashes, counts and the bounds of the sample, what
        is missing, and the schema of every benchmark. A source whose dev split is for training has
        "left_out": the positions of its documents that stand in "test" too, which is null if there is none.

    Raises:
        CorpusError: A benchmark is missing altogether, no corpus of a split is there, or domains cannot be
            balanced as one of them is missing.
    """
    corpora = Path(corpora)
    absent = [name for name in mixture.benchmarks if not _present(corpora, name, mixture.caps)]
    if absent and (not skip_missing or len(absent) == len(mixture.benchmarks)):
        message = (
            f"There is no corpus of {', '.join(absent)} in {corpora}. Convert what you have: slmre convert"
        )
        raise CorpusError(message + (", or do without: --skip-missing." if not skip_missing else "."))
    if mixture.balance == "domain":
        _check_domains(mixture, absent, corpora)
    # Only where the mixture has both splits: otherwise somebody else may evaluate on the dev split.
    standing_in = [
        name
        for name in mixture.benchmarks
        if {"train", "dev"} <= mixture.caps.keys() and _has(corpora, name, "dev")
        if not _has(corpora, name, "train")
    ]
    splits = {}
    for split, cap in mixture.caps.items():
        elsewhere = standing_in if split == "dev" else []
        sources = []
        for name in mixture.benchmarks:
            if split == "train" and name in standing_in:
                sources.append(_stand_in(corpora, name))
            elif _has(corpora, name, split) and name not in elsewhere:
                sources.append(_scan(corpora, name, split))
        if not sources and not elsewhere and not skip_missing:
            raise CorpusError(f"None of the benchmarks has a split {split} in {corpora}.")
        _draw(sources, mixture, split, cap)
        splits[split] = {
            "cap": cap,
            "documents": sum(source.documents for source in sources),
            "pairs": sum(source.pairs for source in sources),
            "sources": [source.to_dict() for source in sources],
            "missing": sorted(
                set(mixture.benchmarks) - {source.benchmark for source in sources} - {*elsewhere}
            ),
        }
    return {
        "mixture": mixture.name,
        "seed": mixture.seed,
        "balance": mixture.balance,
        "splits": splits,
        "schemas": {
            name: schema.to_dict()
            for name in mixture.benchmarks
            if name not in absent and (schema := get_benchmark(name).schema)
        },
    }


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        CorpusError: The file cannot be read, or is no manifest.
    """
    try:
        manifest = json.loads(Path(path).read_text(encoding="utf-8"))
        manifest["splits"], manifest["schemas"], manifest["seed"]
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path} is no manifest of a mixture. Make one with: slmre mix") from error
    return manifest


def manifest_schemas(manifest: Mapping[str, Any]) -> dict[str, LabelSchema]:
    """The schema of each benchmark of a mixture; `doc.user_data["slmre.benchmark"]` is its key."""
    return {name: LabelSchema.from_dict(data) for name, data in manifest["schemas"].items()}


def verify_manifest(manifest: Mapping[str, Any], split: str, corpora: str | Path) -> None:
    """Make sure that the files of a split are those that the sample was drawn from.

    Raises:
        CorpusError: The mixture has no such split, or a file is absent or another one.
    """
    for source in _sources(manifest, split):
        found = corpus_files(Path(corpora) / source["path"])
        if [file_hash(file) for file in found] != [file["sha256"] for file in source["files"]]:
            raise CorpusError(
                f"{Path(corpora) / source['path']} is not the corpus that the mixture was made from. "
                "Convert it as before, or make the mixture anew."
            )


def read_mixture(manifest: Mapping[str, Any], split: str, corpora: str | Path, vocab: Vocab) -> Iterator[Doc]:
    """The documents of a mixture's split, with the sampled pairs only.

    The benchmarks are mixed: each document comes from one of them at random, as likely as that one has
    documents left. One shard a benchmark is in memory.

    Args:
        manifest: The manifest.
        split: The split.
        corpora: The folder that the manifest's paths start from.
        vocab: The vocabulary of the documents.
    """
    seed = manifest["seed"]
    streams = [
        (source["sample"]["documents"], _read_sample(source, seed, split, Path(corpora), vocab))
        for source in _sources(manifest, split)
    ]
    left = [count for count, _ in streams]
    rng = random.Random(f"{seed}/{split}")
    while any(left):
        position = rng.choices(range(len(left)), weights=left)[0]
        left[position] -= 1
        yield next(streams[position][1])


def _sources(manifest: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    if split not in manifest["splits"]:
        raise CorpusError(f'The mixture has no split "{split}", but {", ".join(manifest["splits"])}.')
    return manifest["splits"][split]["sources"]


def _read_sample(
    source: Mapping[str, Any], seed: int, split: str, corpora: Path, vocab: Vocab
) -> Iterator[Doc]:
    threshold = int(source["threshold"], 16)
    # Manifests of earlier versions leave nothing out.
    left_out = set(source.get("left_out", {}).get("positions", ()))
    for position, doc in enumerate(read_docs(corpora / source["path"], vocab)):
        rank = _rank(seed, source["benchmark"], split, position)
        pairs = getattr(doc._, PAIRS)
        if rank > threshold or not pairs or position in left_out:
            continue
        if rank == threshold and len(pairs) > source["last_pairs"]:
            _keep(doc, pairs[: source["last_pairs"]])
        yield doc


def _keep(doc: Doc, pairs: tuple[Relation, ...]) -> None:
    kept = {(pair.head, pair.tail, pair.label) for pair in pairs}
    positives = [pair for pair in getattr(doc._, RELATIONS) if (pair.head, pair.tail, pair.label) in kept]
    setattr(doc._, PAIRS, pairs)
    setattr(doc._, RELATIONS, positives)


def _present(corpora: Path, name: str, splits: Mapping[str, int]) -> bool:
    get_benchmark(name)
    return any(_has(corpora, name, split) for split in splits)


def _has(corpora: Path, name: str, split: str) -> bool:
    return (corpora / name / f"{split}.spacy").exists()


def _check_domains(mixture: Mixture, absent: list[str], corpora: Path) -> None:
    domains: dict[str, list[str]] = {}
    for name in mixture.benchmarks:
        domains.setdefault(get_benchmark(name).domain, []).append(name)
    for domain, names in domains.items():
        if set(names) <= set(absent):
            raise CorpusError(
                f"{mixture.name} takes equally many pairs of each domain, but no {domain} benchmark is in "
                f"{corpora} ({', '.join(names)}). Convert one (slmre convert), or mix what anyone may "
                "download: configs/mixtures/*-open.cfg."
            )


def _scan(corpora: Path, name: str, split: str) -> _Source:
    relative = f"{name}/{split}.spacy"
    sizes = []
    for data in read_user_data(corpora / relative):
        if data.get(BENCHMARK) != name:
            raise CorpusError(
                f"{corpora / relative} holds documents of {data.get(BENCHMARK)!r}, not of {name}."
            )
        sizes.append(len(data.get(_PAIRS_KEY, ())))
    files = [{"name": file.name, "sha256": file_hash(file)} for file in corpus_files(corpora / relative)]
    return _Source(name, relative, files, sizes)


def _stand_in(corpora: Path, name: str) -> _Source:
    """The dev split of a benchmark for training, less the documents whose text stands in its test split."""
    source = _scan(corpora, name, "dev")
    if not _has(corpora, name, "test"):
        source.left_out = {"test": None, "positions": []}
        return source
    test = f"{name}/test.spacy"
    vocab = Vocab()
    texts = {doc.text for doc in read_docs(corpora / test, vocab)}
    positions = [
        position for position, doc in enumerate(read_docs(corpora / source.path, vocab)) if doc.text in texts
    ]
    for position in positions:
        source.sizes[position] = 0  # so that it is not drawn
    source.left_out = {"test": test, "positions": positions}
    return source


def _draw(sources: list[_Source], mixture: Mixture, split: str, cap: int) -> None:
    groups: dict[str, _Group] = {}
    for source in sources:
        domain = get_benchmark(source.benchmark).domain
        key = {"none": "", "domain": domain, "benchmark": source.benchmark}[mixture.balance]
        groups.setdefault(key, _Group()).sources.append(source)
    share = min((group.pairs for group in groups.values()), default=0)
    if cap and groups:
        share = min(share, cap // len(groups))
    for group in groups.values():
        _draw_group(group, mixture.seed, split, share)


def _draw_group(group: _Group, seed: int, split: str, budget: int) -> None:
    ranked = sorted(
        (_rank(seed, source.benchmark, split, position), number, size)
        for number, source in enumerate(group.sources)
        for position, size in enumerate(source.sizes)
        if size
    )
    for rank, number, size in ranked:
        if not budget:
            break
        source = group.sources[number]
        taken = min(size, budget)
        budget -= taken
        source.threshold, source.last_pairs = rank, taken
        source.documents += 1
        source.pairs += taken


def _rank(seed: int, benchmark: str, split: str, position: int) -> int:
    key = f"{seed}/{benchmark}/{split}/{position}".encode()
    # From 1: a threshold of 0 takes nothing.
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest()) + 1
