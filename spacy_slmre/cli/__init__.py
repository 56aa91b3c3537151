"""Commands of `python -m spacy slmre`.

Every spaCy command imports this package, so heavy imports belong inside the commands.
"""

# Importing a module registers its command; this is the order of the help text.
from spacy_slmre.cli import download_base, extract, convert, debug_data, tune  # noqa: F401  # isort: skip
from spacy_slmre.cli import evaluate, calibrate, export, view, serve, mcp, review, report  # noqa: F401  # isort: skip
from spacy_slmre.cli.app import slmre_cli

__all__ = ["slmre_cli"]
