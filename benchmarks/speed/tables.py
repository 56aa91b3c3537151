"""The tables of a run, for the terminal and the README."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rich.table
from rich.console import Console

from speed.timing import median
from speed.workload import GIVEN, RAW, work_name

NONE = "–"
# With fewer documents, the growth of memory is chance.
MIN_FOR_GROWTH = 10_000
CPU_TIME = ", in CPU time, which other programs disturb less"


@dataclass(frozen=True)
class Table:
    """A table with notes; the first column is text, the others are numbers."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()


def tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Return the tables of all measured parts."""
    makers = {
        "contest": contest_tables,
        "limit": limit_tables,
        "sizes": sizes_tables,
        "growth": growth_tables,
        "equality": equality_tables,
        "peers": peers_tables,
    }
    for part, make in makers.items():
        if part in results["parts"]:
            yield from make(results["parts"][part]["found"])


def contest_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Return an overview, and details of each workload, memory and start-up."""
    yield headline(found)
    for work in found["works"]:
        rows = []
        for one in found["systems"]:
            speed = one["works"][work]
            rows.append(
                (
                    one["title"],
                    _speed(speed),
                    _number(speed["ms_a_pair"]),
                    _number(speed["tokens_a_pair"]) if speed["tokens_a_pair"] else NONE,
                    _times(speed),
                    str(speed["pairs"]),
                )
            )
        header = ("system", "pairs/s", "ms a pair", "tokens a pair", "× the time of ours", "pairs measured")
        yield Table(f"{work}, {found['labels']} labels", header, rows)
    rows = []
    for one in found["systems"]:
        cold = one["cold"]
        to_batch_8 = f"{one['to_batch_8']:.2f}" if "to_batch_8" in one else NONE
        stages = (f"{cold[stage]:.1f}" for stage in ("import", "load", "first", "all"))
        rows.append((one["title"], f"{one['peak_gb']:.2f}", to_batch_8, *stages))
    memory = ("peak memory, GB", "× `generate`, batch 8")
    header = ("system", *memory, "import, s", "load, s", "first pair, s", "start, s")
    yield Table("Memory and cold start", header, rows)


def headline(found: Mapping[str, Any]) -> Table:
    """Return the overview: speed at each workload, tokens, memory and start-up of each system."""
    works = list(found["works"])
    rows = []
    for one in found["systems"]:
        speeds = [one["works"][work] for work in works]
        cells = [f(speed) for speed in speeds for f in (_speed, _times)]
        tokens = [_number(speed["tokens_a_pair"]) if speed["tokens_a_pair"] else NONE for speed in speeds]
        rows.append((one["title"], *cells, " / ".join(tokens), _memory(one), f"{one['cold']['all']:.1f}"))
    columns = [column for work in works for column in (f"{work}: pairs/s", "× the time of ours")]
    text = found["works"][works[0]]["text"]
    fewest = min(one["works"][work]["pairs"] for one in found["systems"] for work in works)
    notes = [
        f"Sentences such as: “{text}” Ours is `slm_relations`, and `rel_classifier` for encoders. Medians of "
        "rounds, least and most in brackets; tokens a pair count padding; start is import, load, first pair. "
        f"Slow systems answer a part of the pairs, at least {fewest}."
    ]
    notes += [f"{one['title']}: {one['note']}." for one in found["systems"] if one["note"]]
    notes += [f"Not measured: {name} ({reason})." for name, reason in found["skipped"].items()]
    return Table(
        f"Beside others, {found['labels']} labels",
        ("system", *columns, "tokens a pair", "peak memory, GB (× `generate`, batch 8)", "start, s"),
        rows,
        tuple(notes),
    )


def limit_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Return the share of the limit, and the profile."""
    needed = found["tokens_needed"] / found["pairs"]
    words = (
        f"12 pairs a sentence need {needed:.1f} tokens a pair, {found['flops_a_token'] / 1e6:.0f} MFLOP each "
        f"in linear layers; these alone, {found['packed_length']} tokens at a time in {found['dtype']}, run "
        f"at {found['gflops_s']:.0f} GFLOP/s here. Packed scoring reaches {found['share']:.0%} of that "
        f"({min(found['shares']):.0%}–{max(found['shares']):.0%} by round).",
    )
    profile = found["profile"]
    rows = [
        (name, _number(1000 * seconds / found["pairs"]), f"{seconds / profile['seconds']:.1%}")
        for name, seconds in profile["groups"].items()
    ]
    yield Table("Where the time goes", ("group", "ms a pair", "share"), rows, words)


def sizes_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Return the speed at each size."""
    for part in ("pairs", "labels", "context", "batch"):
        size = found[part]
        rows = [(str(row["size"]), _number(row["pairs_s"]), _number(row["ms_a_pair"])) for row in size["rows"]]
        notes = (_growth(size),) if "exponent" in size else ()
        yield Table(f"By {size['size']}", (size["size"], "pairs/s", "ms a pair"), rows, notes)
    precision = found["precision"]
    rows = [
        (row["size"], _number(row["pairs_s"]), f"{row['to_bfloat16']:.2f}", f"{row['weights_gb']:.2f}")
        for row in precision["rows"]
    ]
    header = ("precision", "pairs/s", "faster than bfloat16 by", "weights, GB")
    notes = (f"{precision['note'].capitalize()}.",) if "note" in precision else ()
    yield Table("By precision", header, rows, notes)


