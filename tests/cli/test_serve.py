from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no_such_pipeline"], "neither an installed package nor a folder"),
        (["en", "--theme", "blue"], "Use one of auto, light, dark"),
    ],
)
def test_bad_input_gets_one_clear_error(args: list[str], message: str) -> None:
    result = CliRunner().invoke(slmre_cli, ["serve", *args])
    assert result.exit_code == 1 and message in result.output


@pytest.mark.slow
def test_server_answers_and_stops_cleanly(tmp_path: Path, tiny_base: Path) -> None:
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PER", "pattern": "Ann"}])
    model = {"@architectures": "spacy-slmre.SmallLM.v1", "base": str(tiny_base), "quantization": None}
    nlp.add_pipe("slm_relations", config={"model": model, "labels": ["knows"]})
    nlp.to_disk(tmp_path / "pipeline")
    command = [sys.executable, "-m", "spacy", "slmre", "serve", str(tmp_path / "pipeline"), "--port", "0"]

    def interruptible() -> None:
        # Background processes of a shell ignore this signal, and so do their children.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible) as process:
        assert process.stderr is not None
        address = None
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                address = found[0]
                break
        assert address
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert b"Find relations" in answer.read()
        process.send_signal(signal.SIGINT)
        assert "Stopped." in process.stderr.read()
        assert process.wait(30) == 0
