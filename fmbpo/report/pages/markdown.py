"""The report in Markdown: the same tables and words; figures are files beside it."""

from __future__ import annotations

from collections.abc import Iterator

from fmbpo.report.pages.content import Block, Field, Page, Part, Picture, Table, Video
from fmbpo.report.pages.text import markdown


def markdown_text(page: Page, figures: str) -> str:
    """The whole text; ``figures`` is the folder of the figures, relative to it."""
    return "\n\n".join(_page(page, figures)) + "\n"


def _page(page: Page, figures: str) -> Iterator[str]:
    yield f"# {markdown(page.name)}"
    yield "\n".join([f"{page.counts}.", *map(_summary, page.parts)])
    yield "## Before you read"
    for about, notes in page.attention:
        yield f"### {markdown(about)}"
        yield "\n".join(f"* {markdown(note)}" for note in notes)
    if not page.attention:
        yield page.nothing
    for part in page.parts:
        yield from _part(part, figures)
    yield "## Method"
    yield from map(markdown, page.method)


def _summary(part: Part) -> str:
    found = []
    for one in part.verdicts:
        over = f"**{markdown(one.word)}** ({markdown(one.number)})" if one.word else ""
        words = ", ".join(filter(None, [over, markdown(one.by_task)]))
        found.append(f"{markdown(one.effect)}: {words}")
    return f"{_context(part)}: {'; '.join(found) or part.nothing}."


def _part(part: Part, figures: str) -> Iterator[str]:
    yield f"## {markdown(part.title)}"
    if part.mixed:
        yield f"**Mixed:** {markdown(part.mixed)}. {markdown(part.warning)}"
    yield _table(part.basis, part)
    for block in part.blocks:
        yield f"### {markdown(block.title)}"
        yield from _block(block, part, figures)


def _block(block: Block, part: Part, figures: str) -> Iterator[str]:
    yield from map(markdown, block.text)
    for table in block.tables:
        yield _table(table, part)
    for picture in block.pictures:
        yield _picture(picture, part, figures)
    if block.videos:
        yield "\n".join(map(_video, block.videos))


def _picture(picture: Picture, part: Part, figures: str) -> str:
    title = markdown(picture.title)
    lines = [
        f"**{title}** · {_context(part)}",
        f"![{title}]({figures}/{picture.name}.svg)",
        *([markdown(picture.description)] if picture.description else []),
        "<details><summary>Numbers</summary>",
        _table(picture.data, part),
        "</details>",
    ]
    return "\n\n".join(lines)


def _video(video: Video) -> str:
    problem = f" ({markdown(video.problem)})" if video.problem else ""
    return f"* {markdown(video.title)}: {markdown(video.file)}{problem}"


def _table(table: Table, part: Part) -> str:
    titles = [f"{c.group}: {c.title}" if c.group else c.title for c in table.columns]
    lines = [
        _line(map(markdown, titles)),
        _line("---:" if column.numeric else "---" for column in table.columns),
        *(_line(map(_field, row)) for row in table.rows),
    ]
    head = f"**{markdown(table.title)}** · {_context(part)}"
    return "\n\n".join([head, "\n".join(lines), *map(markdown, table.notes)])


def _line(entries: Iterator[str]) -> str:
    return f"| {' | '.join(entries)} |"


def _field(field: Field) -> str:
    return markdown(f"{field.text} {field.note}")


def _context(part: Part) -> str:
    mixed = f" (mixed: {markdown(part.mixed)})" if part.mixed else ""
    return f"{markdown(part.title)}{mixed}"
