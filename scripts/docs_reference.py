"""Generate the reference pages of the documentation site from the code (a hook of MkDocs).

Pages contain markers, which are replaced when the site is built:

- `<!-- commands -->`: help texts of all commands
- `<!-- settings: MODULE.CLASS -->`: a table of the settings in a dataclass
- `<!-- default config: FACTORY -->`: the default config of a component
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
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

    # Loading spaCy's entry points registers the commands.
    for entry_point in entry_points(group="spacy_cli"):
        if entry_point.value.startswith("spacy_slmre."):
            entry_point.load()
    group = typer.main.get_command(slmre_cli)
    text = get_docs_for_click(obj=group, ctx=typer.Context(group), name=PROGRAM)
    # The page has its own title and table of contents.
    text = text[text.index("\n## ") :]
    # Type names in angle brackets would be read as HTML outside of code.
    return re.sub(r"^(#+) `python -m spacy (.*)`$", r"\1 \2", text, flags=re.MULTILINE)


def settings_table(path: str) -> str:
    """Return a table of the settings in a dataclass: name, default and description from its docstring."""
    module, name = path.rsplit(".", 1)
    cls = getattr(importlib.import_module(module), name)
    defaults = {field.name: _default(field) for field in dataclasses.fields(cls)}
    rows = ["| setting | default | description |", "| --- | --- | --- |"]
    for section in griffe.Docstring(inspect.getdoc(cls) or "").parse("google", warnings=False):
        if section.kind is griffe.DocstringSectionKind.attributes:
            for item in section.value:
                description = " ".join(item.description.split()).replace("|", "\\|")
                rows.append(f"| `{item.name}` | {defaults[item.name]} | {description} |")
    return "\n".join(rows)


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    # Show values in the syntax of config files.
    return f"`{json.dumps(value, default=lambda value: type(value).__name__)}`"


def default_config(factory: str) -> str:
    """Return the default config of a component in the syntax of config files."""
    import spacy
    from confection import Config

    nlp = spacy.blank("en")
    meta = nlp.get_factory_meta(factory)
    config = Config({"components": {factory: {"factory": factory, **meta.default_config}}})
    return f"```ini\n{config.to_str().strip()}\n```"
