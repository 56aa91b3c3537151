from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_slmre.extraction.inputs import find_inputs
from tests.conftest import TEXTS


@pytest.fixture
def inputs(tmp_path: Path, blank: Callable[[], Language], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Files of all formats with 7, 8, 5, 0, 1 and 3 documents, relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = Path("in")
    folder.mkdir()
    records = [json.dumps({"id": f"ß{n}", "text": TEXTS[n % 6]}, ensure_ascii=False) for n in range(6)]
    records[2:2] = ["", "no JSON", " "]
    (folder / "a.jsonl").write_text("\r\n".join(records), encoding="utf-8")
    table = pa.table({"text": [f"{n} {TEXTS[n % 6]}" for n in range(8)]})
    parquet.write_table(table, folder / "b.parquet", row_group_size=3)
    DocBin(docs=list(blank().pipe(TEXTS[:5]))).to_disk(folder / "c.spacy")
    (folder / "d.jsonl").write_text("\n\n")
    (folder / "e.txt").write_text(TEXTS[0])
    (folder / "f").write_text("Ann Lee met Bo Lee.\n\nx\ny")
    return [*find_inputs(["in"]), ("in/f", "lines")]
