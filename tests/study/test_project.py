"""The project file matches the cards, and its commands run without any download."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import spacy
import srsly
from weasel.cli.document import project_document
from weasel.cli.run import project_run

from spacy_slmre.study.benchmarks.card import all_benchmarks
from spacy_slmre.study.mixtures import Mixture

ROOT = Path(__file__).parents[2]
PROJECT = srsly.read_yaml(ROOT / "project.yml")
DEMO = {"bases", "dapt-demo", "tune-demo", "tune-dapt-demo", "classifier-demo", "evaluate-demo", "report-demo"}
TUNING = {"tune-gentune", "tune-littune", "tune-mixtune", "tune-universal", "tune-dapt", "tune-grid", "dapt"}
EVALUATION = {"evaluate-tuned", "evaluate-grid", "frontier-gpt", "frontier-claude", "report"}
MIXTURES = ROOT / "configs" / "mixtures"
REGIMES = ("gentune", "littune", "mixtune")
MIRROR = "https://raw.githubusercontent.com"

CLASSIFIER = {"train-classifier", "evaluate-classifier"}


def run_steps(folder: Path, steps: Sequence[str], *settings: str) -> None:
    """Run commands of the project in a folder, as one workflow: each start of spaCy's command takes seconds."""
    project = (ROOT / "project.yml").read_text()
    workflow = "".join(f"    - {step}\n" for step in steps)
    (folder / "project.yml").write_text(project.replace("workflows:\n", f"workflows:\n  trial:\n{workflow}"))
    done = subprocess.run(
        [sys.executable, "-m", "spacy", "project", "run", "trial", ".", *settings],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout


def test_assets_have_the_urls_of_the_cards():
    found = {
        asset["dest"].removeprefix("${vars.raw}/"): asset["url"].replace("${vars.mirror}", PROJECT["vars"]["mirror"])
        for asset in PROJECT["assets"]
        if "url" in asset and not re.search("/(litbank|litbank_coreference|gap)/", asset["dest"])
    }
    wanted = {
        f"{card.folder or card.name}/{card.files[split]}": url
        for card in all_benchmarks().values()
        for split, url in card.urls.items()
    }
    assert found == wanted and all(url.startswith(MIRROR) for url in found.values())


def test_assets_without_a_url_have_an_instruction():
    private = [asset for asset in PROJECT["assets"] if "url" not in asset]
    assert any("LDC2018T24" in asset["description"] for asset in private)
    assert all(asset["extra"] and asset["description"] for asset in private)


def test_every_benchmark_and_mixture_has_a_command():
    names = {command["name"] for command in PROJECT["commands"]}
    cards = [card.name for card in all_benchmarks().values() if card.files and card.name != "demo"]
    wanted = {f"convert-{name.replace('_', '-')}" for name in cards if name != "conll04_pairs"}
    # The others have a suffix, which is set by the variable sets.
    wanted |= {f"mix-{path.stem}" for path in MIXTURES.glob("*.cfg") if "-" not in path.stem}
    shipped = {"universal-corpora", "train-universal-encoder"}
    others = {"convert", "demo-corpus", "package-demo"} | shipped | DEMO | TUNING | CLASSIFIER
    assert names == wanted | others | EVALUATION
    # A run of a project stops at a command whose files are missing.
    wanted.remove("mix-demo")
    assert not any("deps" in command for command in PROJECT["commands"] if command["name"] in wanted)


def test_workflows_only_run_existing_commands():
    names = {command["name"] for command in PROJECT["commands"]}
    assert set(PROJECT["workflows"]) == {"all", "general", "literary", "regimes", "study", "frontier"}
    for steps in PROJECT["workflows"].values():
        assert set(steps) <= names


def test_every_step_of_the_demo_declares_its_inputs_and_outputs():
    commands = {command["name"]: command for command in PROJECT["commands"]}
    made = set()
    for step in PROJECT["workflows"]["all"][1:]:
        assert commands[step]["outputs"], step
        # The inputs of a step are in the repository or made by an earlier step.
        for path in commands[step]["deps"]:
            assert path in made or (ROOT / path).exists(), f"{step} needs {path}"
        made |= set(commands[step]["outputs"])


@pytest.mark.parametrize("sets", ["", "-open", "-demo"])
@pytest.mark.parametrize("regime", REGIMES)
def test_a_regime_uses_the_selected_benchmarks(sets, regime, capfd):
    name = f"{regime}{sets}"
    project_run(ROOT, f"tune-{regime}", overrides={"vars.sets": sets, "vars.model": "m"}, dry=True)
    mix, tune = (line for line in capfd.readouterr().out.splitlines() if "Running command" in line)
    assert f" configs/mixtures/{name}.cfg data/corpora -o data/corpora/{name}.json " in mix
    assert (MIXTURES / f"{name}.cfg").is_file()
    assert f" --output output/tuned/m-{name}-2shot " in tune and f" --tune.regime {name} " in tune


def test_regimes_differ_only_in_their_mixture():
    scripts = {command["name"]: command["script"] for command in PROJECT["commands"]}
    tune = [[line.replace(regime, "REGIME") for line in scripts[f"tune-{regime}"]] for regime in REGIMES]
    assert tune[0] == tune[1] == tune[2]
    mixtures = [Mixture.from_file(MIXTURES / f"{regime}-demo.cfg") for regime in REGIMES]
    assert [mixture.name for mixture in mixtures] == [f"{regime}-demo" for regime in REGIMES]
    assert all(replace(mixture, name=mixtures[0].name) == mixtures[0] for mixture in mixtures)


@pytest.mark.slow
def test_a_regime_and_dapt_run(tmp_path, tiny_base, demo):
    """Tune on the demo corpus with the project's commands; the pipelines record how they were made."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(demo, tmp_path / "data" / "corpora")
    (tmp_path / "tiny.cfg").write_text(f"""
[tune]
extends = "study.cfg"

[model]
base = "{tiny_base}"
quantization = null
dtype = "float32"
device = "cpu"

[lora]
rank = 4
alpha = 8

[training]
max_steps = 2
""")
    novels = tmp_path / "data" / "raw" / "litbank"
    novels.mkdir(parents=True)
    text = (ROOT / "assets" / "demo" / "08_the_lamp.txt").read_text()
    for number in range(6):
        (novels / f"{number}.txt").write_text(text * 20)
    settings = "--vars.sets=-demo --vars.model tiny --vars.shots 2 --vars.dapt_model tiny --vars.dapt_steps 2"
    # The other regimes run the same commands with another mixture.
    steps = ["tune-mixtune", "dapt", "tune-dapt"]
    run_steps(tmp_path, steps, *settings.split(), "--vars.base", str(tiny_base))
    tuned = {"tiny-mixtune-demo-2shot": ("mixtune-demo", False), "tiny-dapt-littune-demo-2shot": ("littune-demo", True)}
    output = tmp_path / "output" / "tuned"
    assert {path.name for path in output.iterdir() if path.is_dir()} == set(tuned)
    for name, (regime, dapt) in tuned.items():
        nlp = spacy.load(output / name)
        assert nlp.meta["tuning"] == {"regime": regime, "shots": 2, "dapt": dapt}
        assert len(nlp.get_pipe("slm_relations").model.style.examples) == 2


@pytest.mark.slow
def test_a_fresh_machine_converts_and_mixes(tmp_path):
    for name in ("assets", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    run_steps(tmp_path, ["convert", "demo-corpus", "mix-demo"])
    corpora = tmp_path / "data" / "corpora"
    assert (corpora / "demo" / "train.spacy").is_file() and (corpora / "demo.json").is_file()


def test_documentation_of_the_project_is_up_to_date(tmp_path):
    page = ROOT / "docs" / "project.md"
    shutil.copy(page, tmp_path)
    project_document(ROOT, tmp_path / "project.md", no_emoji=True)
    assert (tmp_path / "project.md").read_text() == page.read_text(), "run `make docs` to update docs/project.md"
