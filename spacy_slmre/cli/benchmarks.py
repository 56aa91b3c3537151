"""`python -m spacy slmre benchmarks`: what there is to convert."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import show_errors

_SPLITS = ("train", "dev", "test")


@slmre_cli.command("benchmarks")
@show_errors()
def benchmarks_cli(
    name: Annotated[str | None, typer.Argument(help="Show the whole card of this benchmark.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the benchmarks that can be converted, or show the card of one."""
    from spacy_slmre.study.benchmarks.card import all_benchmarks, get_benchmark

    if name is not None:
        card = get_benchmark(name).to_dict()
        if as_json:
            print(json.dumps(card, indent=2, ensure_ascii=False))
        else:
            _show_card(card)
        return
    cards = [card.to_dict() for card in all_benchmarks().values()]
    if as_json:
        print(json.dumps(cards, indent=2, ensure_ascii=False))
    else:
        _show_table(cards)


def _show_table(cards: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for column in ("name", "domain"):
        table.add_column(column, no_wrap=True)
    for column in ("labels", "train", "dev", "test"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("license", overflow="ellipsis", no_wrap=True, max_width=18)
    for card in cards:
        labels = str(len(card["schema"]["labels"])) if card["schema"] else "any"
        sizes = [f"{card['splits'][split]:,}" if split in card["splits"] else "" for split in _SPLITS]
        table.add_row(card["name"], card["domain"], labels, *sizes, card["license"])
    console = Console()
    console.print(table)
    console.print("One card in full: python -m spacy slmre benchmarks NAME", style="dim")


def _show_card(card: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    facts = Table(box=None, show_header=False, padding=(0, 1))
    facts.add_column(style="bold", no_wrap=True)
    for key in ("name", "title", "domain", "task", "direction", "citation", "license", "obtain"):
        facts.add_row(key, card[key])
    facts.add_row("redistributable", "yes" if card["redistributable"] else "no")
    facts.add_row("instances", ", ".join(f"{split} {count:,}" for split, count in card["splits"].items()))
    folder = card["folder"]
    facts.add_row("files", ", ".join(f"{split} {folder}/{file}" for split, file in card["files"].items()))
    for what, values in (("url", card["urls"]), ("setting", card["settings"])):
        for key, value in values.items():
            default = "none" if value in (None, "") else value
            facts.add_row(what, f"{key}: {value}" if what == "url" else f"{key} (default {default})")
    for note in card["notes"]:
        facts.add_row("note", note)
    facts.add_row("converter", card["converter"])
    console.print(facts)
    if card["schema"]:
        table = Table("label", "wording", "definition")
        for label in card["schema"]["labels"]:
            table.add_row(label["name"], label["wording"], label["definition"])
        console.print(table)
