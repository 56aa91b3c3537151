"""`python -m spacy slmre inspect`: what is in a corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import show_errors

if TYPE_CHECKING:
    from rich.text import Text
    from spacy.tokens import Doc

    from spacy_slmre.relations import Relation


@slmre_cli.command("inspect")
@show_errors()
def inspect_cli(
    corpus: Annotated[Path, typer.Argument(help="A .spacy file, or a folder of them.")],
    samples: Annotated[int, typer.Option("--samples", "-n", min=0, help="How many pairs to show.")] = 10,
    label: Annotated[str | None, typer.Option(help="Show pairs of this label only.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of pairs.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON, and no pairs.")] = False,
) -> None:
    """Show counts, the distribution of labels, and some pairs in their text."""
    import random

    import spacy
    from rich.console import Console
    from rich.table import Table

    from spacy_slmre.corpus.docbin import read_docs
    from spacy_slmre.corpus.summary import Summary, summary_rows
    from spacy_slmre.relations import PAIRS, install_extensions

    install_extensions()
    summary = Summary()
    rng = random.Random(seed)
    chosen: list[Text] = []
    seen = 0
    for doc in read_docs(corpus, spacy.blank("en").vocab):
        summary.add(doc)
        for relation in getattr(doc._, PAIRS):
            if label is not None and relation.label != label:
                continue
            # A reservoir: every pair has the same chance, and only the chosen ones are kept.
            seen += 1
            place = len(chosen) if len(chosen) < samples else rng.randrange(seen)
            if place < samples:
                chosen[place : place + 1] = [coloured(doc, relation)]
    if label is not None and not seen:
        raise ValueError(f'No pair of {corpus} has the label "{label}"; it has: {", ".join(summary.labels)}.')
    if as_json:
        print(json.dumps(summary.to_dict(), indent=2, ensure_ascii=False))
        return
    console = Console()
    for name, value in summary_rows(summary.to_dict()):
        if name != "rejected":
            console.print(f"{name:<40} {value}", highlight=False)
    table = Table("label", "instances", "share")
    for name, count in summary.labels.most_common():
        table.add_row(name, f"{count:,}", f"{count / summary.instances:.1%}")
    console.print(table)
    for text in chosen:
        console.print(text)


def coloured(doc: Doc, relation: Relation) -> Text:
    """A pair in its text: the head cyan, the tail magenta, and the label before it."""
    from rich.text import Text

    text = Text(doc.text)
    for span, style in ((relation.head, "bold cyan"), (relation.tail, "bold magenta")):
        text.stylize(style, span.start_char, span.end_char)
    arrow = (f"  {relation.head.text}", "cyan"), " → ", (relation.tail.text, "magenta")
    return Text.assemble((relation.label, "bold green"), *arrow, "\n  ", text)
