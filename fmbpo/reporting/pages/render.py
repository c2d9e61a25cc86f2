"""Turns a comparison into the parts of the page, and these into HTML and figure files."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files

import jinja2
from markupsafe import Markup

from fmbpo.compare.comparison import EXPLORATORY, Comparison
from fmbpo.reporting.pages import final, gradients, registered, results, training
from fmbpo.reporting.pages.answers import origin, question
from fmbpo.reporting.pages.content import Part, Picture, clean
from fmbpo.reporting.pages.first_screen import first_screen
from fmbpo.reporting.pages.svg import styles


def parts_of(comparison: Comparison) -> list[Part]:
    """Every section's tables, pictures and sentences."""
    sections = comparison.sections
    cells = styles(cell for section in sections for cell in section.cells)
    models = styles(kind for section in sections for kind in section.model_errors)
    parts: list[Part] = []
    for number, section in enumerate(sections, 1):
        anchor = f"s{number}"
        blocks = [
            results.returns(section, anchor, cells),
            results.effects(section, anchor),
            training.curves(section, anchor, cells),
            training.costs(section, anchor, cells),
            training.model_errors(section, anchor, models),
            gradients.gradients(section, anchor, cells),
            final.reality(section),
            training.health(section),
            training.videos(section),
            training.provenance(section),
        ]
        shown = [block for block in blocks if block]
        # The hypotheses of a study are about all of its runs: they stand once, at the top.
        first = first_screen(section, anchor, cells, [] if parts else comparison.registered)
        parts.append(Part(section, anchor, first, training.basis(section), shown))
    return parts


def html(comparison: Comparison, parts: Sequence[Part]) -> str:
    """One page that loads nothing: it contains style, script, figures and videos."""
    script = _template("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: clean(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        comparison=comparison,
        registered=registered.blocks(comparison),
        exploratory="" if comparison.hypotheses else EXPLORATORY,
        parts=parts,
        question=question(comparison),
        origin=origin(comparison),
        style=Markup(_template("style.css")),
        script=Markup(script),
        script_hash=digest,
    )


def picture_files(parts: Sequence[Part]) -> dict[str, str]:
    """Each figure as an SVG file with its own colours, by file name."""
    own = "<style>:root { color: #1c1c1a; background: #ffffff }</style>"
    return {
        f"{picture.name}.svg": re.sub("(<svg[^>]*>)", lambda m: m[0] + own, picture.svg, count=1)
        for picture in pictures(parts)
    }


def pictures(parts: Sequence[Part]) -> Iterator[Picture]:
    """All figures, in the page's order."""
    yield from (picture for part in parts for picture in part.first.pictures)
    blocks = (block for part in parts for block in part.blocks)
    yield from (picture for block in blocks for picture in block.pictures)


def _template(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")
