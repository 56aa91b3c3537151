"""Mixtures: samples of several converted benchmarks, described by a manifest instead of copied.

Every document has a rank, a hash of seed, benchmark, split and position. A group of benchmarks that share a
cap gives its documents of lowest rank, until the cap is reached; of the last document only the first pairs
are taken, so that caps are met to the pair. The rank of that last document is all that a manifest has to keep
of a sample. Ranks depend on nothing else: the same seed gives the same sample on every machine.
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

from spacy_slmre.corpora.benchmark import get_benchmark
from spacy_slmre.corpora.documents import BENCHMARK
from spacy_slmre.corpora.shards import corpus_files, file_hash, read_docs, read_user_data
from spacy_slmre.corpora.sources import CorpusError
from spacy_slmre.relations import PAIRS, RELATIONS, Relation
from spacy_slmre.schema import LabelSchema

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

    def to_dict(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "domain": get_benchmark(self.benchmark).domain,
            "path": self.path,
            "files": self.files,
            "available": {"documents": len(self.sizes), "pairs": sum(self.sizes)},
            "sample": {"documents": self.documents, "pairs": self.pairs},
            "threshold": f"{max(self.threshold, 0):016x}",
            "last_pairs": self.last_pairs,
        }


@dataclass
class _Group:
    sources: list[_Source] = field(default_factory=list)

    @property
    def pairs(self) -> int:
        return sum(sum(source.sizes) for source in self.sources)


def make_manifest(mixture: Mixture, corpora: str | Path, *, skip_missing: bool = False) -> dict[str, Any]:
    """Draw the samples of a mixture.

    Args:
        mixture: The mixture.
        corpora: Folder of converted benchmarks: `<benchmark>/<split>.spacy`.
        skip_missing: Do without benchmarks and splits that are not there.

    Returns:
        The manifest: for each split its sources with files, hashes, counts and the bounds of the sample, what
        is missing, and the schema of every benchmark.

    Raises:
        CorpusError: A benchmark is missing altogether, or no corpus of a split is there.
    """
    corpora = Path(corpora)
    absent = [name for name in mixture.benchmarks if not _present(corpora, name, mixture.caps)]
    if absent and (not skip_missing or len(absent) == len(mixture.benchmarks)):
        message = (
            f"There is no corpus of {', '.join(absent)} in {corpora}. Convert what you have: slmre convert"
        )
        raise CorpusError(message + (", or do without: --skip-missing." if not skip_missing else "."))
    splits = {}
    for split, cap in mixture.caps.items():
        sources = [
            _scan(corpora, name, split)
            for name in mixture.benchmarks
            if (corpora / name / f"{split}.spacy").exists()
        ]
        if not sources and not skip_missing:
            raise CorpusError(f"None of the benchmarks has a split {split} in {corpora}.")
        _draw(sources, mixture, split, cap)
        splits[split] = {
            "cap": cap,
            "documents": sum(source.documents for source in sources),
            "pairs": sum(source.pairs for source in sources),
            "sources": [source.to_dict() for source in sources],
            "missing": sorted(set(mixture.benchmarks) - {source.benchmark for source in sources}),
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
    for position, doc in enumerate(read_docs(corpora / source["path"], vocab)):
        rank = _rank(seed, source["benchmark"], split, position)
        pairs = getattr(doc._, PAIRS)
        if rank > threshold or not pairs:
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
    return any((corpora / name / f"{split}.spacy").exists() for split in splits)


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
