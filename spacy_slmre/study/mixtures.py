"""Mixtures: samples of several converted benchmarks, described by a manifest instead of copied.

Every document has a rank: a hash of seed, benchmark, split and position. A group of benchmarks that share a cap
contributes its lowest-ranked documents until the cap is reached. Only the first pairs of the last document are taken,
so caps are met exactly. The rank of that last document fully describes the sample: the same seed gives the same sample
on every machine.

If a benchmark has no training split, its dev split is used for training, except for documents that also occur in its
test split; the manifest lists their positions. Such a benchmark contributes nothing to dev.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confection import Config
from pydantic import StrictInt
from spacy.language import Language
from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_slmre.corpus.docbin import corpus_hashes, read_docs, read_user_data
from spacy_slmre.corpus.gold_docs import FORMAT, SPLITS
from spacy_slmre.corpus.readers import ExampleReader, ReaderSettings, make_reader
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.corpus.summary import known_rows
from spacy_slmre.gold import count_rows
from spacy_slmre.relations import PAIRS, RELATIONS, install_extensions
from spacy_slmre.study.benchmarks.card import get_benchmark
from spacy_slmre.util.settings import check_choice, takes_settings, validate_section

BALANCES = ("none", "domain", "benchmark")


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The section [mixture] of a config.

    Attributes:
        name: Its name.
        benchmarks: Names of the benchmarks.
        caps: Maximum number of pairs with known labels in each split; 0 takes all.
        balance: "none" pools all benchmarks, "domain" takes equally many pairs from each domain, "benchmark" from each
            benchmark.
        seed: Seed of the sample.

    Raises:
        CorpusError: A value is out of range.
    """

    name: str
    benchmarks: tuple[str, ...]
    caps: Mapping[str, StrictInt]
    balance: str = "none"
    seed: int = 42

    def __post_init__(self) -> None:
        check_choice(self, "mixture", CorpusError, balance=BALANCES)
        if unknown := {*self.caps} - {*SPLITS}:
            raise CorpusError(f"mixture.caps has the unknown splits {sorted(unknown)}. Use {', '.join(SPLITS)}.")
        if not self.benchmarks or len(set(self.benchmarks)) < len(self.benchmarks):
            raise CorpusError("A mixture needs at least one benchmark, and each only once.")
        if not self.caps or any(cap < 0 for cap in self.caps.values()):
            raise CorpusError("A mixture needs at least one split, with a cap of 0 (no cap) or more.")

    @classmethod
    def from_file(cls, path: str | Path) -> Mixture:
        """Read a mixture from a config file.

        Raises:
            CorpusError: The file cannot be read, or does not describe a mixture.
        """
        try:
            config = Config().from_disk(path)
        except OSError as error:
            raise CorpusError(f"{path} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise CorpusError(f"{path} does not describe a mixture: {error}") from error
        return validate_section(cls, config, "mixture", str(path), CorpusError)


def converted_benchmarks(mixture: str | Path, corpora: Path) -> tuple[list[str], list[str]]:
    """Return the benchmarks of a mixture that are converted, and those that are not.

    Raises:
        CorpusError: The mixture is unreadable, or none of its benchmarks has been converted.
    """
    wanted = Mixture.from_file(mixture).benchmarks
    found = [name for name in wanted if any(_has(corpora, name, split) for split in SPLITS)]
    if not found:
        raise CorpusError(f"No benchmark of {mixture} is in {corpora}. Convert them with: slmre study convert-all")
    return found, [name for name in wanted if name not in found]


@dataclass
class SplitSample:
    """One split of one benchmark while its sample is drawn.

    `excluded` is set if a dev split is used for training: the test split it was compared with, and the positions of
    the documents that also occur there.
    """

    benchmark: str
    path: str
    files: list[dict[str, Any]]
    sizes: list[int]
    threshold: int = -1
    last_pairs: int = 0
    documents: int = 0
    pairs: int = 0
    excluded: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a manifest."""
        excluded = len(self.excluded["positions"]) if self.excluded else 0
        content = {
            "benchmark": self.benchmark,
            "domain": get_benchmark(self.benchmark).domain,
            "path": self.path,
            "files": self.files,
            "available": {"documents": len(self.sizes) - excluded, "pairs": sum(self.sizes)},
            "sample": {"documents": self.documents, "pairs": self.pairs},
            "threshold": f"{max(self.threshold, 0):016x}",
            "last_pairs": self.last_pairs,
        }
        return content if self.excluded is None else {**content, "excluded": self.excluded}


def make_manifest(mixture: Mixture, corpora: str | Path, *, skip_missing: bool = False) -> dict[str, Any]:
    """Draw the samples of a mixture.

    In a mixture with the splits train and dev, a dev split is used for training if its benchmark has no train split.

    Args:
        mixture: The mixture.
        corpora: Folder of converted benchmarks: `<benchmark>/<split>.spacy`.
        skip_missing: Skip benchmarks and splits that do not exist.

    Returns:
        The manifest: for each split its sources with files, hashes, counts and the bounds of the sample, what is
        missing, and the schema of every benchmark. A source whose dev split is used for training has "excluded": the
        positions of its documents that also occur in "test", which is null if there is none.

    Raises:
        CorpusError: A benchmark is missing altogether, a split has no corpus, or domains cannot be balanced because
            one of them is missing.
    """
    corpora = Path(corpora)
    absent = [
        name
        for name in mixture.benchmarks
        if not any(_has(corpora, get_benchmark(name).name, split) for split in mixture.caps)
    ]
    if absent and (not skip_missing or len(absent) == len(mixture.benchmarks)):
        hint = "." if skip_missing else ", or set skip_missing."
        raise CorpusError(
            f"There is no corpus of {', '.join(absent)} in {corpora}. Convert what you have with: slmre "
            f"study convert-all{hint}"
        )
    if mixture.balance == "domain":
        _check_domains(mixture, absent, corpora)
    # Only if the mixture has both splits: otherwise the dev split may be needed for evaluation.
    trained_on_dev = [
        name
        for name in mixture.benchmarks
        if {"train", "dev"} <= mixture.caps.keys() and _has(corpora, name, "dev")
        if not _has(corpora, name, "train")
    ]
    splits = {}
    for split, cap in mixture.caps.items():
        moved = trained_on_dev if split == "dev" else []
        sources = []
        for name in mixture.benchmarks:
            if split == "train" and name in trained_on_dev:
                sources.append(_scan_dev_for_training(corpora, name))
            elif _has(corpora, name, split) and name not in moved:
                sources.append(_scan(corpora, name, split))
        if not sources and not moved and not skip_missing:
            raise CorpusError(f"None of the benchmarks has a split {split} in {corpora}.")
        _draw(sources, mixture, split, cap)
        splits[split] = {
            "cap": cap,
            "documents": sum(source.documents for source in sources),
            "pairs": sum(source.pairs for source in sources),
            "sources": [source.to_dict() for source in sources],
            "missing": sorted(set(mixture.benchmarks) - {source.benchmark for source in sources} - {*moved}),
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
        CorpusError: The file cannot be read, or is not a manifest.
    """
    try:
        manifest = json.loads(Path(path).read_text(encoding="utf-8"))
        manifest["splits"], manifest["schemas"], manifest["seed"]
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path} is not a mixture manifest. Create one with: slmre study mix") from error
    return manifest


