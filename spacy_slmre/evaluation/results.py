"""Find the runs for a report, name and sort them, and add published results."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import catalogue
from markupsafe import Markup

from spacy_slmre.corpus.formats import all_formats
from spacy_slmre.evaluation.runs import PREDICTIONS_FILE, EvaluationError, EvaluationRun, read_run
from spacy_slmre.util.io import list_files
from spacy_slmre.util.run_folder import METRICS_FILE, RUN_FILE

ASPECTS = ("regime", "style", "prompt", "decoding", "dapt")
"""Entries of `run.json` that distinguish systems of the same name."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A published micro-F1 on a run's corpus."""

    name: str
    score: float
    reason: str  # how the published system resembles the run's
    flag: str = ""  # why the scores should not be compared


@dataclass(frozen=True)
class SectionContent:
    """A section as HTML, as Markdown, and as rows of the CSV file."""

    html: Markup
    markdown: str
    rows: Sequence[Mapping[str, Any]]


class ReportSection(Protocol):
    """A section that another package adds to the report through the entry point `slmre_report_sections`."""

    title: str
    source: str

    def references(self, info: Mapping[str, Any]) -> list[Reference]:
        """Return published results to compare with a run, given its `run.json`."""

    def caveats(self, info: Mapping[str, Any]) -> list[str]:
        """Return reasons why a run should not be compared with them."""

    def content(self, results: Sequence[Result]) -> SectionContent | None:
        """Return the section, or None if it does not apply to these runs."""


report_sections = catalogue.create("slmre", "report_sections", entry_points=True)
"""All report sections by name."""


def all_sections() -> list[ReportSection]:
    """Return the registered report sections."""
    return [section for _, section in sorted(report_sections.get_all().items())]


@dataclass(frozen=True)
class Result:
    """A run as a report shows it."""

    run: EvaluationRun
    name: str  # unique name of the system
    series: int  # number of the system, which determines color and marker
    caveats: list[str] = field(default_factory=list)  # reasons why the score should not be compared directly
    references: list[Reference] = field(default_factory=list)  # published results to compare with

    @property
    def info(self) -> dict[str, Any]:
        """Content of `run.json`."""
        return self.run.info

    @property
    def metrics(self) -> dict[str, Any]:
        """Content of `metrics.json`."""
        return self.run.metrics

    @property
    def f(self) -> float:
        """Positive-class micro-F1."""
        return self.metrics["micro"]["f"]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `f`."""
        return self.metrics["interval"]["low"], self.metrics["interval"]["high"]

    @property
    def pairs_per_second(self) -> float | None:
        """Speed, if measured."""
        return self.info["pairs"] / self.info["seconds"] if self.info.get("seconds") else None

    @property
    def title(self) -> str:
        """Title of the corpus, with the split unless it is the test set."""
        return self.run.title


def find_runs(paths: Sequence[Path]) -> tuple[list[EvaluationRun], list[str]]:
    """Find the complete runs in folders, one for each system, corpus and split.

    If the same pipeline has several runs on the same corpus and split, the one with the most pairs is kept, or else the
    newest.

    Returns:
        The runs, and notes about skipped runs and runs that cannot be compared.

    Raises:
        EvaluationError: A folder does not exist, or there is no complete run.
    """
    # Paths are not resolved, because shared reports should not reveal where files are stored.
    folders: dict[Path, Path] = {}
    runs: list[EvaluationRun] = []
    notes: list[str] = []
    empty: list[str] = []
    for path in paths:
        if not path.exists():
            raise EvaluationError(f"The folder {path} does not exist.")
        files = [file for file in list_files(path) if file.name in (RUN_FILE, METRICS_FILE, PREDICTIONS_FILE)]
        if not files:
            empty.append(f"There is no evaluation run in {path}.")
        folders |= {file.parent.resolve(): file.parent for file in files}
    for folder in sorted(folders.values()):
        if folder.name.endswith(".part") or not (folder / RUN_FILE).exists():
            notes.append(f"Skipped {folder}: the evaluation is not finished. Repeat its command to resume it.")
            continue
        try:
            runs.append(read_run(folder))
        except EvaluationError as error:
            notes.append(f"Skipped: {error}")
    if not runs:
        raise EvaluationError(
            f"There is no complete evaluation run in {', '.join(map(str, paths))} (a folder with {RUN_FILE}, "
            f"{METRICS_FILE} and {PREDICTIONS_FILE}). {''.join(f'{note} ' for note in notes)}Run: python -m spacy "
            "slmre evaluate PIPELINE CORPUS --output DIR"
        )
    runs, duplicates = _remove_duplicates(runs)
    return runs, [*empty, *notes, *duplicates, *_data_differences(runs)]


def make_results(runs: Iterable[EvaluationRun], sections: Sequence[ReportSection] = ()) -> list[Result]:
    """Return results by corpus, best first."""
    runs = list(runs)
    names = _system_names(runs)
    order = sorted(
        runs, key=lambda run: (run.info["corpus"], run.info["split"], -run.metrics["micro"]["f"], str(run.folder))
    )
    series = {name: number for number, name in enumerate(dict.fromkeys(names[run.folder] for run in order))}
    return [
        Result(
            run,
            names[run.folder],
            series[names[run.folder]],
            _caveats(run.info) + [caveat for section in sections for caveat in section.caveats(run.info)],
            # Published results are found by the name of the model.
            [
                reference
                for section in sections
                for reference in section.references({**run.info, "system": run.info.get("model", run.info["system"])})
            ],
        )
        for run in order
    ]


def by_corpus(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    """Group results by corpus and split."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.info["corpus"], result.info["split"]].append(result)
    return dict(groups)


