"""Colours of entity types and relation labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from spacy import registry
from spacy.displacy.render import DEFAULT_ENTITY_COLOR, DEFAULT_LABEL_COLORS

from spacy_slmre.visual.options import is_color

# Types of relation corpora that displaCy has no colour for.
_CORPUS_COLORS = {"PER": "#aa9cfc", "MISC": "#c887fb", "WORK": "#f0d0ff"}

# Told apart in this order, by people with reduced colour vision too as far as hues can; the rest follow by
# the golden angle.
_HUES = (212, 28, 150, 285, 340, 188, 50, 250, 95, 5)


def corpus_colors() -> dict[str, str]:
    """Announced as `spacy_displacy_colors`: colours of types that displaCy has none for."""
    return dict(_CORPUS_COLORS)


def entity_colors(colors: Mapping[str, str]) -> dict[str, str]:
    """CSS colours by entity type, in upper case: displaCy's, those of other packages, and the given ones."""
    found = dict(DEFAULT_LABEL_COLORS)
    for registered in registry.displacy_colors.get_all().values():
        more = registered() if callable(registered) else registered
        # What is no plain colour (displaCy takes gradients) cannot fill a shape of an SVG.
        found.update({name: color for name, color in more.items() if is_color(color)})
    found.update(colors)
    return {name.upper(): color for name, color in found.items()}


def color_of(type: str, colors: Mapping[str, str]) -> str:
    """The colour of an entity type."""
    return colors.get(type.upper(), DEFAULT_ENTITY_COLOR)


def relation_styles(labels: Iterable[str], colors: Mapping[str, str]) -> dict[str, str]:
    """The style attribute of each label, most frequent first: a hue of its own, or the colour it was given.

    Args:
        labels: The labels of all relations.
        colors: Colours by name in upper case.
    """
    styles = {}
    for number, (label, _) in enumerate(Counter(labels).most_common()):
        given = colors.get(label.upper())
        hue = _HUES[number] if number < len(_HUES) else round(number * 137.508) % 360
        styles[label] = f"--relation: {given}" if given else f"--hue: {hue}"
    return styles
