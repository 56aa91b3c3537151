"""Which runs a report shows, what their systems are called, and what keeps their scores apart from others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy_slmre.evaluation.runs import (
    METRICS_FILE,
    PREDICTIONS_FILE,
    RUN_FILE,
    EvaluationError,
    EvaluationRun,
    read_run,
)
from spacy_slmre.study.published import column_of

ASPECTS = ("regime", "style", "prompt", "decoding", "dapt")
"""What tells two systems of one name apart."""


@dataclass(frozen=True)
class Selection:
    """The runs of a report.

    Attributes:
        runs: One for each system, benchmark and split.
        notes: What was left out, and what is to be known before scores are compared.
    """

    runs: list[EvaluationRun]
    notes: list[str]


def select_runs(paths: Iterable[Path]) -> Selection:
    """The complete runs in folders and the folders below them.

    Of two runs of one system on one benchmark and split the one on more pairs is taken, of two on as many
    the newer one.

    Raises:
        EvaluationError: A folder does not exist, or there is no complete run in any.
    """
    paths = list(paths)
    # Named as they were given: reports are passed on, and so would be the paths of this machine.
    folders: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise EvaluationError(f"There is no folder {path}.")
        for name in (RUN_FILE, METRICS_FILE, PREDICTIONS_FILE):
            folders |= {file.parent.resolve(): file.parent for file in path.rglob(name)}
    runs, notes = [], []
    for folder in sorted(folders.values()):
        if folder.name.endswith(".part") or not (folder / RUN_FILE).exists():
            notes.append(
                f"{folder} was left out: its evaluation is not finished. Repeat the command that began it: "
                "it goes on where it was interrupted."
            )
            continue
        try:
            runs.append(read_run(folder))
        except EvaluationError as error:
            notes.append(f"Left out: {error}")
    if not runs:
        raise EvaluationError(
            f"There is no complete evaluation run in {', '.join(map(str, paths))} or below: a folder with "
            f"{RUN_FILE}, {METRICS_FILE} and {PREDICTIONS_FILE}. "
            + "".join(f"{note} " for note in notes)
            + "Make one with: python -m spacy slmre evaluate PIPELINE CORPUS --output DIR"
        )
    chosen, doubles = _without_doubles(runs)
    return Selection(chosen, [*notes, *doubles, *_other_data(chosen)])


def system_of(info: Mapping[str, Any]) -> tuple:
    """What makes two runs those of one system: its name, and how it was tuned and asked."""
    return info["system"], *(info.get(aspect) or "" for aspect in ASPECTS)


def system_names(runs: Iterable[EvaluationRun]) -> dict[tuple, str]:
    """A name for each system (`system_of`): its own, with what tells it from others of that name."""
    by_name: dict[str, list[tuple]] = defaultdict(list)
    for run in runs:
        key = system_of(run.info)
        if key not in by_name[key[0]]:
            by_name[key[0]].append(key)
    names = {}
    for name, keys in by_name.items():
        differing = [place for place in range(1, len(ASPECTS) + 1) if len({key[place] for key in keys}) > 1]
        for key in keys:
            told = [_say(ASPECTS[place - 1], key[place]) for place in differing]
            names[key] = f"{name} ({', '.join(told)})" if told else name
    return names


def caveats(info: Mapping[str, Any]) -> list[str]:
    """Why a score must not enter the study's averages; empty where it may."""
    reasons = []
    if info.get("limit"):
        reasons.append(f"only {info['pairs']:,} pairs")
    if info.get("substitute_for"):
        reasons.append(f"stands in for {info['substitute_for']}")
    if column_of(info) is not None and info["split"] != "test":
        reasons.append(f'split "{info["split"] or "unknown"}"')
    if info.get("settings", {}).get("pairs", "annotated") != "annotated":
        reasons.append("pairs that the system proposed")
    return reasons


def describe(info: Mapping[str, Any]) -> str:
    """How a system was tuned and asked, in a few words."""
    told = [info.get(aspect) for aspect in ASPECTS if aspect != "dapt"]
    return ", ".join(
        [*(str(one) for one in told if one and one != "none"), *(["DAPT"] if info.get("dapt") else [])]
    )


def parameters(count: float | None) -> str:
    """A number of parameters as models are called: 135M, 3.2B."""
    if not count:
        return ""
    if count < 999.5e6:
        return f"{count / 1e6:.0f}M"
    return f"{count / 1e9:.1f}B".replace(".0B", "B")


def _say(aspect: str, value: Any) -> str:
    if aspect == "dapt":
        return "DAPT" if value else "no DAPT"
    return str(value) or f"no {aspect}"


def _without_doubles(runs: list[EvaluationRun]) -> tuple[list[EvaluationRun], list[str]]:
    by_key: dict[tuple, list[EvaluationRun]] = defaultdict(list)
    for run in runs:
        by_key[(system_of(run.info), run.info["benchmark"], run.info["split"])].append(run)
    chosen, notes = [], []
    for same in by_key.values():
        best = max(same, key=lambda run: (run.info["pairs"], (run.folder / RUN_FILE).stat().st_mtime))
        chosen.append(best)
        for other in same:
            if other is not best:
                why = "has fewer pairs" if other.info["pairs"] < best.info["pairs"] else "is older"
                notes.append(
                    f"{other.folder} was left out: {best.folder} is of the same system on the same benchmark "
                    f"and split ({best.info['system']}, {best.info['benchmark']}, {best.info['split']}), and "
                    f"the former {why}. To show both, evaluate one of them under another --name."
                )
    return chosen, notes


def _other_data(runs: list[EvaluationRun]) -> list[str]:
    names = system_names(runs)
    hashes: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        info = run.info
        hashes[info["benchmark"], info["split"]][info["data_sha256"]].append(names[system_of(info)])
    return [
        f"{benchmark} {split}: the systems were not evaluated on the same data ("
        + "; ".join(f"{sha256[:12]}: {', '.join(names)}" for sha256, names in found.items())
        + "). Their scores cannot be compared: convert the benchmark once and evaluate all on it."
        for (benchmark, split), found in hashes.items()
        if len(found) > 1
    ]
