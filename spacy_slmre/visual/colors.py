"""Colors of entity types and relation labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from spacy import registry
from spacy.displacy.render import DEFAULT_ENTITY_COLOR, DEFAULT_LABEL_COLORS

from spacy_slmre.visual.options import is_color

# Entity types of relation corpora for which displaCy has no color.
_CORPUS_COLORS = {"PER": "#aa9cfc", "MISC": "#c887fb", "WORK": "#f0d0ff"}

# These hues are easy to distinguish, also with color vision deficiency; further ones are spaced by the golden angle.
_HUES = (212, 28, 150, 285, 340, 188, 50, 250, 95, 5)


def corpus_colors() -> dict[str, str]:
    """Return colors for displaCy (entry point `spacy_displacy_colors`)."""
    return dict(_CORPUS_COLORS)


def entity_colors(colors: Mapping[str, str]) -> dict[str, str]:
    """Return CSS colors by upper-case entity type, from displaCy, other packages and `colors`."""
    known = dict(DEFAULT_LABEL_COLORS)
    for registered in registry.displacy_colors.get_all().values():
        more = registered() if callable(registered) else registered
        # displaCy also accepts gradients, which cannot fill SVG shapes.
        known |= {name: color for name, color in more.items() if is_color(color)}
    return {name.upper(): color for name, color in {**known, **colors}.items()}


def color_of(type: str, colors: Mapping[str, str]) -> str:
    """Return the color of an entity type."""
    return colors.get(type.upper(), DEFAULT_ENTITY_COLOR)


def relation_styles(labels: Iterable[str], colors: Mapping[str, str]) -> dict[str, str]:
    """Return a style attribute for each label, most frequent first: the given color, or a distinct hue."""
    given = {name.upper(): color for name, color in colors.items()}
    styles = {}
    for number, (label, _) in enumerate(Counter(labels).most_common()):
        color = given.get(label.upper())
        hue = _HUES[number] if number < len(_HUES) else round(number * 137.508) % 360
        styles[label] = f"--relation: {color}" if color else f"--hue: {hue}"
    return styles
