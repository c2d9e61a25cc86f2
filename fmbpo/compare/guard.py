"""Compares records of one basis; refuses others unless the user allows the difference."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs

from fmbpo.compare.attention import across_sections, in_section
from fmbpo.compare.comparison import Basis, Cell, Comparison, Record, Registered
from fmbpo.compare.contrasts import Declared
from fmbpo.compare.section import make_section
from fmbpo.errors import UserError, did_you_mean

FIELDS = tuple(field.name for field in attrs.fields(Basis))
"""Fields of a basis, by the names that ``mixing`` takes."""
TITLED = ("protocol", "conventions", "scale")
"""The fields that every section's title gives."""


def compare(
    records: Sequence[Record],
    *,
    name: str,
    mixing: Collection[str] = (),
    separate: bool = False,
    declared: Declared | None = None,
    description: str = "",
    registered: Sequence[Registered] = (),
) -> Comparison:
    """Compare records of one basis; nothing is pooled or ranked across different ones.

    ``mixing``: fields of the basis that may differ within a section, whose title and records' names
    then say so. ``separate`` puts each basis into its own section. ``declared``: the contrasts of
    the study, by name; without any, all pairs of levels are compared. ``description``: that of the
    study. ``registered``: the registered studies, whose warnings come first. Raises ``UserError``
    for differences that neither allows, unknown fields, and two runs of one cell, basis, task and
    seed.
    """
    for field in mixing:
        if field not in FIELDS:
            raise UserError(
                f"there is no {field!r} to mix",
                where="--allow-mixing",
                remedy=did_you_mean(field, FIELDS),
            )
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        kept = tuple(getattr(record.basis, f) for f in FIELDS if f not in mixing)
        groups.setdefault(kept, []).append(record)
    if len(groups) > 1 and not separate:
        raise _refusal(list(groups.values()), mixing)
    sections, attention = [], {}
    told = {*TITLED, *_differing([record.basis for record in records])}
    for group in groups.values():
        bases = [record.basis for record in group]
        mixed = [field for field in _differing(bases) if field in mixing]
        _each_once(group)
        title = _title(bases, mixed, told)
        labelled = [_labelled(record, mixed) for record in group] if mixed else group
        section = make_section(title, labelled, mixed, declared)
        sections.append(section)
        if lines := in_section(section):
            attention[title] = lines
    warnings = [line for study in registered for line in study.warnings]
    if lines := [*warnings, *across_sections(sections, declared or {})]:
        attention = {"": lines, **attention}
    return Comparison(
        name=name,
        description=description,
        sections=sections,
        attention=attention,
        registered=registered,
    )


def _differing(bases: Sequence[Basis]) -> dict[str, list[str]]:
    """The values of each field that has more than one."""
    found = {f: list(dict.fromkeys(getattr(basis, f) for basis in bases)) for f in FIELDS}
    return {field: values for field, values in found.items() if len(values) > 1}


def _refusal(groups: Sequence[Sequence[Record]], mixing: Collection[str]) -> UserError:
    """Offers mixing only if it would not combine two runs of the same cell, task and seed."""
    bases = [group[0].basis for group in groups]
    differing = {f: values for f, values in _differing(bases).items() if f not in mixing}
    fields = "; ".join(f"{field}: {' | '.join(values)}" for field, values in differing.items())
    remedy = "--separate shows them side by side without ranking them"
    places = [{(r.cell, task, seed) for r in group for task, seed, _ in r.policies}
              for group in groups]  # fmt: skip
    if len(set().union(*places)) == sum(map(len, places)):
        options = " ".join(f"--allow-mixing {field}" for field in differing)
        remedy += f"; {options} compares them anyway and says so"
    return UserError(
        f"these runs must not be ranked against each other: they differ in {fields}",
        remedy=remedy,
    )


def _each_once(records: Sequence[Record]) -> None:
    seen: dict[tuple[Cell, str, str], Record] = {}
    for record in records:
        for task, seed, _ in record.policies:
            other = seen.setdefault((record.cell, task, seed), record)
            if other is not record:
                separate = ", or give --separate instead of --allow-mixing"
                raise UserError(
                    f"two runs of {record.cell} on {task} with seed {seed}: which one counts?",
                    where=f"{other.source} and {record.source}",
                    remedy=f"leave one out{separate if other.basis != record.basis else ''}",
                )


def _title(bases: Sequence[Basis], mixed: Sequence[str], told: Collection[str]) -> str:
    """Protocol, conventions and scale, and the fields that differ between sections or are mixed."""
    parts = []
    for field in (f for f in FIELDS if f in told):
        values = dict.fromkeys(_short(getattr(basis, field)) for basis in bases)
        name = "" if field == "protocol" else f"{field} "
        parts.append(f"{name}{' | '.join(values)}")
    if mixed:
        parts.append(f"MIXED: {', '.join(mixed)}")
    return " · ".join(parts)


def _labelled(record: Record, mixed: Sequence[str]) -> Record:
    fields = ", ".join(f"{field}: {_short(getattr(record.basis, field))}" for field in mixed)
    return attrs.evolve(record, name=f"{record.name} [{fields}]")


def _short(value: str) -> str:
    """A digest by its first digits, with the text after it."""
    head, comma, rest = value.partition(",")
    return f"{head[:19]}{comma}{rest}" if head.startswith("sha256:") else value
