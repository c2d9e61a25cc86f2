"""Registered hypotheses as readers see them: verdicts, history of the registration, its rules."""

from __future__ import annotations

from fmbpo.compare.comparison import Comparison, Hypothesis, Registered
from fmbpo.reporting.pages.content import LEVEL, Block, Column, Field, Table, Tone, words


def blocks(comparison: Comparison) -> list[Block]:
    """A block for each registered study; the sections after it are exploratory."""
    return [_block(study) for study in comparison.registered]


def _block(study: Registered) -> Block:
    first, *later = study.history
    history = [f"{first.sentence('Registered')}."]
    for version in later:
        history.append(f"{version.sentence('Amended')}: {'; '.join(version.changes)}.")
    text = [one.sentence for one in study.hypotheses]
    tables = [_table(study), _rules(study)] if study.hypotheses else []
    title = f"Registered hypotheses: {study.study}"
    return Block(title=title, text=[*text, *history], tables=tables)


def _table(study: Registered) -> Table:
    columns: list[Column[Hypothesis]] = [
        words("hypothesis", lambda one: one.name),
        words("contrast", lambda one: one.contrast),
        words("expected", lambda one: one.expected),
        Column("difference", lambda one: Field.estimate(one.effect.difference, 3)),
        Column("p, difference", lambda one: Field.number(one.p_difference, 3)),
        Column("p, equivalence", lambda one: Field.number(one.p_equivalence, 3)),
        Column("verdict", _verdict, numeric=False),
    ]
    notes = [
        f"Returns divided by 1000, over {', '.join(study.tasks)}. In brackets: {LEVEL} intervals. "
        f"Margin: ±{study.margin:g}. p values are corrected for all hypotheses together."
    ]
    if any(one.development for one in study.hypotheses):
        columns.append(Column("development tasks", _development))
        notes.append(
            f"Settings were chosen on {', '.join(study.development_tasks)}: no part of the verdict."
        )
    return Table("Hypotheses", columns, study.hypotheses, notes)


def _verdict(one: Hypothesis) -> Field:
    tone: Tone = "open" if one.outcome == "undecided" else "decided"
    return Field(one.outcome, note=one.effect.note, tone=tone)


def _development(one: Hypothesis) -> Field:
    return Field.estimate(one.development.difference if one.development else None, 3)


def _rules(study: Registered) -> Table:
    columns: list[Column[str]] = [
        words("rule", lambda rule: rule.partition(": ")[0]),
        words("as registered", lambda rule: rule.partition(": ")[2]),
    ]
    return Table("How verdicts are reached", columns, study.rules, sortable=False)