def corpus_title(name: str) -> str:
    """Return the title of a benchmark."""
    corpus_format = all_formats().get(name)
    return corpus_format.title if corpus_format else name


def system_key(info: Mapping[str, Any]) -> tuple:
    """Return the name of a system and how it was trained and prompted, which identify it."""
    return info["system"], *(info.get(aspect) or "" for aspect in ASPECTS)


def describe(info: Mapping[str, Any]) -> str:
    """Describe how a system was trained and prompted."""
    values = [info.get(aspect) for aspect in ASPECTS if aspect != "dapt"]
    words = [str(value) for value in values if value and value != "none"]
    return ", ".join([*words, "DAPT"] if info.get("dapt") else words)


def _system_names(runs: Sequence[EvaluationRun]) -> dict[Path, str]:
    """Name the system of each run folder, with the aspects that distinguish it from others of the same name.

    The name of the pipeline is one of them if several pipelines were evaluated on the same data. Otherwise it is not,
    because a system may have one pipeline for each corpus.
    """
    counts = Counter((system_key(run.info), run.info["corpus"], run.info["split"]) for run in runs)
    several = {key for (key, *_), count in counts.items() if count > 1}
    keys: dict[Path, tuple] = {}
    by_name: dict[str, list[tuple]] = defaultdict(list)
    for run in runs:
        key = system_key(run.info)
        pipeline = f"{run.info.get('pipeline', '')} {_fingerprint(run)[:7]}".strip() if key in several else ""
        keys[run.folder] = (*key, pipeline)
        by_name[key[0]].append(keys[run.folder])
    names = {}
    for folder, key in keys.items():
        differing = [place for place in range(1, len(key)) if len({other[place] for other in by_name[key[0]]}) > 1]
        words = [_describe_aspect((*ASPECTS, "pipeline")[place - 1], key[place]) for place in differing]
        names[folder] = f"{key[0]} ({', '.join(words)})" if words else key[0]
    return names


def _describe_aspect(aspect: str, value: Any) -> str:
    if aspect == "dapt":
        return "DAPT" if value else "no DAPT"
    return str(value) or f"no {aspect}"


def _fingerprint(run: EvaluationRun) -> str:
    """Return the fingerprint of a run's pipeline, or the hash of the answers that it scores."""
    key = run.info.get("key") or {}
    return str(key.get("pipeline") or key.get("answers") or "")


def _caveats(info: Mapping[str, Any]) -> list[str]:
    caveats = [f"only {info['pairs']:,} pairs"] if info.get("limit") else []
    if info.get("settings", {}).get("pairs", "annotated") != "annotated":
        caveats.append("pairs proposed by the system")
    return caveats


def _remove_duplicates(runs: list[EvaluationRun]) -> tuple[list[EvaluationRun], list[str]]:
    groups: dict[tuple, list[EvaluationRun]] = defaultdict(list)
    for run in runs:
        groups[system_key(run.info), _fingerprint(run), run.info["corpus"], run.info["split"]].append(run)
    kept, notes = [], []
    for group in groups.values():
        best = max(group, key=lambda run: (run.info["pairs"], (run.folder / RUN_FILE).stat().st_mtime))
        kept.append(best)
        for run in group:
            if run is not best:
                why = "has fewer pairs" if run.info["pairs"] < best.info["pairs"] else "is older"
                notes.append(
                    f"Skipped {run.folder}, which {why} than {best.folder}, a run of the same system on the same data "
                    f"({best.info['system']}, {best.info['corpus']}, {best.info['split']}). To show both, evaluate one "
                    "of them under another name."
                )
    return kept, notes


def _data_differences(runs: list[EvaluationRun]) -> list[str]:
    names = _system_names(runs)
    hashes: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        info = run.info
        hashes[info["corpus"], info["split"]][info["data_sha256"]].append(names[run.folder])
    return [
        f"{corpus} {split}: systems were evaluated on different data ("
        + "; ".join(f"{sha256[:12]}: {', '.join(systems)}" for sha256, systems in by_hash.items())
        + "), so their scores cannot be compared. Convert the corpus once and evaluate all systems on it."
        for (corpus, split), by_hash in hashes.items()
        if len(by_hash) > 1
    ]
