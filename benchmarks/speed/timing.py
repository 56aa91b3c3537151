"""Timing functions in alternating rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rich.console import Console

console = Console(stderr=True)


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each function by round, after a warm-up; every other round is in reverse order."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in alternated(list(ways), number):
            started = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def alternated(names: Sequence[str], number: int) -> Sequence[str]:
    """Return the order of a round: every other one is reversed."""
    return names if number % 2 == 0 else names[::-1]


def ratios(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return ratios by round, because the machine's speed may drift."""
    return [a / b for a, b in zip(one, other, strict=True)]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(statistics.median(values))


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Fit b of cost = a · size^b on logarithms: 1 is linear, 0 is constant."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
