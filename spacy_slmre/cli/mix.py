"""`python -m spacy slmre mix`: a mixture of converted benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import show_errors


@slmre_cli.command("mix")
@show_errors()
def mix_cli(
    config: Annotated[Path, typer.Argument(help="What to mix; see configs/mixtures.")],
    corpora: Annotated[Path, typer.Argument(help="Folder of converted benchmarks: NAME/SPLIT.spacy.")],
    output: Annotated[Path, typer.Argument(help="The manifest to write (.json).")],
    skip_missing: Annotated[bool, typer.Option(help="Do without benchmarks that are not there.")] = False,
) -> None:
    """Draw the samples of a mixture and write its manifest; no data are copied."""
    from rich.console import Console
    from rich.table import Table

    from spacy_slmre.study.mixtures import Mixture, make_manifest
    from spacy_slmre.util.io import atomic_write

    mixture = Mixture.from_file(config)
    console = Console()
    with console.status("Counting and hashing corpora"):
        manifest = make_manifest(mixture, corpora, skip_missing=skip_missing)
    atomic_write(output, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    table = Table("split", "benchmark", "domain", "pairs", "of", "documents")
    for split, content in manifest["splits"].items():
        for source in content["sources"]:
            sample, available = source["sample"], source["available"]
            table.add_row(
                split,
                source["benchmark"],
                source["domain"],
                f"{sample['pairs']:,}",
                f"{available['pairs']:,}",
                f"{sample['documents']:,}",
            )
        table.add_section()
    console.print(table)
    for split, content in manifest["splits"].items():
        console.print(
            f"{split}: {content['pairs']:,} pairs in {content['documents']:,} documents", highlight=False
        )
        for source in content["sources"]:
            if (left_out := source.get("left_out")) is not None:
                told = f"  {source['benchmark']}: {_stand_in(left_out)}"
                console.print(told, style="yellow", highlight=False, soft_wrap=True)
        if content["missing"]:
            console.print(f"  missing: {', '.join(content['missing'])}", style="yellow", highlight=False)
    print(f"Manifest: {output}")


def _stand_in(left_out: dict[str, Any]) -> str:
    message = "its dev split is for training"
    if left_out["test"] is None:
        return f"{message}; nothing is left out, as no test split is converted that it could share texts with"
    return f"{message}, {len(left_out['positions']):,} documents that stand in test are left out"
