"""Outputs that are complete or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spacy_slmre.export.edges import ExportError
from spacy_slmre.util.io import atomic_replace

FOLDER = {"nodes.csv", "relationships.csv"}
"""Files of an export that is a folder."""


@contextmanager
def aside(output: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A place for a file (or a folder) that gets its name when the block ends without an error.

    Args:
        output: What is to be made.
        overwrite: Replace what stands there.

    Raises:
        ExportError: Something stands there (a folder with other files is never replaced), or nothing can be
            written there.
    """
    if output.exists() and not overwrite:
        raise ExportError(f"The output {output} is there already: give --overwrite to replace it.")
    if output.exists() and not (output.is_file() or output.is_dir()):
        raise ExportError(f"The output {output} is neither a file nor a folder: it will not be replaced.")
    if output.is_dir() and (others := {child.name for child in output.iterdir()} - FOLDER):
        raise ExportError(
            f"The folder {output} holds more than an export ({min(others)}): it will not be replaced."
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that renaming is one step.
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise ExportError(f"The output {output} cannot be written: {error.strerror}.") from error
    new = folder / output.name
    try:
        yield new
        if output.is_dir():
            atomic_replace(new, output)
        else:
            os.replace(new, output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_inputs(output: Path, inputs: Iterable[str]) -> None:
    """Raise an error where an output would replace what it is made of.

    Raises:
        ExportError: It is one of the inputs, or a `.spacy` file in a folder that is one.
    """
    place = output.resolve()
    for source in inputs:
        if source == "-":
            continue
        origin = Path(source).resolve()
        if place == origin or (place.suffix == ".spacy" and origin in place.parents):
            raise ExportError(f"The output {output} is an input too ({source}): give another name.")
