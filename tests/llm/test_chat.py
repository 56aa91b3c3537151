from __future__ import annotations

import pickle

from spacy_slmre.instances import RelationInstance
from spacy_slmre.llm.chat import ChatPrompt, Unanswered, chat_prompts, estimate_tokens
from spacy_slmre.models.prompts import PromptStyle, PromptTexts
from spacy_slmre.schema import LabelSchema

SCHEMA = LabelSchema.from_dict(
    {
        "labels": [
            {"name": "per:city_of_birth", "wording": "city of birth", "definition": "the head was born in the tail"},
            {"name": "P108", "wording": "employer"},
            {"name": "Entity", "wording": "entity"},
            {"name": "ENTITY", "wording": "whole"},
            {"name": "no_relation", "wording": "no relation"},
        ]
    }
)
INSTANCE = RelationInstance.from_offsets("Ann was born in Rome.", (0, 3, "PER"), (16, 20, "LOC"))


def test_prompt_has_the_label_list_in_the_system_message() -> None:
    shown = RelationInstance.from_offsets("Bo works for Acme", (0, 2, "PER"), (13, 17, ""), "P108").to_dict()
    (prompt,) = chat_prompts(PromptTexts(PromptStyle(examples=(shown,))), [INSTANCE], SCHEMA)
    system, question, answer, last = prompt.messages
    assert system["role"] == "system"
    assert "- city of birth: the head was born in the tail\n- employer\n" in system["content"]
    assert (question["role"], answer) == ("user", {"role": "assistant", "content": "employer"})
    assert last == {"role": "user", "content": "Text: [1 Ann] was born in [2 Rome].\nAnn (PER) to Rome (LOC):"}
    assert prompt.startswith(system["content"]) and prompt.endswith(last["content"])


def test_generic_prompt_lists_no_labels() -> None:
    (prompt,) = chat_prompts(PromptTexts(PromptStyle(label_list=False)), [INSTANCE], SCHEMA)
    assert "employer" not in prompt and "name of the relation and nothing else" in prompt


def test_prompts_and_missing_answers_can_be_pickled() -> None:
    (prompt,) = chat_prompts(PromptTexts(PromptStyle()), [INSTANCE], SCHEMA)
    copy = pickle.loads(pickle.dumps(prompt))
    assert copy == prompt and copy.messages == prompt.messages
    missing = pickle.loads(pickle.dumps(Unanswered("too slow")))
    assert (missing, missing.reason) == ("", "too slow")
    assert ChatPrompt.from_any("plain").messages == ({"role": "user", "content": "plain"},)


def test_tokens_are_estimated_from_bytes() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("abcde") == 2
    assert estimate_tokens("關係抽取") == 3
    assert estimate_tokens("\ud800") == 1  # a lone surrogate, as in broken files