def verify_manifest(manifest: Mapping[str, Any], split: str, corpora: str | Path) -> None:
    """Check that the files of a split are those that the sample was drawn from.

    Raises:
        CorpusError: The mixture has no such split, or a file is missing or different.
    """
    for source in _sources(manifest, split):
        path = Path(corpora) / source["path"]
        if corpus_hashes(path) != source["files"]:
            raise CorpusError(
                f"{path} is not the corpus that the mixture was made from. Convert it as before, or make the "
                "mixture again."
            )


@takes_settings(ReaderSettings)
def mixture_corpus(
    manifest: Path, split: str, corpora: Path, *, verify: bool = True, settings: ReaderSettings
) -> ExampleReader:
    """Read the sample of a mixture; registered as `@readers = "spacy-slmre.MixtureCorpus.v1"`.

    In both docs of an example, `doc.user_data["slmre.format"]` is the benchmark that defines the labels. With `verify`,
    the files are first compared with those that the mixture was made from. The other settings are those of
    `spacy-slmre.RelationCorpus.v1`. Without `shuffle`, the benchmarks are mixed, but each keeps its own order.

    Raises:
        ValueError: A setting is out of range, or the manifest or one of its files cannot be read.
    """
    install_extensions()
    verified = not verify

    def read(nlp: Language) -> Iterator[Doc]:
        nonlocal verified
        content = read_manifest(manifest)
        if not verified:
            verify_manifest(content, split, corpora)
            verified = True
        return read_mixture(content, split, corpora, nlp.vocab)

    return make_reader(read, settings)


