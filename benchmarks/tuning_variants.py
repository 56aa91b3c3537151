"""Compare choices of prompt, loss and LoRA placement: tune the packaged SmolLM2-135M with each.

    python benchmarks/tuning_variants.py CORPORA OUTPUT [--benchmarks conll04_pairs] [--pairs 5000]
        [--only NAME …] [--seeds 42 …] [--training.max_tokens N] …

CORPORA is a folder written by `slmre study convert-all`. All variants are tuned on the same pairs with the same seeds
and evaluated on the same dev pairs; test splits are not read. Settings of the tuning config, except for seed and
templates, can be overridden for all variants. Rerun the same command to resume; all runs in OUTPUT must have the same
settings. Prints a table of the finished runs: means over benchmarks and seeds, and the difference from the default with
the same seeds, with a 95 % interval (Student's t over the seeds). Variants with shorter prompts make fewer steps, so
compare tokens, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from common import make_parser
from rich.console import Console
from rich.table import Column, Table
from scipy.stats import ttest_1samp
from spacy.cli._util import parse_config_overrides

from spacy_slmre.cli.output import log
from spacy_slmre.models.prompts import PARTS, default_templates
from spacy_slmre.relations import install_extensions
from spacy_slmre.study.mixtures import Mixture, make_manifest
from spacy_slmre.training.config import read_config, resolve_config
from spacy_slmre.training.tune import tune
from spacy_slmre.util.io import atomic_write

CONFIGS = Path(__file__).parent.parent / "configs"
CONFIG = CONFIGS / "tune" / "pooled.cfg"
TYPED = {"context": "Text: {{ typed_text }}"}


def _query(mention: str) -> dict[str, str]:
    """Return a query template, given the template of a mention `one`."""
    macro = "{% macro mention(one) %}" + mention + "{% endmacro %}"
    return {"query": macro + "{{ mention(head) }} to {{ mention(tail) }}:"}


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "numbered-names": {"model.templates": str(CONFIGS / "templates" / "numbered")},
    "type-and-name": _query("[{{ one.number }}{% if one.type %} {{ one.type }}{% endif %} {{ one.text }}]"),
    "name-and-type": _query("[{{ one.number }} {{ one.text }}{% if one.type %} {{ one.type }}{% endif %}]"),
    "type-only": _query("[{{ one.number }}{% if one.type %} {{ one.type }}{% endif %}]"),
    "names-only": TYPED | _query("{{ one.text }}"),
    "numbers-only": TYPED | _query("[{{ one.number }}]"),
    "no-types": _query("{{ one.text }}"),
    "definitions": {"model.definitions": True},
    "no-label-list": {"model.label_list": False},
    "upper-half": {"lora.top_layers": 15},
    "upper-third": {"lora.top_layers": 10},
    "nf4": {"model.quantization": "nf4", "lora.init_lora": "default"},
    "nf4-qera": {"model.quantization": "nf4", "lora.init_lora": "qera"},
    "plain-loss": {"training.objective": "lm"},
}
"""Settings of each variant, and its templates if they are not the default ones."""


def main() -> None:
    """Tune and print."""
    parser = make_parser(__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--benchmarks", nargs="+", default=["conll04_pairs"], help="default: conll04_pairs", metavar="NAME"
    )
    parser.add_argument("--pairs", type=int, default=5000, help="maximum number of training pairs; 0 for all")
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        choices=VARIANTS,
        metavar="NAME",
        help=f"default: all of {', '.join(VARIANTS)}",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], metavar="N", help="default: 42")
    arguments, rest = parser.parse_known_args()
    overrides = parse_config_overrides(rest)
    if own := {"training.seed", "model.templates"} & overrides.keys():
        parser.error(f"{', '.join(sorted(own))}: set by the variants; use --seeds for seeds")
    install_extensions()
    arguments.output.mkdir(parents=True, exist_ok=True)
    mixture = Mixture(
        name="variants",
        benchmarks=tuple(arguments.benchmarks),
        caps={"train": arguments.pairs, "dev": 0},
        balance="benchmark",
    )
    manifest = arguments.output / "pairs.json"
    pairs = make_manifest(mixture, arguments.corpora)
    given = {
        "tune.shots": 0,
        "corpora.train.manifest": str(manifest),
        "corpora.dev.manifest": str(manifest),
        "paths.corpora": str(arguments.corpora),
        "training.eval_steps": 0,
        **overrides,
    }
    defaults = {"templates": default_templates(), "quantization": read_config(CONFIG, given)["model"]["quantization"]}
    _check_same(arguments.output / "settings.json", {"settings": given, "defaults": defaults})
    _check_same(manifest, pairs)
    variants = {name: _settings(name, arguments.output) for name in dict.fromkeys(arguments.only or VARIANTS)}
    for seed in arguments.seeds:
        for name, own in variants.items():
            output = arguments.output / f"seed-{seed}" / name
            if not output.exists():
                config = read_config(CONFIG, given | own | {"training.seed": seed})
                settings = resolve_config(config, name)
                tune(settings, output, log=log)
    found = {
        name: {
            int(file.parts[-3].removeprefix("seed-")): json.loads(file.read_text(encoding="utf-8"))
            for file in arguments.output.glob(f"seed-*/{name}/metrics.json")
        }
        for name in VARIANTS
    }
    table = Table(
        Column("variant", no_wrap=True),
        "dev F1",
        "difference",
        "precision",
        "recall",
        "seeds",
        "steps",
        "tokens per epoch",
        "minutes",
    )
    for name, runs in found.items():
        if runs:
            table.add_row(name, *_row(runs, found["default"]))
    print(json.dumps({"settings": given, "manifest": manifest.name}))
    Console().print(table)


def _check_same(file: Path, data: Any) -> None:
    """Record what all runs in the output share, or refuse settings that differ from the recorded ones."""
    text = json.dumps(data, indent=2)
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{file} belongs to runs with other settings or pairs: choose another OUTPUT.")
    atomic_write(file, text)


def _settings(name: str, output: Path) -> dict[str, Any]:
    variant = VARIANTS[name]
    settings = {key: value for key, value in variant.items() if key not in PARTS}
    if own := {part: variant[part] for part in PARTS if part in variant}:
        folder = output / f"{name}.templates"
        folder.mkdir(exist_ok=True)
        for part, template in own.items():
            (folder / f"{part}.jinja").write_text(template, encoding="utf-8")
        settings["model.templates"] = str(folder)
    return settings


def _row(runs: Mapping[int, Any], default: Mapping[int, Any]) -> list[str]:
    sets = [one for run in runs.values() for one in run["scores"]["sets"].values()]
    same = [
        runs[seed]["scores"]["micro_f1"] - run["scores"]["micro_f1"] for seed, run in default.items() if seed in runs
    ]
    difference = f"{mean(same):+.3f}" if same and runs is not default else ""
    if difference and len(same) > 1:
        interval = ttest_1samp(same, 0).confidence_interval()
        difference += f" ({interval.low:+.3f} to {interval.high:+.3f})"
    return [
        f"{mean(run['scores']['micro_f1'] for run in runs.values()):.3f}",
        difference,
        *(f"{mean(one[key] for one in sets):.3f}" for key in ("p", "r")),
        f"{len(runs)}",
        f"{mean(run['steps'] for run in runs.values()):,.0f}",
        f"{mean(run['tokens_per_epoch'] for run in runs.values()):,.0f}",
        f"{mean(run['seconds'] for run in runs.values()) / 60:.0f}",
    ]


if __name__ == "__main__":
    main()
