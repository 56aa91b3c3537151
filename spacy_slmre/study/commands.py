"""The command group `python -m spacy slmre study`: what only the reproduction of the study needs.

Every spaCy command imports this module, so heavy imports belong inside the commands.
"""

from __future__ import annotations

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.study import commands_data, commands_models

_OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}

study_cli = typer.Typer(
    name="study", help="Reproduce the study (arXiv:2606.22606).", no_args_is_help=True, rich_markup_mode=None
)
study_cli.command("benchmarks")(commands_data.benchmarks_command)
study_cli.command("convert-all")(commands_data.convert_all_command)
study_cli.command("mix")(commands_data.mix_command)
study_cli.command("pretrain", context_settings=_OVERRIDES)(commands_models.pretrain_command)
study_cli.command("train-classifiers", context_settings=_OVERRIDES)(commands_models.train_classifiers_command)
study_cli.command("grid", context_settings=_OVERRIDES)(commands_models.grid_command)
study_cli.command("evaluate")(commands_models.evaluate_command)
slmre_cli.add_typer(study_cli)
