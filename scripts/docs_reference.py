"""Generate the reference pages of the documentation site from the code (a hook of MkDocs).

Pages contain markers, which are replaced when the site is built:

- `<!-- commands -->`: help texts of all commands
- `<!-- settings: MODULE.CLASS -->`: a table of the settings in a dataclass
- `<!-- default config: FACTORY -->`: the default config of a component
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import griffe
import typer
from typer.cli import get_docs_for_click

PROGRAM = "python -m spacy slmre"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace the markers on a page."""
    if page.file.src_uri == "project.md":
        # `spacy project document` links to a file that is not part of the site.
        markdown = markdown.replace("[`project.yml`](project.yml)", "`project.yml`")
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", command_reference())
    markdown = re.sub(r"<!-- settings: (\S+) -->", lambda match: settings_table(match[1]), markdown)
    return re.sub(r"<!-- default config: (\S+) -->", lambda match: default_config(match[1]), markdown)


@cache
def command_reference() -> str:
    """Return the help of all commands as Markdown."""
    from spacy_slmre.cli.app import slmre_cli

    # Commands are registered by importing the modules that spaCy's entry points name.
    for entry_point in entry_points(group="spacy_cli"):
        if entry_point.value.startswith("spacy_slmre."):
            entry_point.load()
    group = typer.main.get_command(slmre_cli)
    text = get_docs_for_click(obj=group, ctx=typer.Context(group), name=PROGRAM)
    # The page has a title and a table of contents of its own.
    first = text.index("\n## ")
    text = text[first:]
    # Type names in angle brackets would be read as HTML outside of code.
    return re.sub(r"^(#+) `python -m spacy (.*)`$", r"\1 \2", text, flags=re.MULTILINE)


def settings_table(path: str) -> str:
    """Return a table of the settings in a dataclass: name, default and description from its docstring."""
    cls = _load(path)
    rows = ["| setting | default | description |", "| --- | --- | --- |"]
    assert cls.docstring is not None
    for section in cls.docstring.parse("google"):
        if section.kind is not griffe.DocstringSectionKind.attributes:
            continue
        for item in section.value:
            default = cls.members[item.name].value
            description = " ".join(item.description.split()).replace("|", "\\|")
            rows.append(f"| `{item.name}` | {_shown(default)} | {description} |")
    return "\n".join(rows)


def _load(path: str) -> griffe.Object:
    module, name = path.rsplit(".", 1)
    return griffe.load(module)[name]


def _shown(default: Any) -> str:
    if default is None:
        return ""
    text = str(default)
    if factory := re.fullmatch(r"field\(default_factory=(\w+)\)", text):
        text = {"dict": "{}", "list": "[]"}.get(factory[1], factory[1])
    # Settings are written in configs, so that values look as they do there.
    text = {"None": "null", "True": "true", "False": "false"}.get(text, text.replace("'", '"'))
    return f"`{text}`"


def default_config(factory: str) -> str:
    """Return the default config of a component as it is written in a config file."""
    import spacy
    from confection import Config

    nlp = spacy.blank("en")
    meta = nlp.get_factory_meta(factory)
    config = Config({"components": {factory: {"factory": factory, **meta.default_config}}})
    return f"```ini\n{config.to_str().strip()}\n```"
