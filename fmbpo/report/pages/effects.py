"""The effects as readers see them: verdicts in words, tables, forest plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from fmbpo.base.text import NONE
from fmbpo.compare.comparison import OVERALL, UNDECIDED, Effect, Estimate, Section
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
    words,
)
from fmbpo.report.pages.figures import styles


def effects(section: Section, name: str) -> Block | None:
    """Tables over all tasks and by task, and a forest plot for each effect; None without any."""
    by_name = _by_name(section)
    if not by_name:
        return None
    overall = [effect for effect in section.effects if effect.task == OVERALL]
    single = [effect for effect in section.effects if effect.task != OVERALL]
    tables = [
        _table(title, found, digits)
        for title, found, digits in (
            ("Effects over all tasks, returns divided by 1000", overall, 3),
            ("Effects by task, in returns", single, 1),
        )
        if found
    ]
    pictures = []
    for number, (one, style) in enumerate(styles(by_name).items(), 1):
        # The row over all tasks stands on top.
        found = sorted(by_name[one], key=lambda effect: effect.task != OVERALL)
        key = f"{name}-effect-{number}"
        shown = {effect.task: _per_thousand(effect) for effect in found}
        svg = figures.forest(key, one, shown, style)
        pictures.append(Picture(key, one, _sentence(found), svg, _numbers(one, shown)))
    text = [
        f"A difference above 0 favours the level named first. The verdict follows from the {LEVEL} "
        "interval alone: if the interval contains 0, there is no decision. P(better) is the "
        "probability that the level named first is better on a task and seed drawn at random; 0.5 "
        "means no difference."
    ]
    return Block(title="Effects", text=text, tables=tables, pictures=pictures)


def verdicts(section: Section) -> list[Verdict]:
    """Every effect in words: over all tasks, and how many tasks have which verdict."""
    verdicts = []
    for name, found in _by_name(section).items():
        over = next((effect for effect in found if effect.task == OVERALL), None)
        by_task = _by_task(found)
        if over is None:
            verdicts.append(Verdict(name, "", "", "", by_task))
            continue
        number = f"{decimal(over.difference.value, 3)} {interval(over.difference, 3)}".rstrip()
        verdicts.append(Verdict(name, over.verdict, _tone(over.verdict), number, by_task))
    return verdicts


def _by_name(section: Section) -> dict[str, list[Effect]]:
    found: dict[str, list[Effect]] = {}
    for effect in section.effects:
        found.setdefault(effect.name, []).append(effect)
    return found


def _tone(verdict: str) -> Tone:
    return "open" if verdict == UNDECIDED else "decided"


def _table(title: str, effects: Sequence[Effect], digits: int) -> Table:
    columns: list[Column[Effect]] = [
        words("effect", lambda effect: effect.name),
        words("task", lambda effect: effect.task or figures.ALL_TASKS),
        Column("difference", lambda effect: Field.estimate(effect.difference, digits)),
        Column("P(better)", lambda effect: Field.estimate(effect.improvement, 2)),
        words("paired", lambda effect: "yes" if effect.paired else "no"),
        Column("verdict", lambda e: Field(e.verdict, tone=_tone(e.verdict)), numeric=False),
    ]
    notes = [f"In brackets: {LEVEL} intervals. Paired: by task and seed."]
    if any(effect.improvement is None for effect in effects):
        notes.append(f"{NONE}: an interaction has no such probability.")
    return Table.of(title, columns, effects, notes)


def _per_thousand(effect: Effect) -> Estimate:
    """The difference of returns / 1000, so that tasks and their mean share an axis."""
    unit = 1.0 if effect.task == OVERALL else 1000.0
    found = effect.difference
    low, high = (None if end is None else end / unit for end in (found.low, found.high))
    return Estimate(found.value / unit, low, high)


def _numbers(title: str, differences: Mapping[str, Estimate]) -> Table:
    """The numbers of a forest plot."""
    columns: list[Column[tuple[str, Estimate]]] = [
        words("task", lambda row: row[0] or figures.ALL_TASKS),
        Column("difference / 1000", lambda row: Field.number(row[1].value, 3)),
        Column("low", lambda row: Field.number(row[1].low, 3)),
        Column("high", lambda row: Field.number(row[1].high, 3)),
    ]
    return Table.of(f"{title}: differences divided by 1000", columns, differences.items())


def _sentence(effects: Sequence[Effect]) -> str:
    parts = [f"{effect.verdict} over all tasks" for effect in effects if effect.task == OVERALL]
    return f"{'; '.join(filter(None, [*parts, _by_task(effects)]))}."


def _by_task(effects: Sequence[Effect]) -> str:
    """``by task: flow ahead on 2, no decision on 28``; empty without effects by task."""
    counts = Counter(effect.verdict for effect in effects if effect.task != OVERALL)
    parts = [f"{word} on {n}" for word, n in counts.most_common()]
    return f"by task: {', '.join(parts)}" if parts else ""