def read_mixture(manifest: Mapping[str, Any], split: str, corpora: str | Path, vocab: Vocab) -> Iterator[Doc]:
    """Yield the documents of a mixture's split, with only the sampled pairs.

    The benchmarks are mixed: each document comes from a random one, weighted by the number of documents left. One
    shard per benchmark is held in memory.
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


def _read_sample(source: Mapping[str, Any], seed: int, split: str, corpora: Path, vocab: Vocab) -> Iterator[Doc]:
    threshold = int(source["threshold"], 16)
    excluded = set(source.get("excluded", {}).get("positions", ()))
    for position, doc in enumerate(read_docs(corpora / source["path"], vocab)):
        rank = _rank(seed, source["benchmark"], split, position)
        if rank > threshold or position in excluded or not known_rows(doc):
            continue
        if rank == threshold:
            _keep(doc, source["last_pairs"])
        yield doc


def _keep(doc: Doc, number: int) -> None:
    """Mark all but the first `number` pairs of a document as unknown."""
    pairs = known_rows(doc)[:number]
    setattr(doc._, PAIRS, [pair for pair, _ in pairs])
    setattr(doc._, RELATIONS, [pair for pair, is_negative in pairs if not is_negative])


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
                f"{corpora} ({', '.join(names)}). Convert one with slmre study convert-all, or mix "
                "benchmarks that are freely available: configs/mixtures/*-open.cfg."
            )


def _scan(corpora: Path, name: str, split: str) -> SplitSample:
    relative = f"{name}/{split}.spacy"
    sizes: list[int | None] = []
    for data in read_user_data(corpora / relative):
        if data.get(FORMAT) != name:
            raise CorpusError(f"{corpora / relative} has documents of {data.get(FORMAT)!r}, not of {name}.")
        sizes.append(count_rows(data))
    if None in sizes:  # if a document annotates relations, its other pairs follow from its entities
        sizes = [len(known_rows(doc)) for doc in read_docs(corpora / relative, Vocab())]
    return SplitSample(name, relative, corpus_hashes(corpora / relative), [size or 0 for size in sizes])


def _scan_dev_for_training(corpora: Path, name: str) -> SplitSample:
    source = _scan(corpora, name, "dev")
    test = f"{name}/test.spacy" if _has(corpora, name, "test") else None
    positions = []
    if test is not None:
        vocab = Vocab()
        texts = {doc.text for doc in read_docs(corpora / test, vocab)}
        dev = enumerate(read_docs(corpora / source.path, vocab))
        positions = [position for position, doc in dev if doc.text in texts]
        for position in positions:
            source.sizes[position] = 0  # so that it is not drawn
    source.excluded = {"test": test, "positions": positions}
    return source


def _draw(sources: list[SplitSample], mixture: Mixture, split: str, cap: int) -> None:
    groups: dict[str, list[SplitSample]] = {}
    for source in sources:
        domain = get_benchmark(source.benchmark).domain
        key = {"none": "", "domain": domain, "benchmark": source.benchmark}[mixture.balance]
        groups.setdefault(key, []).append(source)
    share = min((sum(sum(source.sizes) for source in group) for group in groups.values()), default=0)
    if cap and groups:
        share = min(share, cap // len(groups))
    for group in groups.values():
        _draw_group(group, mixture.seed, split, share)


def _draw_group(group: list[SplitSample], seed: int, split: str, budget: int) -> None:
    ranked = sorted(
        (_rank(seed, source.benchmark, split, position), number, size)
        for number, source in enumerate(group)
        for position, size in enumerate(source.sizes)
        if size
    )
    for rank, number, size in ranked:
        if not budget:
            break
        source = group[number]
        taken = min(size, budget)
        budget -= taken
        source.threshold, source.last_pairs = rank, taken
        source.documents += 1
        source.pairs += taken


def _rank(seed: int, benchmark: str, split: str, position: int) -> int:
    key = f"{seed}/{benchmark}/{split}/{position}".encode()
    # Ranks start at 1, so that a threshold of 0 takes nothing.
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest()) + 1
