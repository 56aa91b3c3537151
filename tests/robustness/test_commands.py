"""Every command with random settings, files and documents: correct output or one clear error, and untouched inputs."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import spacy
import typer
from click.testing import Result
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from mcp.server.mcpserver import MCPServer
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_slmre.cli import slmre_cli
from spacy_slmre.models.hub import CACHE_VARIABLE
from spacy_slmre.serve.server import PageServer
from spacy_slmre.study import commands  # noqa: F401  (registers `study`)
from tests.conftest import TEXTS
from tests.evaluation.run_folders import write_run
from tests.robustness.test_outputs import LINE

ROOT = Path(__file__).parents[2]
# What a command reads: an argument "<name>" is one of these, or something else.
ROLES = {
    "base": ["smollm2-135m-instruct", "all-minilm-l6-v2"],
    "pipeline": ["{pipeline}", "{inputs}/pipeline.cfg"],
    "documents": ["texts", "in.jsonl", "gold.spacy", "table.parquet", "b.jsonl.gz", "{work}/random.jsonl"],
    "predicted": ["in.jsonl", "gold.spacy", "{work}/random.jsonl"],
    "annotations": ["in.jsonl", "{work}/random.jsonl"],
    "gold": ["gold.spacy", "corpora/demo"],
    "corpora": ["corpora"],
    "runs": ["runs"],
    "raw": [str(ROOT / "assets")],
    "tune": ["tune.cfg"],
    "pretrain": ["pretrain.cfg"],
    "mixture": [str(ROOT / "configs" / "mixtures" / "demo.cfg")],
    "grid": [str(ROOT / "configs" / "tune" / "grid.cfg")],
    "classifier": [str(ROOT / "configs" / "rel_classifier_cpu.cfg")],
}
COMMANDS = {
    "download-base": "<base>",
    "extract": "<pipeline> <documents> -o OUT.jsonl|.spacy",
    "convert": "<annotations> -o OUT.spacy",
    "debug-data": "<gold>",
    "tune": "<tune> -o OUT --training.max_steps 1 --training.eval_steps 1",
    "init-config": "<annotations> -o OUT.cfg",
    "evaluate": "<pipeline> <gold> -o OUT",
    "calibrate": "<pipeline> <gold> -o OUT",
    "export": "<predicted> -o OUT.csv|.jsonl|.ttl|.graphml|.parquet",
    "view": "<predicted> -o OUT.html",
    "serve": "<pipeline> --port 0",
    "mcp": "<pipeline>",
    "review": "<documents> --pipeline <pipeline> -o OUT.jsonl --port 0",
    "report": "<runs> -o OUT.html",
    "study benchmarks": "",
    "study convert-all": "<raw> -o OUT -b demo",
    "study mix": "<mixture> <corpora> -o OUT.json",
    "study pretrain": "<pretrain> <documents> -o OUT",
    "study train-classifiers": "<classifier> <corpora> -o OUT -b demo {encoder}",
    "study grid": "<grid> -o OUT --list",
    "study evaluate": "<pipeline> <corpora> -o OUT -b demo",
}
# Seconds for one example, so that these have fewer.
SLOW = ("tune", "study pretrain", "study train-classifiers", "study convert-all")
# Results in PART folders are kept to resume the run.
RESUMABLE = ("extract", "evaluate", "tune", "review", "study pretrain", "study train-classifiers", "study evaluate")
# Commands whose output is not a file, or depends on the data.
NO_OUTPUT = ("download-base", "debug-data", "serve", "mcp", "review", "study benchmarks", "study grid")
# They open a browser, replace the packaged model, or show something else than the result.
EXCLUDED = {"--open", "--help", "--list"}
SUFFIXES = (".jsonl", ".txt", ".spacy", ".parquet", ".cfg", ".json", ".csv", ".tsv", ".html", ".py", ".jsonl.gz", "")
HOSTILE = [
    *(f"{name}{suffix}" for name in ("empty", "junk", "missing", "folder") for suffix in SUFFIXES),
    *("{inputs}/loop", "{inputs}/cycle.jsonl", "{work}/a\x1b[2J\x9bb", "[/b]", "[bold]", "é🦊", "-", "", " ", "."),
]
OUTPUTS = ["{work}/kept", "{work}/deep/er/out", "/proc/no/such/out", "{inputs}/in.jsonl", "{work}/out.wrong", ""]
WORDS = ["jsonl", "txt", "csv", "json", "facts", "mentions", "document", "proposed", "schema", "generic", "generated"]
WORDS += ["demo", "graph", "arcs", "type", "dark", "knows", "text", "body", "en", "nope", "prodigy", "neo4j", "2"]
NUMBERS = ["0", "1", "2", "3", "-1", "0.5", "1e9", "nan", "inf", "x", "999999999999"]
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
COLORS = re.compile(r"\x1b\[[0-9;]*m|\r")


def all_commands(group: Any = None, prefix: str = "") -> dict[str, Any]:
    """Return the commands of the command line by their names."""
    found = {}
    for name, command in (group or typer.main.get_command(slmre_cli)).commands.items():
        if hasattr(command, "commands"):
            found |= all_commands(command, f"{prefix}{name} ")
        else:
            found[f"{prefix}{name}"] = command
    return found


def test_every_command_is_tried() -> None:
    assert set(all_commands()) == set(COMMANDS)


# -- strategies --------------------------------------------------------------------------------------------


def inputs(*names: str) -> list[str]:
    """Return the names of files, those of inputs with their folder."""
    return [
        name if "{" in name or name.startswith("/") or name not in FILES else f"{{inputs}}/{name}" for name in names
    ]


FILES = {name for names in ROLES.values() for name in names} | set(HOSTILE[: 4 * len(SUFFIXES)])


@st.composite
def option(draw: st.DrawFn, parameter: Any) -> list[str]:
    """Draw an option of a command with a value that may be valid."""
    name = draw(st.sampled_from(parameter.opts))
    if parameter.is_flag:
        return [name]
    kind = str(parameter.type_descriptor.annotation)
    if "int" in kind or "float" in kind:
        return [name, draw(st.sampled_from(NUMBERS))]
    words = st.sampled_from(WORDS) if "Path" not in kind else st.sampled_from(inputs("gold.spacy", "in.jsonl"))
    return [name, draw(words | st.sampled_from(inputs(*HOSTILE)))]


@st.composite
def arguments(draw: st.DrawFn, name: str) -> list[str]:
    """Draw the arguments of a command, of which most are valid."""

    def is_hostile() -> bool:
        return draw(st.integers(0, 5)) == 0

    drawn: list[str] = []
    for part in COMMANDS[name].split():
        if part.startswith("<"):
            chosen = HOSTILE if is_hostile() else ROLES[part.strip("<>")]
            drawn.append(draw(st.sampled_from(inputs(*chosen))))
        elif part.startswith("OUT"):
            suffix = draw(st.sampled_from(part.removeprefix("OUT").split("|")))
            drawn.append(draw(st.sampled_from(OUTPUTS)) if is_hostile() else f"{{work}}/out{suffix}")
        else:
            drawn.append(part)
    parameters = [one for one in all_commands()[name].params if type(one).__name__ == "TyperOption"]
    parameters = [one for one in parameters if not {"--output", *EXCLUDED} & set(one.opts)]
    if name == "download-base":  # it would convert the real model
        parameters = []
    for parameter in draw(st.lists(st.sampled_from(parameters), max_size=2)) if parameters else ():
        drawn += draw(option(parameter))
    # With --overwrite, a file may be replaced that is no input of this command, only of others.
    outputs = [value for name, value in pairwise(drawn) if name in ("-o", "--rejects")]
    assume(not {"-F", "--overwrite"} & set(drawn) or not any(value.startswith("{inputs}") for value in outputs))
    return drawn


characters = st.characters(codec="utf-8") | st.sampled_from("\x1b\x07\x9b[]/<>\u202e ")
texts = st.text(characters, max_size=30) | st.sampled_from(TEXTS)
offsets = st.integers(-1, 20)
mentions = st.fixed_dictionaries({"start": offsets, "end": offsets, "text": texts, "type": texts})
relations = st.fixed_dictionaries({"head": mentions, "tail": mentions, "label": texts, "score": st.floats(0, 1)})
documents = st.fixed_dictionaries(
    {
        "id": texts,
        "text": texts,
        "entities": st.lists(mentions, max_size=2),
        "relations": st.lists(relations, max_size=2),
    }
)
json_lines = documents.map(json.dumps) | st.sampled_from(["", "[]", "{", '"a"', '{"text": 5}', '{"text": "\\ud800"}'])
contents = st.lists(st.just(json.dumps(LINE)) | json_lines, max_size=4)


# -- files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pipeline: str, tiny_base: Path) -> Path:
    """A folder with valid and hostile inputs for all commands."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "texts").mkdir()
    for number, text in enumerate(TEXTS[:3]):
        (folder / "texts" / f"{number}.txt").write_text(text)
    (folder / "in.jsonl").write_text(json.dumps(LINE))
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS[:2]}), folder / "table.parquet")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps(LINE).encode()))
    convert = [
        "convert",
        str(ROOT / "assets" / "demo_corpus" / "dev.txt"),
        "-f",
        "demo",
        "-o",
        str(folder / "gold.spacy"),
    ]
    assert CliRunner().invoke(slmre_cli, convert).exit_code == 0
    (folder / "corpora" / "demo").mkdir(parents=True)
    docs = list(DocBin().from_disk(folder / "gold.spacy").get_docs(spacy.blank("en").vocab))[:6]
    for split in ("train", "dev", "test"):
        DocBin(docs=docs, store_user_data=True).to_disk(folder / "corpora" / "demo" / f"{split}.spacy")
    shutil.copy(folder / "corpora" / "demo" / "dev.spacy", folder / "gold.spacy")
    write_run(folder / "runs" / "one")
    nlp = spacy.load(pipeline)
    nlp.remove_pipe("entity_ruler")
    nlp.config.to_disk(folder / "pipeline.cfg")
    corpus = '@readers = "spacy-slmre.RelationCorpus.v1"\npath = "{}"\n'.format(folder / "gold.spacy")
    model = f'[model]\nbase = "{tiny_base}"\ndevice = "cpu"\n'
    (folder / "tune.cfg").write_text(
        f'{model}@architectures = "spacy-slmre.SmallLM.v1"\nquantization = null\ndtype = "float32"\n'
        "[tune]\nshots = 0\nschema = null\n[lora]\nrank = 2\n[training]\nmax_tokens = 400\n"
        f"[corpora]\n[corpora.train]\n{corpus}[corpora.dev]\n{corpus}"
    )
    (folder / "pretrain.cfg").write_text(f"{model}[training]\nblock_size = 8\nmax_steps = 1\nholdout = 0.3\n")
    for suffix in SUFFIXES:
        (folder / f"empty{suffix}").touch()
        (folder / f"junk{suffix}").write_bytes(b'\x00\xff{"junk')
        (folder / f"folder{suffix}").mkdir()
    (folder / "loop").mkdir()
    (folder / "loop" / "loop").symlink_to(folder / "loop")
    (folder / "cycle.jsonl").symlink_to("cycle.jsonl")
    return folder


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers are stopped by Ctrl+C at once, and the packaged model is installed."""

    def interrupt(self: Any, *args: Any) -> None:
        raise KeyboardInterrupt

    cache = tmp_path_factory.mktemp("cache")
    (cache / "smollm2-135m-instruct-q4_1").mkdir()
    (cache / "smollm2-135m-instruct-q4_1" / "config.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PageServer, "serve_forever", interrupt)
        patch.setattr(MCPServer, "run", lambda *args: None)  # as when the assistant ends
        patch.setenv(CACHE_VARIABLE, str(cache))
        yield


def snapshot(*folders: Path) -> dict[str, Any]:
    """Return the names of all files in folders, with their contents."""
    found = (path for folder in folders for path in sorted(folder.rglob("*")))
    return {str(path): path.read_bytes() if path.is_file() else os.path.islink(path) for path in found}


# -- the property ------------------------------------------------------------------------------------------


def check(name: str, args: list[str], lines: list[str], pipeline: str, encoder: Path, folder: Path) -> None:
    """Run a command and check its result."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary, "work")
        work.mkdir()
        (work / "random.jsonl").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
        (work / "kept").mkdir()
        (work / "kept" / "thesis.txt").write_text("years")
        values = {"work": work, "inputs": folder, "pipeline": pipeline}
        values["encoder"] = f"--components.rel_classifier.model.base={encoder}"
        given = [re.sub(r"{(\w+)}", lambda match: str(values[match[1]]), arg) for arg in args]
        before = snapshot(folder, Path(pipeline), work)
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.chdir(work)
            result = CliRunner().invoke(slmre_cli, [*name.split(), *given], input=b"")
        after = snapshot(folder, Path(pipeline), work)
        check_result(name, result)
        changed = [file for file, content in before.items() if after.get(file) != content]
        assert not changed, f"changed: {changed}"
        new = [Path(file) for file in after if file not in before]
        assert not [file for file in new if file.is_relative_to(folder) or file.is_relative_to(pipeline)]
        outside = {file.relative_to(work).parts[0] for file in new}
        leftovers = {file for file in outside if file.startswith(".")}
        # An unfinished review keeps its decisions there.
        if name != "review" and (result.exit_code == 0 or name not in RESUMABLE):
            leftovers |= {file for file in outside if file.endswith(".part")}
        assert not leftovers, f"left behind: {leftovers}"
        output = given[given.index("-o") + 1] if "-o" in given else None
        if result.exit_code == 0 and name not in NO_OUTPUT and "--write-pairs" not in given and "--to" not in given:
            check_output(work / str(output), given)


