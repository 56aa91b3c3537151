"""Plain BERT networks compute what those of transformers compute."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertModel

from spacy_slmre.models.attention import attention_inputs
from spacy_slmre.models.encoder.bert import Bert
from spacy_slmre.models.encoder.storage import load_encoder

TEXTS = ["Ann Lee was born in Rome", "Ann has a sister Bo and works in Paris"]


def test_states_equal_those_of_transformers(tiny_encoder: Path) -> None:
    encoder, tokenizer = load_encoder(tiny_encoder)
    assert isinstance(encoder, Bert)
    expected = BertModel.from_pretrained(tiny_encoder, add_pooling_layer=False)
    assert encoder.state_dict().keys() == expected.state_dict().keys()
    encoder.eval(), expected.eval()
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    states = encoder(inputs_embeds=encoder.get_input_embeddings()(ids), attention_mask=mask).last_hidden_state
    reference = expected(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(states[mask > 0], reference[mask > 0], atol=1e-5, rtol=1e-5)


def test_packed_states_and_gradients_equal_those_of_transformers(tiny_encoder: Path) -> None:
    encoder, _ = load_encoder(tiny_encoder, dropout=0.0, packed=True)
    expected = BertModel.from_pretrained(
        tiny_encoder, add_pooling_layer=False, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    length = 12
    blocks = torch.arange(length) // 5
    mask = (blocks[:, None] == blocks) | (blocks == 0)
    words = torch.randn(1, length, encoder.config.hidden_size, generator=torch.Generator().manual_seed(0))
    positions = (torch.arange(length) % 5)[None]
    found = []
    for network, inputs in (
        (encoder, attention_inputs(mask)),
        (encoder, {"attention_mask": mask[None, None]}),
        (expected, {"attention_mask": mask[None, None]}),
    ):
        network.train().zero_grad()
        states = network(inputs_embeds=words, position_ids=positions, **inputs).last_hidden_state
        states.square().mean().backward()
        gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        found.append({"states": states.detach(), **gradients})
    torch.testing.assert_close(found[0], found[2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], found[2], atol=1e-5, rtol=1e-4)


def test_dropout_is_applied_in_training_only(tiny_encoder: Path) -> None:
    encoder, _ = load_encoder(tiny_encoder, dropout=0.5)
    inputs = {"inputs_embeds": torch.ones(1, 4, encoder.config.hidden_size), "attention_mask": torch.ones(1, 4)}
    trained = [encoder.train()(**inputs).last_hidden_state for _ in range(2)]
    scored = [encoder.eval()(**inputs).last_hidden_state for _ in range(2)]
    assert not torch.equal(*trained)
    assert torch.equal(*scored)


def test_a_model_with_heads_for_other_tasks_is_read(tiny_encoder: Path, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path)
    AutoModelForMaskedLM.from_pretrained(tiny_encoder).save_pretrained(tmp_path)
    encoder, _ = load_encoder(tmp_path)
    assert isinstance(encoder, Bert)
    torch.testing.assert_close(encoder.state_dict(), load_encoder(tiny_encoder)[0].state_dict())


@pytest.mark.parametrize("change", [{"hidden_act": "relu"}, {"num_hidden_layers": 3}])
def test_other_encoders_are_left_to_transformers(tiny_encoder: Path, tmp_path: Path, change: dict) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    if "num_hidden_layers" in change:  # whose weights are missing
        with pytest.raises(ValueError, match="do not belong to the BertModel"):
            load_encoder(folder)
        return
    encoder, _ = load_encoder(folder)
    assert type(encoder) is BertModel
