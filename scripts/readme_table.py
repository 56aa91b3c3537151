"""Update the table of results in README.md, or the tables of measured speed in docs/speed.md and docs/guides/scale.md.

Usage: python scripts/readme_table.py RUNS… [--readme README.md]
       python scripts/readme_table.py --speed SPEED.json… [--document docs/speed.md]
       python scripts/readme_table.py --gpu GPU.json, or --classifier CLASSIFIER.json [--document docs/speed.md]
       python scripts/readme_table.py --scale SCALE.json… [--scale-document docs/guides/scale.md]

RUNS are folders written by `python -m spacy slmre evaluate`; SPEED.json is the output of `benchmarks/inference.py`, one
file per machine; GPU.json that of `benchmarks/gpu.sh`, CLASSIFIER.json that of `benchmarks/classifier_speed.py`,
SCALE.json that of `benchmarks/scale.py`. The text between the markers `<!-- results:begin -->` and
`<!-- results:end -->` (or `speed`, `peers`, `gpu`, `classifier`, `scale`) is replaced. Plots of speed are written to
the folder `images` next to the document.
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
from speed.tables import classifier_tables, gpu_tables, markdown, scale_tables, tables  # noqa: E402


def main() -> None:
    """Replace the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--speed", type=Path, nargs="+", default=[])
    parser.add_argument("--gpu", type=Path)
    parser.add_argument("--classifier", type=Path)
    parser.add_argument("--scale", type=Path, nargs="+", default=[])
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "speed.md")
    parser.add_argument("--scale-document", type=Path, default=ROOT / "docs" / "guides" / "scale.md")
    args = parser.parse_args()
    if not (args.runs or args.speed or args.gpu or args.classifier or args.scale):
        parser.error("give folders of runs, or --speed, --gpu, --classifier or --scale with files")
    try:
        if args.runs:
            put(args.readme, "results", results_markdown(args.runs))
        if args.speed:
            put_speed([read_speed(file) for file in args.speed], args.document)
        if args.gpu:
            put(args.document, "gpu", "\n\n".join(map(markdown, gpu_tables(read_gpu(args.gpu)))))
        if args.classifier:
            results = read_results(args.classifier, "benchmarks/classifier_speed.py", "versions")
            put(args.document, "classifier", "\n\n".join(map(markdown, classifier_tables(results))))
        if args.scale:
            found = [read_results(file, "benchmarks/scale.py", "one_process") for file in args.scale]
            put(args.scale_document, "scale", "\n\n".join(markdown(one) for run in found for one in scale_tables(run)))
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def put(file: Path, name: str, content: str) -> None:
    """Replace the text between two markers.

    Raises:
        ValueError: The markers do not occur exactly once each, in this order.
    """
    text = file.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{file} must have {begin} once, and {end} once after it.")
    between = re.compile(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", re.DOTALL)
    atomic_write(file, between.sub(lambda _: f"\n{content}\n", text))


def read_speed(file: Path) -> dict[str, Any]:
    """Read the output of `benchmarks/inference.py`.

    Raises:
        ValueError: The file is invalid, is from a run with --quick, or mixes machines, precisions or base models.
    """
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        settings = [part["setting"] for part in results["parts"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} was not written by benchmarks/inference.py ({error}).") from error
    if not settings:
        raise ValueError(f"{file} has no measurements.")
    if any(setting["quick"] for setting in settings):
        raise ValueError(f"{file} is from a run with --quick, which measures too little: run it without --quick.")
    if len(made := {(setting["machine"], setting["dtype"], setting["base"]) for setting in settings}) > 1:
        raise ValueError(f"{file} mixes machines, precisions or base models ({made}): use one file for each.")
    return results


def read_gpu(file: Path) -> dict[str, Any]:
    """Read the output of `benchmarks/gpu.sh`.

    Raises:
        ValueError: The file is invalid, or from a dry run.
    """
    results = read_results(file, "benchmarks/gpu.sh", "checks")
    if results["dry_run"]:
        raise ValueError(f"{file} is from a dry run on a CPU: run benchmarks/gpu.sh on a GPU.")
    return results


def read_results(file: Path, script: str, key: str) -> dict[str, Any]:
    """Read a JSON file. Raises ValueError if it was not written by the script, whose output has the key."""
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        results[key].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} was not written by {script} ({error}).") from error
    return results


def put_speed(measurements: list[dict[str, Any]], document: Path) -> None:
    """Write the tables to the document, and the plots to the folder `images` next to it."""
    images = []
    for name, caption, svg in plots({_machine(results): results for results in measurements}):
        atomic_write(document.parent / "images" / name, svg)
        images.append(f'<img src="images/{name}" width="400" alt="{caption}">')
    if texts := _texts(measurements, of_peers=False):
        put(document, "speed", "\n\n".join([*texts, *(["\n".join(images)] if images else [])]))
    if texts := _texts(measurements, of_peers=True):
        put(document, "peers", "\n\n".join(texts))


def _texts(measurements: list[dict[str, Any]], *, of_peers: bool) -> list[str]:
    """Return the settings and tables of the part "peers", which has its own place, or of all others."""
    texts = []
    for results in measurements:
        parts = {name: part for name, part in results["parts"].items() if (name == "peers") == of_peers}
        if parts:
            texts += [_setting({"parts": parts}), *map(markdown, tables({"parts": parts}))]
    return texts


def _machine(results: Mapping[str, Any]) -> str:
    setting = next(iter(results["parts"].values()))["setting"]
    return f"{setting['machine']}, {setting['dtype']}"


def _setting(results: Mapping[str, Any]) -> str:
    """Describe the model, machine, date and versions of a measurement."""
    settings = [part["setting"] for part in results["parts"].values()]
    days = sorted({setting["date"] for setting in settings})
    first = settings[0]
    versions = ", ".join(f"{name} {first['versions'][name]}" for name in ("torch", "transformers"))
    rounds = " or ".join(map(str, sorted({setting["rounds"] for setting in settings})))
    when = " to ".join(dict.fromkeys((days[0], days[-1])))
    return f"{first['base']} on {_machine(results)}, medians of {rounds} rounds, {when} ({versions})."


if __name__ == "__main__":
    main()
