"""Write the table of evaluation runs into README.md, or tables of measured speed into docs/speed.md.

Usage: python scripts/readme_table.py RUNS… [--readme README.md]
       python scripts/readme_table.py --speed SPEED.json… [--document docs/speed.md]

RUNS are folders written by `python -m spacy slmre evaluate`, and SPEED.json is the output of
`benchmarks/inference.py`; give several for several machines. The text between `<!-- results:begin -->` and
`<!-- results:end -->`, or between the same marks of `speed`, is replaced. Plots of speed are drawn into the
folder `images` beside the document.
"""

from __future__ import annotations

import argparse
import json
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
from speed.tables import markdown, tables  # noqa: E402


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
            put_speed([read_speed(file) for file in args.speed], args.document)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def put(file: Path, name: str, words: str) -> None:
    """Replace the text between two marks.

    Raises:
        ValueError: The marks do not occur exactly once each, in this order.
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
        ValueError: The file is something else, of a run with --quick, whose figures mean nothing, or of parts
            that were measured on several machines or in several precisions.
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
        raise ValueError(f"{file} mixes measurements of different machines or settings ({made}): use one file each.")
    return results


def put_speed(found: list[dict[str, Any]], document: Path) -> None:
    """Write the tables into the document, and draw the plots into the folder `images` beside it."""
    images = []
    for name, caption, svg in plots({_machine(results): results for results in found}):
        atomic_write(document.parent / "images" / name, svg)
        images.append(f'<img src="images/{name}" width="400" alt="{caption}">')
    parts = [part for results in found for part in (_setting(results), *map(markdown, tables(results)))]
    put(document, "speed", "\n\n".join([*parts, *(["\n".join(images)] if images else [])]))


def _machine(results: Mapping[str, Any]) -> str:
    setting = next(iter(results["parts"].values()))["setting"]
    return f"{setting['machine']}, {setting['dtype']}"


def _setting(results: Mapping[str, Any]) -> str:
    """Describe the model, machine, date and versions of a measurement."""
    settings = [part["setting"] for part in results["parts"].values()]
    days = sorted({one["date"] for one in settings})
    first = settings[0]
    made = ", ".join(f"{name} {first['versions'][name]}" for name in ("torch", "transformers"))
    rounds = " or ".join(map(str, sorted({one["rounds"] for one in settings})))
    when = " to ".join(dict.fromkeys((days[0], days[-1])))
    return f"{first['base']} on {_machine(results)}, medians of {rounds} rounds, {when} ({made})."


if __name__ == "__main__":
    main()
