from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from spacy_slmre.evaluation.runs import Prediction

LABELS = ("born_in", "works_for", "sibling_of", "no_relation")


@pytest.fixture
def make_predictions() -> Callable[..., list[Prediction]]:
    """Make random predictions, most of which are correct."""

    def make(number: int = 60, seed: int = 0, skill: float = 0.6, scored: bool = True) -> list[Prediction]:
        # Gold labels depend only on the number, so that all systems have the same pairs.
        gold_rng, rng = random.Random(number), random.Random(seed)
        made = []
        for place in range(number):
            gold = gold_rng.choice(LABELS)
            answer = gold if rng.random() < skill else rng.choice(LABELS)
            score = round(rng.uniform(0.3, 1.0), 3)
            made.append(
                Prediction(
                    f"test-{place // 3}/{place % 3}",
                    f"test-{place // 3}",
                    "Ann met Bo.",
                    (0, 3),
                    (8, 10),
                    "PER",
                    "PER",
                    () if gold == "no_relation" else (gold,),
                    None if answer == "no_relation" else answer,
                    score if scored else None,
                    ((answer, score),) if scored else (),
                )
            )
        return made

    return make
