"""The notebooks in `examples` run without a network, and are stored with clean outputs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import run_notebooks  # noqa: E402

NOTEBOOKS = sorted(run_notebooks.EXAMPLES.glob("*.ipynb"))
MAX_KILOBYTES = 150
# Enough to see that every cell runs; the stored outputs are those of the whole run.
SHORTER = {
    "tune_from_label_studio": {
        "--training.max_steps 20 --training.eval_steps 20": (
            "--training.max_steps 2 --training.eval_steps 2 --encoder.max_steps 25"
        )
    }
}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def messages(notebook: NotebookNode) -> list[str]:
    """Warnings and errors in the outputs of a notebook."""
    return [one.get("text", one.get("evalue", "")) for one in outputs(notebook) if one.get("name") == "stderr"] + [
        one.evalue for one in outputs(notebook) if one.output_type == "error"
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@each_notebook
def test_notebook_runs(path: Path, tmp_path: Path, real_base: str, real_encoder: str) -> None:
    try:
        notebook = run_notebooks.run(path, tmp_path, replace=SHORTER.get(path.stem))
    except CellExecutionError as error:
        pytest.fail(
            f"A cell of examples/{path.name} failed. After a fix, run `make notebooks`.\n{error}", pytrace=False
        )
    assert not messages(notebook)
    assert not nbformat.validate(notebook)


@each_notebook
def test_stored_outputs_are_complete_clean_and_small(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run `make notebooks`"
    assert not messages(notebook)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(/home|/root|/tmp|/Users|/work|[A-Z]:\\\\)[/\\]", text), "an absolute path"
    assert len(text) <= 1000 * MAX_KILOBYTES


@each_notebook
def test_links_lead_to_files(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_readme_of_the_examples_lists_all_notebooks() -> None:
    listed = re.findall(r"\]\((\w+\.ipynb)\)", (run_notebooks.EXAMPLES / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == [path.name for path in NOTEBOOKS]
