"""Commands of `python -m spacy slmre`.

Every spaCy command imports this package, so heavy imports belong inside the commands.
"""

# Importing a module registers its commands.
from spacy_slmre.cli import (  # noqa: F401
    calibrate,
    convert,
    debug_data,
    download_base,
    evaluate,
    export,
    extract,
    report,
    serve,
    tune,
    view,
)
from spacy_slmre.cli.app import slmre_cli

__all__ = ["slmre_cli"]
