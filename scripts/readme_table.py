"""Write the tables of evaluation runs, or of measured speed, into the README, between their markers.

Usage: python scripts/readme_table.py RUNS… [--readme README.md]
       python scripts/readme_table.py --speed SPEED.json… [--readme README.md] [--document docs/speed.md]

RUNS are folders of `python -m spacy slmre evaluate`; SPEED.json is the output of `benchmarks/inference.py`,
one file per machine. The text between the markers `<!-- results:begin -->` and `<!-- results:end -->` (or the
same for `speed`) is replaced. The README gets the main speed table; the document gets all tables, and the
plots are written to the folder `images` next to it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spacy_slmre.study.report import results_markdown
from spacy_slmre.util.io import atomic_write

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from speed.plots import plots  # noqa: E402
from speed.tables import headline, limit_tables, markdown, tables  # noqa: E402


def main() -> None:
    """Replace the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--speed", type=Path, nargs="+", default=[])
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "speed.md")
    args = parser.parse_args()
    if not args.runs and not args.speed:
        parser.error("give folders of runs, or --speed and files")
    try:
        if args.runs:
            put(args.readme, "results", results_markdown(args.runs))
        if args.speed:
            put_speed([read_speed(file) for file in args.speed], args.readme, args.document)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def put(file: Path, name: str, words: str) -> None:
    """Replace the text between two markers.

    Raises:
        ValueError: The markers do not occur exactly once, in this order.
    """
    text = file.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{file} must have {begin} once, and {end} once after it.")
    between = re.compile(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", re.DOTALL)
    atomic_write(file, between.sub(lambda _: f"\n{words}\n", text))


def read_speed(file: Path) -> dict[str, Any]:
    """Read the output of `benchmarks/inference.py`.

    Raises:
        ValueError: The file is something else, is from a run with --quick, or mixes machines or precisions.
    """
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        settings = [part["setting"] for part in results["parts"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not an output of benchmarks/inference.py ({error}).") from error
    if not settings:
        raise ValueError(f"{file} has no measurements.")
    if any(one["quick"] for one in settings):
        raise ValueError(f"{file} comes from a run with --quick, which does not measure enough: run it without.")
    if len(made := {(one["machine"], one["dtype"], one["base"]) for one in settings}) > 1:
        raise ValueError(
            f"{file} mixes measurements of different machines or settings ({made}): use one file for each."
        )
    return results


def put_speed(found: list[dict[str, Any]], readme: Path, document: Path) -> None:
    """Write the speed tables of the README and the document, and the plots."""
    named = {_machine(results): results for results in found}
    images = []
    for name, caption, svg in plots(named):
        file = document.parent / "images" / name
        atomic_write(file, svg)
        images.append((file, caption))
    short, whole = [], []
    for results in found:
        parts, first = results["parts"], []
        if "contest" in parts:
            first.append(markdown(headline(parts["contest"]["found"])))
        if "limit" in parts:
            (limit,) = limit_tables(parts["limit"]["found"])
            first += limit.notes
        if first:
            short += [_setting(results), *first]
        whole += [_setting(results), *map(markdown, tables(results))]
    put(document, "speed", "\n\n".join([*whole, *_shown(images, document)]))
    put(readme, "speed", "\n\n".join([*short, *_shown(images, readme)]))


def _shown(images: list[tuple[Path, str]], page: Path) -> list[str]:
    tags = [
        f'<img src="{Path(os.path.relpath(file, page.parent)).as_posix()}" width="400" alt="{caption}">'
        for file, caption in images
    ]
    return ["\n".join(tags)] if tags else []


def _machine(results: Mapping[str, Any]) -> str:
    setting = next(iter(results["parts"].values()))["setting"]
    return f"{setting['machine']}, {setting['dtype']}"


def _setting(results: Mapping[str, Any]) -> str:
    """Describe on what machine, when and with which versions speed was measured."""
    settings = [part["setting"] for part in results["parts"].values()]
    days = sorted({one["date"] for one in settings})
    first = settings[0]
    made = ", ".join(f"{name} {first['versions'][name]}" for name in ("torch", "transformers"))
    rounds = " or ".join(map(str, sorted({one["rounds"] for one in settings})))
    when = " to ".join(dict.fromkeys((days[0], days[-1])))
    return f"{first['base']} on {_machine(results)}, medians of {rounds} rounds, {when} ({made})."


if __name__ == "__main__":
    main()
