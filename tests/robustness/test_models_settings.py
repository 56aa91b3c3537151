"""Settings, also saved ones, are checked before the first document, and errors name the file or the setting."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from typer.testing import CliRunner

from spacy_slmre.candidates import EntityPairs
from spacy_slmre.cli import slmre_cli
from spacy_slmre.corpus.sources import CorpusError, read_rows
from spacy_slmre.extraction.inputs import ExtractionError, open_table
from spacy_slmre.extraction.pipelines import load_pipeline
from spacy_slmre.llm.hugging_face import HuggingFaceChat
from spacy_slmre.llm.openai_chat import OpenAIChat
from spacy_slmre.llm.task import RelationTask
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.settings import SmallLMSettings
from spacy_slmre.models.encoder.settings import EncoderSettings
from spacy_slmre.models.hub import locate_base
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.pretraining import read_config as read_pretraining_config
from spacy_slmre.training.config import TuningError, TuningSettings, read_config
from spacy_slmre.visual.rendering import render

NAN, INFINITY = float("nan"), float("inf")

SETTINGS = [
    (SmallLMSettings, {"base": ""}, "model.base is empty"),
    (SmallLMSettings, {"base": " \n"}, "model.base is empty"),
    (SmallLMSettings, {"adapter": ""}, "model.adapter is empty"),
    (SmallLMSettings, {"templates": ""}, "model.templates is empty"),
    (SmallLMSettings, {"examples": ""}, "model.examples is empty"),
    (SmallLMSettings, {"revision": ""}, "model.revision is empty"),
    (SmallLMSettings, {"base": 5}, "model.base = 5, but it must be a text or null"),
    (SmallLMSettings, {"max_batch_tokens": "64"}, "model.max_batch_tokens = '64', but it must be a whole number"),
    (SmallLMSettings, {"max_batch_tokens": 64.5}, "must be a whole number"),
    (SmallLMSettings, {"max_batch_tokens": True}, "must be a whole number"),
    (SmallLMSettings, {"keep_4bit": "no"}, "must be true or false"),
    (SmallLMSettings, {"lora_rank": 10**7}, "must be at most 1024"),
    (LoraSettings, {"rank": 10**7}, "lora.rank = 10000000, but it must be at most 1024"),
    (LoraSettings, {"dropout": NAN}, "lora.dropout = nan, but it must be a number"),
    (EncoderSettings, {"base": ""}, "model.base is empty"),
    (EncoderSettings, {"head_learn_rate": NAN}, "must be a number"),
    (EncoderSettings, {"head_learn_rate": INFINITY}, "must be a number"),
    (EncoderSettings, {"seed": "0"}, "must be a whole number"),
    (EntityPairs, {"max_pairs": "10"}, "candidates.max_pairs = '10'"),
    (EntityPairs, {"spans_key": ""}, "candidates.spans_key is empty"),
    (HuggingFaceChat, {"base": ""}, "model.base is empty"),
    (HuggingFaceChat, {"max_new_tokens": "8"}, "model.max_new_tokens = '8'"),
    (OpenAIChat, {"name": ""}, "model.name is empty"),
    (OpenAIChat, {"name": "x", "timeout": "60"}, "model.timeout = '60', but it must be a number"),
    (OpenAIChat, {"name": "x", "timeout": NAN}, "model.timeout = nan"),
    (OpenAIChat, {"name": "x", "extra_headers": {"a": 1}}, "model.extra_headers"),
    (OpenAIChat, {"name": "x", "cache": ""}, "model.cache is empty"),
    (TuningSettings, {"lang": "nope"}, 'tune.lang = "nope" is not a language'),
]


@pytest.mark.parametrize(("kind", "values", "message"), SETTINGS)
def test_settings_of_another_type_or_out_of_range_are_refused(
    kind: Callable, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**values)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_not_the_current_folder(name: str, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_base)
    with pytest.raises(ValueError, match=r"model\.base is empty"):
        locate_base(name)


COMPONENT = [
    ({"threshold": "0.5"}, "threshold = '0.5', but it must be a number or \"auto\" or null"),
    ({"threshold": 1.5}, "is not a probability"),
    ({"candidates": "all"}, "candidates"),
    ({"temperature": "1"}, "temperature = '1', but it must be a number"),
    ({"temperature": 0}, "temperature = 0, but it must be above 0"),
    ({"label_thresholds": {"a": "0.5"}}, "label_thresholds"),
    ({"labels": ["a"], "label_thresholds": {"a": 2.0}}, r'label_thresholds\["a"\] = 2.0 is not a probability'),
    ({"batch_size": "9"}, "batch_size = '9', but it must be a whole number"),
    ({"schema": 5}, "A schema must be a list, a dict, a path or a LabelSchema, not 5"),
    ({"schema": {"labels": ["a"], "type_map": {"FIRM": ["ORG"]}}}, '"type_map" an object of names'),
    ({"schema": {"labels": ["a"], "type_map": ["ORG"]}}, '"type_map" an object of names'),
    ({"type_map": {"FIRM": ["ORG"]}}, "type_map"),
    *(({"attr": name}, f'attr="{name}" is a name of') for name in ("get", "set", "has", "class", "_x", "None")),
    ({"attr": "my_report"}, "is reserved"),
    ({"attr": "two words"}, "cannot be an attribute name"),
]


@pytest.mark.parametrize("factory", ["slm_relations", "rel_classifier"])
@pytest.mark.parametrize(("config", "message"), COMPONENT)
def test_wrong_settings_of_a_component_are_refused_when_it_is_added(
    factory: str, config: dict[str, Any], message: str
) -> None:
    name = config.get("attr", "nothing")
    before = Doc.has_extension(name)
    with pytest.raises(ValueError, match=message):
        spacy.blank("en").add_pipe(factory, config=config)
    assert Doc.has_extension(name) == before


@pytest.mark.parametrize("attr", ["get", "class", "my_report"])
def test_reserved_attributes_are_refused_for_chat_models(attr: str) -> None:
    with pytest.raises(ValueError, match=f'attr="{attr}" is'):
        RelationTask(labels=["a"], attr=attr)


@pytest.mark.parametrize("second", ["slm_relations", "rel_classifier"])
def test_two_components_cannot_write_to_one_attribute(second: str) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("slm_relations", name="one")
    with pytest.raises(ValueError, match=r'"two" and "one" both write to doc\._\.relations'):
        nlp.add_pipe(second, name="two")
    nlp.add_pipe(second, name="two", config={"attr": "others"})
    nlp.replace_pipe("one", "slm_relations")
    assert nlp.pipe_names == ["one", "two"]


SCHEMAS = {
    "json": ('{"labels": ["a"],\n "labels": ["b"]}', r"schema\.json: .*'labels' occurs more than once"),
    "nested json": ('{"labels": [{"name": "a", "types": [],\n "types": []}]}', "'types' occurs more than once"),
    "yaml": ("labels:\n- name: a\n  wording: x\n  wording: y\n", "duplicate key"),
    "not json": ("{", r"schema\.json:1: the schema file is not JSON"),
    "deep json": ("[" * 100_000, "nested too deeply"),
    "type map": ('{"labels": ["a"], "type_map": {"A": ["B"]}}', "an object of names"),
}


@pytest.mark.parametrize(("text", "message"), SCHEMAS.values(), ids=SCHEMAS)
def test_faulty_schema_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / ("schema.yaml" if message == "duplicate key" else "schema.json")
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        LabelSchema.from_file(file)
    with pytest.raises(ValueError, match=message):
        spacy.blank("en").add_pipe("slm_relations", config={"schema": str(file)}).load()


def edit(file: str, **changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        data = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**data, **changes}))

    return change


def write(file: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text(text)


CFG, MODEL = "slm_relations/cfg.json", "slm_relations/model/model.json"
SAVED = {
    **{f"{file}: {text[:9]}": (write(file, text), message)
       for file in (CFG, MODEL)
       for text, message in (("[]", "expected an object"), ("{}", "is missing"), ("{", "not JSON"),
                             ('{"a": 1, "a": 2}', "more than once"), ("[" * 100_000, "nested too deeply"))},
    "temperature": (edit(CFG, temperature=0), "temperature = 0, but it must be above 0"),
    "threshold": (edit(CFG, threshold="0.5"), "threshold = '0.5'"),
    "high threshold": (edit(CFG, threshold=3), "is not a probability"),
    "label thresholds": (edit(CFG, label_thresholds=[1]), "label_thresholds"),
    "unknown label threshold": (edit(CFG, label_thresholds={"nope": 0.5}), "unknown labels: nope"),
    "label weights": (edit(CFG, label_weights={"a": "1"}), '"a" must be'),
    "schema": (edit(CFG, schema={"labels": 5}), "A schema is an object"),
    "type map": (edit(CFG, schema={"labels": ["knows"], "type_map": {"A": ["B"]}}), "an object of names"),
    "base": (edit(MODEL, base={"name": 1, "revision": None, "fingerprint": None}), '"name" must be'),
    "style": (edit(MODEL, style={}), "'label_list' is missing"),
    "style of another type": (edit(MODEL, style=[]), '"style" must be'),
    "config syntax": (write("config.cfg", "[nlp]\nlang = 'en'\nlang = 'de'\n"), "option 'lang' in section 'nlp'"),
    "config section": (write("config.cfg", "[nlp]\nlang = 'en'\n[nlp]\n"), "section 'nlp' already exists"),
    "config language": (write("config.cfg", '[nlp]\nlang = "nope"\npipeline = []\n'), "nope"),
    "meta": (write("meta.json", "{"), "cannot be loaded"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), SAVED.values(), ids=SAVED)
def test_damaged_pipelines_are_one_clear_error(
    pipeline: str, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = shutil.copytree(pipeline, tmp_path / "pipeline")
    damage(folder)
    with pytest.raises(ValueError, match=f"(?s){tmp_path}.*{message}"):
        load_pipeline(str(folder))


def test_saved_settings_survive_without_damage(pipeline: str, tmp_path: Path) -> None:
    folder = shutil.copytree(pipeline, tmp_path / "pipeline")
    edit(CFG, temperature=1.5, threshold=0.25, label_weights={"knows": 2})(folder)
    pipe: Any = load_pipeline(str(folder)).get_pipe("slm_relations")
    assert (pipe.temperature, pipe.threshold) == (1.5, 0.25)


CONFIGS = {
    "a setting twice": ("[tune]\nlang = 'en'\nlang = 'de'\n", r"x\.cfg is not a valid config: .*\[line +3\]"),
    "a section twice": ("[tune]\nlang = 'en'\n[tune]\n", r"x\.cfg is not a valid config: .*\[line +3\]"),
    "no section": ("lang = 'en'\n", r"x\.cfg"),
    "binary": (b"\xff\xfe\0", r"x\.cfg is not a valid config: .*utf-8"),
    "a number to extend": ("[tune]\nextends = 5\n", r"x\.cfg: tune\.extends = 5"),
    "an unknown variable": ("[tune]\nlang = ${paths.lang}\n", r"x\.cfg"),
}


@pytest.mark.parametrize("read", [read_config, read_pretraining_config])
@pytest.mark.parametrize(("content", "message"), CONFIGS.values(), ids=CONFIGS)
def test_faulty_configs_of_training_are_refused(
    tmp_path: Path, content: str | bytes, message: str, read: Callable
) -> None:
    (tmp_path / "x.cfg").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TuningError, match=f"(?s){message}"):
        read(tmp_path / "x.cfg")


def test_a_config_in_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.cfg").symlink_to("x.cfg")
    with pytest.raises(TuningError, match="cannot be read: Too many levels"):
        read_config(tmp_path / "x.cfg")


@pytest.mark.parametrize("command", ["convert", "export", "tune", "init-config"])
def test_an_unknown_language_is_refused(command: str, tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps({"id": "a", "text": "Ann knows Bo.", "entities": [], "relations": []}))
    arguments = {
        "convert": [str(source), "-o", str(tmp_path / "out.spacy")],
        "export": [str(source), "-o", str(tmp_path / "out.jsonl"), "--format", "prodigy"],
        "tune": ["--data", str(source), "-o", str(tmp_path / "out")],
        "init-config": [str(source), "-o", str(tmp_path / "out.cfg")],
    }
    done = CliRunner().invoke(slmre_cli, [command, *arguments[command], "--lang", "nope"])
    assert done.exit_code == 1 and 'lang = "nope" is not a language of spaCy' in " ".join(done.output.split())
    assert sorted(tmp_path.iterdir()) == [source]


OPTIONS = [
    ({"width": "880"}, "options.width = '880', but it must be a whole number"),
    ({"width": None}, "options.width = None"),
    ({"min_score": "high"}, "options.min_score = 'high', but it must be a number"),
    ({"labels": "knows"}, "options.labels = 'knows', but it must be a list of texts"),
    ({"labels": [1]}, "options.labels"),
    ({"scores": "no"}, "options.scores"),
    ({"colors": ["red"]}, r"options.colors = \['red'\], but it must be a section"),
    ({"colors": {"PER": 5}}, "options.colors"),
    ({"max_relations": 1.5}, "options.max_relations"),
    ({"title": 5}, "options.title"),
    ({"sentences": ["all"]}, "options.sentences"),
    (["width"], "must be a dict"),
    (5, "must be a dict"),
    ("width", "must be a dict"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
@pytest.mark.parametrize("style", ["arcs", "graph"])
def test_options_of_pictures_of_another_type_are_refused(options: Any, message: str, style: str) -> None:
    doc: Doc = Language().make_doc("Ann knows Bo.")
    with pytest.raises(ValueError, match=message):
        render(doc, style, options=options)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        columns = [pyarrow.array([value]) for value in "abc"]
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=["text", "text", "other"]), file)
    else:
        mark = "," if suffix == ".csv" else "\t"
        file.write_text("\n".join(mark.join(row) for row in (["text", "text", "other"], "abc")) + "\n")
    with pytest.raises(CorpusError, match=rf"rows\{suffix}.*more than one column is named 'text'"):
        list(read_rows(file, ["text"]))
    if suffix == ".parquet":
        with pytest.raises(ExtractionError, match='more than one column is named "text"'):
            open_table(str(file), "other")
