"""`python -m spacy slmre evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_slmre.cli import slmre_cli
from spacy_slmre.cli.output import console, failing_clearly, say

if TYPE_CHECKING:
    from spacy.language import Language


@slmre_cli.command("evaluate")
@failing_clearly()
def evaluate_command(
    pipeline: Annotated[str, typer.Argument(help="Folder or package of a pipeline.")],
    corpus: Annotated[Path, typer.Argument(help="A .spacy file, or a folder of them.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the scores here, as JSON.")
    ] = None,
    component: Annotated[
        str | None, typer.Option(help="The relation component, where there are several.")
    ] = None,
    pairs: Annotated[
        str,
        typer.Option(
            help="annotated: the pairs that the corpus annotates; proposed: the component's candidates."
        ),
    ] = "annotated",
) -> None:
    """Score relations on gold entities. From raw text on: spacy evaluate."""
    from rich.table import Table

    from spacy_slmre.cli.pipelines import load_pipeline
    from spacy_slmre.files import write_aside

    if pairs not in ("annotated", "proposed"):
        raise ValueError(f'--pairs {pairs}: use "annotated" or "proposed".')
    scores = evaluate_on_gold(load_pipeline(pipeline), corpus, component, annotated=pairs == "annotated")
    table = Table("label", "precision", "recall", "F1")
    for label, prf in scores["rel_per_type"].items():
        table.add_row(label, *(f"{prf[key]:.3f}" for key in "prf"))
    overall = [scores[f"rel_micro_{key}"] for key in "prf"]
    table.add_row("all (micro)", *(f"{value:.3f}" for value in overall), style="bold")
    console.print(table)
    say(
        f"{scores['pairs']:,} pairs in {scores['seconds']:.1f} s: "
        f"{scores['pairs'] / scores['seconds']:.0f} pairs/s"
    )
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_aside(output, json.dumps(scores, indent=2, ensure_ascii=False))
        say(f"Scores: {output}")


def evaluate_on_gold(
    nlp: Language, corpus: Path, component: str | None = None, *, annotated: bool = True
) -> dict[str, Any]:
    """Scores of a pipeline's relation component on gold entities.

    Args:
        nlp: The pipeline; of it, only the relation component is run.
        corpus: The corpus.
        component: The component, where there are several.
        annotated: Ask about the pairs that the corpus annotates, in place of the component's candidates.

    Returns:
        What the component's scorer gives, "pairs" asked about, and the "seconds" that took.

    Raises:
        ValueError: The corpus has no relation.
    """
    import time

    from spacy.training import Example
    from tqdm import tqdm

    from spacy_slmre.candidates import given_pairs
    from spacy_slmre.cli.pipelines import relation_component
    from spacy_slmre.corpora.readers import relation_corpus
    from spacy_slmre.relations import report_name

    _, pipe = relation_component(nlp, component)
    if annotated:
        pipe.candidates = given_pairs()
    pipe.ready()
    gold = list(relation_corpus(corpus)(nlp))
    started = time.perf_counter()
    docs = list(
        tqdm(
            pipe.pipe(example.predicted for example in gold),
            total=len(gold),
            unit="doc",
            leave=False,
            disable=None,
        )
    )
    seconds = time.perf_counter() - started
    examples = [Example(doc, example.reference) for doc, example in zip(docs, gold, strict=True)]
    scores = pipe.score(examples)
    if scores["rel_micro_f"] is None:
        raise ValueError(f"{corpus} has no relation to find: is it a corpus that `slmre convert` wrote?")
    pairs = sum(getattr(doc._, report_name(pipe.attr))["scored"] for doc in docs)
    return {"corpus": str(corpus), **scores, "pairs": pairs, "seconds": seconds}
