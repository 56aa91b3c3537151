"""What several commands do with a pipeline: load it, and find its relation component."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from confection import ConfigValidationError

from spacy_slmre.cli.output import say

if TYPE_CHECKING:
    from spacy.language import Language


def load_pipeline(name: str) -> Language:
    """A pipeline package or folder, or what a config (.cfg) describes.

    Raises:
        ValueError: There is none of that name, or the config describes none.
    """
    import spacy
    from spacy import util

    if name.endswith(".cfg") and Path(name).is_file():
        try:
            return util.load_model_from_config(util.load_config(name), auto_fill=True)
        except ConfigValidationError as error:
            raise ValueError(f"{name} describes no pipeline: {error}") from error
    try:
        return spacy.load(name)
    except OSError as error:
        if Path(name).exists():
            raise ValueError(f'The pipeline in "{name}" is incomplete or damaged: {error}') from error
        raise ValueError(
            f'The pipeline "{name}" is neither an installed package nor a folder. Install it, for '
            "instance by python -m spacy download en_core_web_sm, or give the folder of a saved pipeline."
        ) from error


@dataclass(frozen=True)
class Finder:
    """The component that finds relations: its name, and where it writes them (`doc._.<attr>`)."""

    name: str
    attr: str


def ready_pipeline(name: str) -> tuple[Language, Finder]:
    """A pipeline and its last relation component, which is added where there is none; it is ready to work.

    Raises:
        ValueError: There is no pipeline of that name, or its weights cannot be had, or a key is missing.
    """
    from spacy_slmre.llm.component import make_ready, zero_shot_components
    from spacy_slmre.pipeline.relation_extractor import RelationExtractor

    nlp = load_pipeline(name)
    pipes = [(known, pipe) for known, pipe in nlp.pipeline if isinstance(pipe, RelationExtractor)]
    if not pipes and (asking := zero_shot_components(nlp)):
        known, (component, task) = list(asking.items())[-1]
        make_ready(component)
        return nlp, Finder(known, task.attr)
    if not pipes:
        say(f'"{name}" finds no relations: adding slm_relations with its defaults.')
        pipes = [("slm_relations", nlp.add_pipe("slm_relations"))]  # type: ignore[list-item]
    known, pipe = pipes[-1]
    pipe.ready()
    return nlp, Finder(known, pipe.attr)


def load_ready(name: str) -> Language:
    """A pipeline that `ready_pipeline` makes ready, for a process of its own."""
    return ready_pipeline(name)[0]


def model_name(nlp: Language, component: Finder) -> str:
    """What finds the relations, in one line: pipeline, version and component."""
    return f"{nlp.meta['lang']}_{nlp.meta['name']} {nlp.meta['version']} {component.name}"
