from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import spacy
import torch
from gguf import GGMLQuantizationType, quants
from spacy.language import Language
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    DogeConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SmolLM3Config,
)

from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.models.causal_lm.q4_1 import save_q4_1
from spacy_slmre.models.causal_lm.settings import ResolvedSettings, SmallLMSettings
from spacy_slmre.models.hub import PACKAGED_BASE, PACKAGED_ENCODER, packaged_encoder, packaged_folder
from spacy_slmre.models.prompts import PromptStyle

if TYPE_CHECKING:
    from selenium import webdriver

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Test machines are shared, so the time of an example is meaningless.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")
# On a busy machine, a second thread only slows down tiny networks.
ALL_THREADS = torch.get_num_threads()
torch.set_num_threads(1)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "Ann Lee was born in Rome and works for the Red Mill in Paris, where her sister Bo lives.",
    "place of birth place of death employer member of sibling spouse no relation author founded by",
    "You label the relation that a text states between two of its entities, from the head to the tail.",
    "Answer with one of these: Head: [1] Tail: [2] (PER) (LOC) (ORG) Text: 0 1 2 3 4 5 6 7 8 9",
]
ARCHITECTURES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "smollm3": SmolLM3Config, "doge": DogeConfig}


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A small byte-level BPE tokenizer with a chat template."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )


def random_network(architecture: str, vocabulary: int, seed: int = 0) -> torch.nn.Module:
    config = ARCHITECTURES[architecture](
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        # Large weights make distributions far from uniform, so that a wrong mask shows.
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def make_lm(tokenizer: PreTrainedTokenizerFast) -> Callable[..., SmallLM]:
    """Make a SmallLM around a tiny random network in float32."""

    def make(
        architecture: str = "llama", seed: int = 0, style: PromptStyle | None = None, **settings: object
    ) -> SmallLM:
        options = {"dtype": "float32", "device": "cpu", "quantization": None, **settings}
        return SmallLM(
            SmallLMSettings(**options),
            ResolvedSettings("tiny", style=style or PromptStyle()),
            network=(random_network(architecture, len(tokenizer), seed), tokenizer),
        )

    return make


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Folder of a tiny random Llama, like any local model."""
    folder = tmp_path_factory.mktemp("tiny-base")
    random_network("llama", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def round_to_q4_1(weight: torch.Tensor) -> torch.Tensor:
    """The values that Q4_1 rounds weights to."""
    kind = GGMLQuantizationType.Q4_1
    return torch.from_numpy(quants.dequantize(quants.quantize(weight.numpy(), kind), kind))


@pytest.fixture(scope="session")
def rounded(tiny_base: Path) -> PreTrainedModel:
    """The tiny model with its linear layers rounded to values of Q4_1."""
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    for module in model.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = round_to_q4_1(module.weight.data)
    return model


@pytest.fixture(scope="session")
def q4_1_base(
    rounded: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of the same model in the format of the packaged one."""
    folder = tmp_path_factory.mktemp("q4_1") / "base"
    save_q4_1(rounded, folder, torch.float32)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_model(tiny_base: Path) -> dict:
    """The model block of a config for the tiny base, in float32."""
    return {
        "@architectures": "spacy-slmre.SmallLM.v1",
        "base": str(tiny_base),
        "quantization": None,
        "dtype": "float32",
        "device": "cpu",
    }


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random BERT, like any local encoder."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(
        [*CORPUS, "@ # * ^ person location"],
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    torch.manual_seed(0)
    network = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=192,
            initializer_range=0.2,
        )
    )
    folder = tmp_path_factory.mktemp("tiny-encoder")
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_classifier(tiny_encoder: Path) -> dict:
    """The model block of a config for the tiny encoder, in float32."""
    return {
        "@architectures": "spacy-slmre.EncoderClassifier.v1",
        "base": str(tiny_encoder),
        "dtype": "float32",
        "device": "cpu",
    }


PATTERNS = [
    {"label": "PERSON", "pattern": name}
    for name in ("Ann Lee", "Bo Lee", "Marie Curie", "Pierre Curie", "Ada Byron", "Zoë 🦊")
] + [
    {"label": "GPE", "pattern": "Rome"},
    {"label": "GPE", "pattern": "Warsaw"},
    {"label": "ORG", "pattern": "Red Mill"},
]
TEXTS = [
    "Ann Lee was born in Rome. Her brother Bo Lee works for Red Mill in Warsaw.",
    "Marie Curie married Pierre Curie.",
    "Nobody is named here.",
    "",
    "Ada Byron knew Marie Curie, Pierre Curie, Ann Lee and Bo Lee of Red Mill in Rome and Warsaw.",
    "Zoë 🦊 e\u0301toile met Ann Lee in Rome.",
]


@pytest.fixture
def blank() -> Callable[[], Language]:
    """Make a pipeline with sentences and entities, but no relation component."""

    def make() -> Language:
        nlp = spacy.blank("en")
        nlp.add_pipe("sentencizer")
        nlp.add_pipe("entity_ruler").add_patterns(PATTERNS)
        return nlp

    return make


def threshold_between(scores: Sequence[float]) -> float:
    """Return a threshold above 0.5 that is equal to no score, which rounding would change."""
    ranked = sorted(score for score in scores if score > 0.51)
    gap = max(range(1, len(ranked)), key=lambda number: ranked[number] - ranked[number - 1], default=0)
    return (ranked[gap - 1] + ranked[gap]) / 2 if gap else 0.51


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Folder with a file for each of the texts."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> str:
    """A saved pipeline with a tiny random model."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("entity_ruler").add_patterns(PATTERNS)
    model = {
        "@architectures": "spacy-slmre.SmallLM.v1",
        "base": str(tiny_base),
        "quantization": None,
        "dtype": "float32",
        "device": "cpu",
    }
    nlp.add_pipe("slm_relations", config={"model": model, "labels": ["knows", "employer"], "negative_label": None})
    folder = tmp_path_factory.mktemp("pipeline")
    nlp.to_disk(folder)
    return str(folder)


def require_packaged(is_installed: bool, name: str) -> None:
    """Skip a test whose packaged model is missing; `make test` installs them, and CI requires them."""
    if not is_installed:
        message = f"{name} is not installed: python -m spacy slmre download-base"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def real_encoder() -> str:
    """The packaged all-MiniLM-L6-v2."""
    require_packaged(packaged_encoder() is not None, PACKAGED_ENCODER)
    return PACKAGED_ENCODER


@pytest.fixture
def real_base() -> Iterator[str]:
    """The packaged SmolLM2-135M."""
    require_packaged((packaged_folder() / "config.json").exists(), PACKAGED_BASE)
    torch.set_num_threads(ALL_THREADS)
    yield PACKAGED_BASE
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a window, where it is installed with its driver."""
    from selenium import webdriver

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()