def check_result(name: str, result: Result) -> None:
    """Check that a command succeeded, or printed exactly one clear error."""
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    errors = [line for line in result.stderr.splitlines() if line.startswith("✘")]
    # Libraries print colors and progress during training.
    output = COLORS.sub("", result.output) if name in SLOW else result.output
    assert "Traceback" not in output and not CONTROL.search(output)
    if result.exit_code == 0:
        assert not errors
    elif result.exit_code == 2:
        assert "Error: " in result.stderr or "Usage: " in result.stderr
    else:
        assert result.exit_code == 1
        reported = {"extract": "documents failed", "debug-data": "error "}
        if not errors:
            assert name in reported and reported[name] in result.output
        else:
            assert len(errors) == 1 and len(errors[0]) > 5, result.stderr


def check_output(output: Path, args: list[str]) -> None:
    """Check that an output is complete, as far as it has a form of its own."""
    assert output.exists()
    if not {"-f", "--format"} & set(args):
        if output.suffix == ".jsonl":
            assert all(isinstance(json.loads(line), dict) for line in output.read_text().splitlines())
        elif output.suffix == ".spacy" and output.is_file():
            DocBin().from_disk(output)
        elif output.suffix == ".html":
            assert "</html>" in output.read_text()
    if output.is_dir():
        assert any(output.iterdir())


def try_command(name: str, folder: Path, pipeline: str, encoder: Path, examples: int) -> None:
    # Shrinking takes far longer than reading a long command.
    options: dict[str, Any] = {"phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}

    @settings(max_examples=examples, derandomize=True, database=None, **options)
    @given(args=arguments(name), lines=contents)
    def try_all(args: list[str], lines: list[str]) -> None:
        check(name, args, lines, pipeline, encoder, folder)

    try_all()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_gives_a_correct_output_or_one_clear_error(
    name: str, folder: Path, pipeline: str, tiny_encoder: Path
) -> None:
    try_command(name, folder, pipeline, tiny_encoder, 4 if name in SLOW else 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_gives_a_correct_output_or_one_clear_error_in_many_trials(
    name: str, folder: Path, pipeline: str, tiny_encoder: Path
) -> None:
    try_command(name, folder, pipeline, tiny_encoder, 8 if name in SLOW else 60)
