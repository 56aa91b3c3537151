"""Outputs that are complete or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spacy_slmre.exports.documents import ExportError


@contextmanager
def aside(output: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A place for a file (or a folder) that gets its name when the block ends without an error.

    Args:
        output: What is to be made.
        overwrite: Replace what stands there.

    Raises:
        ExportError: Something stands there, or nothing can be written there.
    """
    if output.exists() and not overwrite:
        raise ExportError(f"The output {output} is there already: give --overwrite to replace it.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that renaming is one step.
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise ExportError(f"The output {output} cannot be written: {error.strerror}.") from error
    try:
        yield folder / output.name
        new = folder / output.name
        if output.exists() and (new.is_dir() or output.is_dir()):
            os.replace(output, folder / "replaced")  # only a file can replace a file in one step
        os.replace(new, output)
    except OSError as error:
        raise ExportError(f"The output {output} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
