from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from spacy_slmre.models.causal_lm.adapter import PACKAGED_ADAPTER
from spacy_slmre.models.hub import packaged_folder
from spacy_slmre.models.prompts import PromptBuilder
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import all_benchmarks
from spacy_slmre.training.config import SHIPPED_CONFIGS, TuningError, read_config, resolve_config
from tests.training.conftest import ROOT

OWN = [path for path in (ROOT / "configs" / "tune").glob("*.cfg") if path.stem != "grid"]
CONFIGS = sorted([*OWN, *SHIPPED_CONFIGS.glob("*.cfg")])
SHIPPED = PACKAGED_ADAPTER / "tune.cfg"


@pytest.mark.parametrize("path", [*CONFIGS, SHIPPED], ids=lambda path: path.stem)
def test_shipped_configs_resolve(path: Path) -> None:
    config = resolve_config(read_config(path), path.name)
    # The config that is written to the output is complete.
    assert "extends" not in config.text and "${" not in read_config(path).interpolate().to_str()


def test_configs_have_the_settings_of_the_study() -> None:
    sizes = {}
    for name in ("smollm2-360m", "qwen2.5-0.5b", "smollm3-3b", "qwen2.5-3b", "llama3.2-3b"):
        config = resolve_config(read_config(Path(f"{name}.cfg")), name)
        training = config.training
        assert (training.learning_rate, training.num_train_epochs, training.warmup_ratio) == (1e-4, 2, 0.03)
        assert (training.weight_decay, training.seed, config.lora.dropout) == (0.01, 42, 0.05)
        assert config.model.settings.quantization == "nf4"
        sizes[name] = (config.lora.rank, config.lora.alpha)
    assert list(sizes.values()) == [(16, 32), (32, 64), (64, 128), (64, 128), (64, 128)]


@pytest.mark.slow
def test_every_label_list_leaves_room_for_texts(real_base: str) -> None:
    # Other models have larger vocabularies than SmolLM2 and need fewer tokens.
    tokenizer = AutoTokenizer.from_pretrained(packaged_folder())
    for path in CONFIGS:
        if path.stem in ("demo", "universal"):
            continue
        config = resolve_config(read_config(path), path.name)
        prompts = PromptBuilder(tokenizer, config.model.style)
        for card in all_benchmarks().values():
            if card.schema is not None:
                prefix = len(prompts.prefix(card.schema))
                # Two few-shot examples take about 150 tokens, a text with its pairs as many.
                assert prefix + 150 + 150 <= config.training.max_tokens, (path.name, card.name)


def test_regime_and_shots_can_be_overridden() -> None:
    path = Path("qwen2.5-3b.cfg")
    config = read_config(path, {"tune.regime": "littune", "tune.shots": 0}).interpolate()
    assert config["corpora"]["train"]["manifest"] == "data/corpora/littune.json"
    assert resolve_config(read_config(path, {"tune.shots": 0}), "x").tune.shots == 0


def test_a_config_inherits_settings_from_the_config_that_it_extends(tmp_path: Path, config_file: Path) -> None:
    file = tmp_path / "more.cfg"
    file.write_text('[tune]\nextends = "tiny.cfg"\n\n[lora]\nrank = 2\n')
    config = resolve_config(read_config(file), "more")
    assert (config.lora.rank, config.lora.alpha, config.training.max_steps) == (2, 8, 4)
    file.write_text('[tune]\nextends = "more.cfg"\n')
    with pytest.raises(TuningError, match="extends itself"):
        read_config(file)


def test_a_config_extends_a_shipped_one_unless_there_is_a_file_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "own.cfg"
    file.write_text('[tune]\nextends = "smollm2-135m.cfg"\n\n[lora]\nrank = 2\n')
    config = resolve_config(read_config(file), "own")
    assert (config.lora.rank, config.lora.alpha, config.model.settings.base) == (2, 32, "smollm2-135m-instruct")
    (tmp_path / "smollm2-135m.cfg").write_text('[tune]\nextends = "study.cfg"\n\n[lora]\nalpha = 7\n')
    config = resolve_config(read_config(file), "own")
    assert (config.lora.rank, config.lora.alpha) == (2, 7)
    file.write_text('[tune]\nextends = "gone.cfg"\n')
    with pytest.raises(TuningError, match=r"gone\.cfg cannot be read: .* Shipped configs: llama3\.2-3b\.cfg, .*study"):
        read_config(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.max_steps": "many"}, r"training\.max_steps = 'many'"),
        ({"training.max_steps": 0}, r"training\.max_steps = 0, but it must be at least 1, or -1"),
        ({"training.warmup_ratio": 2}, r"training\.warmup_ratio = 2"),
        ({"training.objective": "mlm"}, r'training\.objective = "mlm"'),
        ({"training.max_tokens": 1}, r"training\.max_tokens = 1"),
        ({"training.num_train_epochs": 0}, r"training\.num_train_epochs = 0"),
        ({"training.lr_scheduler_type": "steep"}, r'training\.lr_scheduler_type = "steep"'),
        ({"training.adapter_dtype": "int8"}, r'training\.adapter_dtype = "int8"'),
        ({"training.optim": "adam"}, r'training\.optim = "adam".*adamw_torch'),
        ({"training.report_to": ["nothing"]}, r"training\.report_to.*nothing is not supported"),
        ({"lora.rank": 0}, r"lora\.rank = 0"),
        ({"lora.init_lora": "random"}, r'lora\.init_lora = "random"'),
        ({"tune.schema": "none.json"}, r"tune\.schema: .*none\.json"),
        ({"tune.shots": -1}, r"tune\.shots = -1"),
        ({"training.speed": 1}, r"speed"),
        ({"corpora.dev.path": None}, r"corpora\.dev\.path is null"),
        ({"corpora.train.limit": -1}, r"limit = -1"),
    ],
)
def test_wrong_values_are_named(resolve, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(changes)


def test_invalid_configs_are_errors(tmp_path: Path, config_file: Path) -> None:
    text = config_file.read_text()
    for change, message in (
        (text.replace("[lora]\nrank", "[lora]\nranks"), r"lora\.ranks"),
        (text + "\n[optimizer]\n", "unknown sections: optimizer"),
        (text.partition("[corpora.dev]")[0], r"no section \[corpora\.dev\]"),
        (text.replace("SmallLM.v1", "LargeLM.v1"), "LargeLM"),
        ("nonsense", "nonsense|section"),
    ):
        file = tmp_path / "bad.cfg"
        file.write_text(change)
        with pytest.raises(TuningError, match=message):
            resolve_config(read_config(file), "bad.cfg")
    with pytest.raises(TuningError, match=r"none\.cfg cannot be read"):
        read_config(tmp_path / "none.cfg")


def test_a_schema_is_a_path_a_list_a_dict_or_a_registered_function(resolve, tmp_path: Path) -> None:
    labels = ["employer", "place of birth"]
    expected = LabelSchema.from_labels(labels)
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(expected.to_dict()))
    for schema in (labels, expected.to_dict(), str(file)):
        assert resolve({"tune.schema": schema}).schema == expected
    assert resolve({"tune.schema": {"@misc": "spacy-slmre.GeneralSchema.v1"}}).schema == LabelSchema.general()
    assert resolve().schema is None
