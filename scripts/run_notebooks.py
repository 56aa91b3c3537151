"""Execute the notebooks in `examples` and store their outputs in them.

Usage: python scripts/run_notebooks.py [NAME.ipynb …]

Each notebook runs in a copy of the folder, so that the files it writes do not end up in the repository.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

EXAMPLES = Path(__file__).parent.parent / "examples"
# Notebooks start commands with `python`, which must be the one that runs this script; nothing needs a network.
ENVIRONMENT = {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    "HF_HUB_OFFLINE": "1",
    "PYTHONIOENCODING": "utf-8",
    # Raised by tqdm in notebooks without ipywidgets.
    "PYTHONWARNINGS": "ignore:IProgress not found",
}


def run(path: Path, folder: Path, timeout: int = 1800, replace: Mapping[str, str] | None = None) -> NotebookNode:
    """Return a notebook with fresh outputs.

    Args:
        path: The notebook. It is not changed.
        folder: Empty folder in which the notebook runs, with a copy of `examples/data`.
        timeout: Seconds that a cell may take.
        replace: Texts in code cells to replace, for a faster run.

    Raises:
        ValueError: A text to replace does not occur exactly once.
        CellExecutionError: A cell failed; the message contains the cell and its traceback.
    """
    shutil.copytree(EXAMPLES / "data", folder / "data")
    notebook = nbformat.read(path, as_version=4)
    for old, new in (replace or {}).items():
        _replace(notebook, old, new)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,
        record_timing=False,
    )
    client.execute(env={**os.environ, **ENVIRONMENT})
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":  # commands run in a terminal, which ends lines with both
                output.text = output.text.replace("\r\n", "\n")
    # Depends on the machine.
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook


def _replace(notebook: NotebookNode, old: str, new: str) -> None:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if sum(cell.source.count(old) for cell in cells) != 1:
        raise ValueError(f"{old!r} must occur exactly once in the code of the notebook.")
    for cell in cells:
        cell.source = cell.source.replace(old, new)


def main(names: list[str]) -> None:
    """Execute the named notebooks, or all, in place."""
    for path in [EXAMPLES / name for name in names] or sorted(EXAMPLES.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(run(path, Path(folder)), path)
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
