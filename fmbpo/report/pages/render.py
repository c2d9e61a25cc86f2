"""From a comparison to the page as data, and from that to HTML and figure files."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from fmbpo.compare.result import Comparison, Section
from fmbpo.report.pages import effects, origins, results, training
from fmbpo.report.pages.content import Page, Part
from fmbpo.report.pages.drawing import styles
from fmbpo.report.pages.text import clean

_FOR_ALL = "About all sections"


def page(comparison: Comparison) -> Page:
    """Everything that the report says."""
    cells = styles(cell for section in comparison.sections for cell in section.cells)
    models = styles(kind for section in comparison.sections for kind in section.model_errors)
    parts = [
        _part(section, f"s{number}", cells, models)
        for number, section in enumerate(comparison.sections, 1)
    ]
    runs = sum(len(section.records) for section in comparison.sections)
    return Page(
        name=comparison.name,
        counts=f"{_count(runs, 'run')} in {_count(len(parts), 'section')}",
        attention=[
            (title or _FOR_ALL, list(notes))
            for title, notes in comparison.attention.items()
            if notes
        ],
        parts=parts,
        method=comparison.method,
    )


def html(content: Page) -> str:
    """One page that loads nothing: style, script, figures and videos are in it."""
    script = _template("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: clean(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(_template("report.html.jinja")).render(
        page=content,
        style=Markup(_template("style.css")),
        script=Markup(script),
        script_hash=digest,
    )


def picture_files(content: Page) -> dict[str, str]:
    """Each figure as a file of its own, by name, with colours of its own."""
    own = "<style>:root { color: #1c1c1a; background: #ffffff }</style>"
    return {
        f"{picture.name}.svg": re.sub("(<svg[^>]*>)", lambda m: m[0] + own, picture.svg, count=1)
        for part in content.parts
        for block in part.blocks
        for picture in block.pictures
    }


def _part(section: Section, anchor: str, cells: Any, models: Any) -> Part:
    blocks = [
        results.returns(section, anchor, cells),
        effects.effects(section, anchor),
        training.curves(section, anchor, cells),
        training.costs(section),
        training.model_errors(section, anchor, models),
        origins.health(section),
        training.videos(section),
        origins.provenance(section),
    ]
    return Part(
        title=section.title,
        anchor=anchor,
        mixed="; ".join(section.mixed),
        basis=origins.basis(section),
        verdicts=effects.verdicts(section),
        blocks=[block for block in blocks if block],
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _template(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")
