"""What is said of effects: verdicts in words, tables, forest plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from fmbpo.compare.result import OVERALL, Effect, Estimate, Section
from fmbpo.report.pages import figures
from fmbpo.report.pages.content import (
    LEVEL,
    Block,
    Column,
    Field,
    Picture,
    Table,
    Tone,
    Verdict,
    decimal,
    interval,
)
from fmbpo.report.pages.drawing import styles
from fmbpo.report.table import NONE

UNDECIDED = "no decision"
"""The verdict where an interval holds 0."""


def effects(section: Section, name: str) -> Block | None:
    """Tables over all tasks and by task, and a forest plot for each effect; None without any."""
    if not section.effects:
        return None
    overall = [effect for effect in section.effects if effect.task == OVERALL]
    single = [effect for effect in section.effects if effect.task != OVERALL]
    tables = []
    if overall:
        tables.append(_table("Effects over all tasks, returns divided by 1000", overall, 3))
    if single:
        tables.append(_table("Effects by task, in returns", single, 1))
    names = list(dict.fromkeys(effect.name for effect in section.effects))
    style = styles(names)
    pictures = []
    for number, one in enumerate(names, 1):
        found = [effect for effect in overall + single if effect.name == one]
        key = f"{name}-effect-{number}"
        shown = {effect.task: _per_thousand(effect) for effect in found}
        svg = figures.forest(key, one, shown, style[one])
        pictures.append(Picture(key, one, _sentence(found), svg, _shown(one, shown)))
    text = [
        f"A difference above 0 favours what is named first. The verdict follows from its {LEVEL} "
        "interval alone; where the interval holds 0 there is no decision. P(better) is the "
        "probability that the one named first is better on a task and seed drawn at random; at "
        "0.5 there is no difference."
    ]
    return Block(title="Effects", text=text, tables=tables, pictures=pictures)


def verdicts(section: Section) -> list[Verdict]:
    """Every effect in words: over all tasks, and on how many tasks what was found."""
    found = []
    for name in dict.fromkeys(effect.name for effect in section.effects):
        effects = [effect for effect in section.effects if effect.name == name]
        over = next((effect for effect in effects if effect.task == OVERALL), None)
        by_task = _by_task(effects)
        if over is None:
            found.append(Verdict(name, "", "", "", by_task))
            continue
        number = f"{decimal(over.difference.value, 3)} {interval(over.difference, 3)}".rstrip()
        found.append(Verdict(name, over.verdict, tone(over.verdict), number, by_task))
    return found


def tone(verdict: str) -> Tone:
    """How a verdict's word is marked."""
    return "open" if verdict == UNDECIDED else "decided"


def _table(title: str, effects: Sequence[Effect], digits: int) -> Table:
    columns = [
        *(Column(title, numeric=False) for title in ("effect", "task")),
        *(Column(title) for title in ("difference", "P(better)")),
        *(Column(title, numeric=False) for title in ("paired", "verdict")),
    ]
    rows = [
        [
            Field(effect.name),
            Field(effect.task or figures.ALL_TASKS),
            Field.estimate(effect.difference, digits),
            Field.estimate(effect.improvement, 2),
            Field("yes" if effect.paired else "no"),
            Field(effect.verdict, tone=tone(effect.verdict)),
        ]
        for effect in effects
    ]
    notes = [f"In brackets: {LEVEL} intervals. Paired: by task and seed."]
    if any(effect.improvement is None for effect in effects):
        notes.append(f"{NONE}: an interaction has no such probability.")
    return Table(title, columns, rows, notes)


def _per_thousand(effect: Effect) -> Estimate:
    """The difference of returns / 1000, the unit in which tasks stand beside their mean."""
    unit = 1.0 if effect.task == OVERALL else 1000.0
    found = effect.difference
    low, high = (None if end is None else end / unit for end in (found.low, found.high))
    return Estimate(found.value / unit, low, high)


def _shown(title: str, differences: Mapping[str, Estimate]) -> Table:
    """The numbers of a forest plot."""
    columns = [Column("task", numeric=False), *map(Column, ("difference / 1000", "low", "high"))]
    rows = [
        [
            Field(task or figures.ALL_TASKS),
            *(Field.number(x, 3) for x in (found.value, found.low, found.high)),
        ]
        for task, found in differences.items()
    ]
    return Table(f"{title}: differences divided by 1000", columns, rows)


def _sentence(effects: Sequence[Effect]) -> str:
    parts = [f"{effect.verdict} over all tasks" for effect in effects if effect.task == OVERALL]
    return f"{'; '.join(filter(None, [*parts, _by_task(effects)]))}."


def _by_task(effects: Sequence[Effect]) -> str:
    """``by task: this ahead on 2, no decision on 28``; empty without effects by task."""
    counts = Counter(effect.verdict for effect in effects if effect.task != OVERALL)
    parts = [f"{word} on {n}" for word, n in counts.most_common()]
    return f"by task: {', '.join(parts)}" if parts else ""