def growth_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Return the cost of longer documents and larger corpora."""
    document = found["document"]
    rows = [(str(row["size"]), str(row["pairs"]), _number(row["cost_ms"] / 1000)) for row in document["rows"]]
    yield Table(
        "By length of a document",
        ("sentences", "pairs", "seconds"),
        rows,
        (_growth(document), *map(_extraction, found["corpora"])),
    )


def _extraction(corpus: Mapping[str, Any]) -> str:
    return (
        f"`{corpus['component']}`: a corpus of {corpus['documents']:,} documents of one sentence took "
        f"{_number(corpus['readings'][-1]['seconds'])} s (exponent {corpus['exponent']:.2f}), and at most "
        f"{corpus['most_above_gb']:.2f} GB above the {corpus['loaded_gb']:.2f} of the loaded model."
    )


def equality_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Return the agreement with packed scoring in float32."""
    rows = [
        (row["precision"], f"{row['equal']:.2%}", f"{100 * (row['micro_f1'] - found['micro_f1']):+.2f}")
        for row in found["rows"]
    ]
    model = "the tuned adapter" if found["adapter"] else "the untuned model"
    yield Table(
        f"Equal labels: {found['instances']:,} instances of {found['corpus']}, {found['labels']} labels",
        ("beside packed scoring in float32", "equal labels", "micro-F1, points"),
        rows,
        (f"By {model}, whose micro-F1 in float32 is {100 * found['micro_f1']:.1f}.",),
    )


def scale_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Return the speed of one process and of workers, and the memory of a process, of `benchmarks/scale.py`."""
    alone, workers = results["one_process"], results["ray"]
    rows = []
    for name, run in [("one process", alone), *((f"Ray, workers: {run['workers']}", run) for run in workers)]:
        hours = 1e6 / run["documents_per_second"] / 3600
        rows.append(
            (
                name,
                str(run["threads"]),
                _number(run["pairs_per_second"]),
                _number(run["pairs_per_second_and_worker"]),
                f"{run['efficiency']:.2f}" if "efficiency" in run else NONE,
                _number(run["documents_per_second"]),
                _number(hours),
                f"{run['seconds_until_all_work']:.0f}",
                f"{run['peak_gb']:.2f}",
            )
        )
    header = ("", "threads each", "pairs/s", "pairs/s and worker", "efficiency", "documents/s")
    header += ("hours for a million documents", "start, s", "GB of a process")
    kind = "generated documents of one sentence" if results["generated"] else "documents"
    notes = [f"`{results['pipeline']}` on {alone['documents']:,} {kind} with {alone['pairs']:,} pairs."]
    if workers:
        notes[0] += " The outputs are identical." if results["same_output"] else " The outputs differ in last digits."
    notes[0] += f" {results['hardware']} (torch {results['versions']['torch']})."
    yield Table("Speed of extraction", header, rows, tuple(notes))
    if alone["documents"] < MIN_FOR_GROWTH:
        return
    growth = alone["gb_per_million_documents"]
    rows = [(f"{one['documents']:,}", f"{one['gb']:.3f}") for one in alone["memory"]]
    note = f"Before the first document: {alone['loaded_gb']:.3f} GB. "
    note += f"Growth in the second half: {growth:.3f} GB per million documents."
    yield Table("Memory of one process", ("documents", "GB"), rows, (note,))


def classifier_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Return the speed of inference and training of `benchmarks/classifier_speed.py`."""
    shapes = {(row["tokens"], row["pairs per sentence"]): None for row in results["inference"]}
    ways: dict[str, list[str]] = {}
    for row in results["inference"]:
        ways.setdefault(row["way"], []).append(f"{_number(row['pairs/s'])} ({_number(row['ratio'])})")
    header = ("pairs/s (factor)", *(f"{tokens} tokens, {pairs} pairs per sentence" for tokens, pairs in shapes))
    note = f"{results['hardware']}, medians of {results['rounds']} rounds, {results['date']}"
    note += f" (torch {results['versions']['torch']}). Factors are medians of those of the rounds."
    yield Table("Inference", header, [(way, *cells) for way, cells in ways.items()], (note,))
    rows = [(row["way"], _number(row["pairs/s"]), _number(row["ratio"])) for row in results["training"]]
    yield Table("Training", ("", "pairs/s", "factor"), rows)


