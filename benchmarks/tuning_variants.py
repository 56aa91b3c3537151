"""What each choice of prompt, loss and place of LoRA gives: the packaged SmolLM2-135M tuned once with each.

    python benchmarks/tuning_variants.py CORPORA OUTPUT [--benchmarks conll04_pairs] [--pairs 5000]
        [--only NAME …] [--training.max_tokens N] …

CORPORA is what `slmre convert-all` made. All variants are tuned on the same pairs with the same seed, and
scored on the same dev pairs; test splits are not read. Any setting of the tuning config may be given, and
holds for all of them. Interrupted, the same command goes on; what is done in OUTPUT is not done again. Prints
what is done so far as a table. A variant with shorter prompts makes fewer steps: compare by tokens, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from spacy.cli._util import parse_config_overrides

from spacy_slmre.cli.output import say
from spacy_slmre.corpora.mixtures import Mixture, make_manifest
from spacy_slmre.relations import install_extensions
from spacy_slmre.slm.prompts import PARTS, default_templates
from spacy_slmre.tuning.config import read_config, resolve_config
from spacy_slmre.tuning.folders import part_of
from spacy_slmre.tuning.run import run_tuning

CONFIG = Path(__file__).parent.parent / "configs" / "tune" / "pooled.cfg"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "numbers-only": {
        "context": "Text: {{ typed_text }}",
        "query": "[{{ head.number }}] to [{{ tail.number }}]:",
    },
    "no-types": {"query": "[{{ head.number }}] {{ head.text }} to [{{ tail.number }}] {{ tail.text }}:"},
    "no-markers": {
        "query": "{{ head.text }}{% if head.type %} ({{ head.type }}){% endif %} to "
        "{{ tail.text }}{% if tail.type %} ({{ tail.type }}){% endif %}:"
    },
    "definitions": {"model.definitions": True},
    "no-label-list": {"model.label_list": False},
    "upper-half": {"lora.top_layers": 15},
    "upper-third": {"lora.top_layers": 10},
    "plain-loss": {"training.objective": "lm"},
}
"""Settings of each, beside those that all have, and templates where they are others than the default."""


def main() -> None:
    """Tune and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--benchmarks", nargs="+", default=["conll04_pairs"], help="default: conll04_pairs", metavar="NAME"
    )
    parser.add_argument("--pairs", type=int, default=5000, help="most training pairs; 0 takes all")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=VARIANTS,
        default=list(VARIANTS),
        metavar="NAME",
        help=f"variants: {', '.join(VARIANTS)}",
    )
    arguments, rest = parser.parse_known_args()
    install_extensions()
    arguments.output.mkdir(parents=True, exist_ok=True)
    mixture = Mixture(
        name="variants",
        benchmarks=tuple(arguments.benchmarks),
        caps={"train": arguments.pairs, "dev": 0},
        balance="benchmark",
    )
    manifest = arguments.output / "pairs.json"
    manifest.write_text(json.dumps(make_manifest(mixture, arguments.corpora), indent=2), encoding="utf-8")
    given = {
        "tune.shots": 0,
        "corpora.train.manifest": str(manifest),
        "corpora.dev.manifest": str(manifest),
        "paths.corpora": str(arguments.corpora),
        "training.evaluate_every": 0,
        **parse_config_overrides(rest),
    }
    for name in arguments.only:
        output = arguments.output / name
        if not output.exists():
            settings = resolve_config(read_config(CONFIG, given | _settings(name, arguments.output)), name)
            run_tuning(settings, output, resume=part_of(output).exists(), say=say)
    table = Table("variant", "dev F1", "precision", "recall", "steps", "tokens an epoch", "minutes")
    for name in VARIANTS:
        if (file := arguments.output / name / "metrics.json").exists():
            table.add_row(name, *_row(json.loads(file.read_text(encoding="utf-8"))))
    print(json.dumps({"settings": given, "manifest": manifest.name}))
    Console().print(table)


def _settings(name: str, output: Path) -> dict[str, Any]:
    variant = VARIANTS[name]
    settings = {key: value for key, value in variant.items() if key not in PARTS}
    if own := {part: variant[part] for part in PARTS if part in variant}:
        folder = output / f"{name}.templates"
        folder.mkdir(exist_ok=True)
        for part, template in (default_templates() | own).items():
            (folder / f"{part}.jinja").write_text(template, encoding="utf-8")
        settings["model.templates"] = str(folder)
    return settings


def _row(metrics: Mapping[str, Any]) -> list[str]:
    sets = metrics["scores"]["sets"].values()
    means = (sum(one[key] for one in sets) / len(sets) for key in ("p", "r"))
    return [
        f"{metrics['scores']['micro_f1']:.3f}",
        *(f"{mean:.3f}" for mean in means),
        f"{metrics['steps']:,}",
        f"{metrics['tokens_per_epoch']:,}",
        f"{metrics['seconds'] / 60:.0f}",
    ]


if __name__ == "__main__":
    main()