def gpu_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Return an overview of the checks of `benchmarks/gpu.py`, and the results of each."""
    checks = results["checks"]
    rows = [
        (f"`{name}`", check["status"], f"{check['seconds']:.0f}" if "seconds" in check else NONE)
        for name, check in checks.items()
    ]
    notes = [f"`{name}`: {check['error']}." for name, check in checks.items() if check.get("error")]
    made = ", ".join(
        f"{name} {results['versions'][name]}" for name in ("torch", "cuda", "transformers", "bitsandbytes")
    )
    notes.append(f"{results['machine']}, {results['date']} ({made}).")
    yield Table("Checks on a GPU", ("check", "result", "seconds"), rows, tuple(notes))
    for name, check in checks.items():
        header = tuple(dict.fromkeys(column for row in check["rows"] for column in row))
        if header:
            cells = [tuple(_cell(row[column]) if column in row else NONE for column in header) for row in check["rows"]]
            yield Table(f"`{name}`", header, cells)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2g}" if 0 < abs(value) < 0.01 else _number(value)
    return str(value)


def show(table: Table) -> None:
    """Print a table."""
    out, printed = Console(), rich.table.Table(title=table.title)
    for place, column in enumerate(table.header):
        printed.add_column(column, justify="right" if place else "left")
    for row in table.rows:
        printed.add_row(*row)
    out.print(printed)
    for note in table.notes:
        out.print(note, markup=False)


def peers_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Return the speed of local relation extractors from given entities and raw text, memory and start-up."""
    ours = list(found["systems"][0]["works"][work_name(GIVEN, found["labels"][0])]["times_by_round"])
    cpu_time = CPU_TIME if found["seconds"] == "cpu_seconds" else ""
    header = ("system", *(f"{count} labels" for count in found["labels"]))
    for source in (GIVEN, RAW):
        rows: dict[str, list[tuple[str, ...]]] = {"speed": [], **{one: [] for one in ours}}
        pairs = {}
        for one in found["systems"]:
            works = [one["works"].get(work_name(source, count)) for count in found["labels"]]
            if not any(works):
                continue
            pairs[one["title"]] = f"{works[0]['pairs_a_sentence']:g}"
            rows["speed"].append((one["title"], *(_number(work["sentences_s"]) for work in works)))
            for name in ours:
                rows[name].append((one["title"], *(_range(work["times_by_round"][name]) for work in works)))
        if source == GIVEN:
            notes = [
                f"Sentences such as: “{found['text']}” Each has {pairs[ours[0]]} pairs, so pairs/s are "
                f"{pairs[ours[0]]} times these numbers. Medians of rounds{cpu_time}."
            ]
            unable = [one["title"] for one in found["systems"] if one["title"] not in pairs]
            notes += [f"Cannot take given entities: {', '.join(unable)}."] if unable else []
            notes += [f"{one['title']}: {one['note']}." for one in found["systems"] if one["note"]]
            notes += [f"Not measured: {name} ({reason})." for name, reason in found["skipped"].items()]
        else:
            notes = [f"Pairs that ours score per sentence, after spaCy's NER: {pairs[ours[0]]}."]
        yield Table(f"From {source}: sentences/s", header, rows["speed"], tuple(notes))
        for name in ours:
            yield Table(f"From {source}: time relative to {name}", header, rows[name])
    columns = ("system", "peak memory, GB", "import, s", "load, s", "first sentence, s", "start, s")
    stages = ("import", "load", "first", "all")
    cold = [
        (one["title"], f"{one['peak_gb']:.2f}", *(f"{one['cold'][stage]:.1f}" for stage in stages))
        for one in found["systems"]
    ]
    yield Table("Memory and cold start", columns, cold)


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    lines = [
        f"**{table.title[0].upper()}{table.title[1:]}**",
        "",
        f"| {' | '.join(table.header)} |",
        f"| --- |{' ---: |' * (len(table.header) - 1)}",
        *(f"| {' | '.join(row)} |" for row in table.rows),
    ]
    return "\n".join([*lines, *(line for note in table.notes for line in ("", note))])


def _speed(speed: Mapping[str, Any]) -> str:
    return _number(speed["pairs_s"])


def _times(speed: Mapping[str, Any]) -> str:
    return _range(speed["times_by_round"])


def _range(by_round: Sequence[float]) -> str:
    """Format a median with the least and most."""
    return f"{_number(median(by_round))} ({_number(min(by_round))}–{_number(max(by_round))})"


def _memory(one: Mapping[str, Any]) -> str:
    beside = f" ({one['to_batch_8']:.2f})" if "to_batch_8" in one else ""
    return f"{one['peak_gb']:.2f}{beside}"


def _growth(size: Mapping[str, Any]) -> str:
    growth = f"to the power of {size['exponent']:.2f}"
    return f"The time of {size['cost_of']} grows as the {size['size']} {growth}."


def _number(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
