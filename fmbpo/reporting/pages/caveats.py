"""The limits of a section's answers in short; the comparison's warnings say more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from fmbpo.base.text import counted
from fmbpo.compare.comparison import (
    CLONED,
    OVERALL,
    PLANNER,
    RANDOM,
    SMALL_SCALES,
    Registered,
    Section,
)
from fmbpo.compare.failures import SHARE
from fmbpo.compare.floor import at_floor
from fmbpo.reporting.pages.content import Caveat, percent

_FEW = 4
"""Up to this number of world models of a kind, only large differences can be found."""


def caveats(section: Section, studies: Sequence[Registered] = ()) -> list[Caveat]:
    """The most general first. ``studies``: the registered ones whose answers stand beside."""
    found = (_mixed, _scale, _replicates, _failures, _missing, _health)
    registration = list(_registration(section, studies))
    floor = list(_floor(section, studies))
    return [*registration, *floor, *(caveat for one in found for caveat in one(section))]


def _mixed(section: Section) -> Iterator[Caveat]:
    if section.mixed:
        text = f"cells may differ because the runs differ in {', '.join(section.mixed)}."
        yield Caveat("Mixed", text, "warning")


def _scale(section: Section) -> Iterator[Caveat]:
    small = dict.fromkeys(b.scale for b in section.bases if b.scale in SMALL_SCALES)
    if small:
        text = "small networks and short training; at full scale the answer may differ."
        yield Caveat(f"Scale {' and '.join(small)}", text)


def _replicates(section: Section) -> Iterator[Caveat]:
    numbers = set(section.world_models.values())
    fewest = min(numbers)
    if fewest == 0:
        yield Caveat("World models", "every policy has its own, trained beside it.")
        return
    listed = " and ".join(f"{number} of {kind}" for kind, number in section.world_models.items())
    one = len(section.world_models) == 1
    if len(numbers) == 1 and not one:
        listed = f"{fewest} of each kind"
    if fewest == 1:
        yield Caveat(
            "World models",
            f"{listed}, so nothing can be said about kinds of world models.",
            "warning",
        )
    else:
        limit = "; so few find only large differences" if fewest <= _FEW else ""
        yield Caveat("World models", f"{listed}{limit}.")


def _registration(section: Section, studies: Sequence[Registered]) -> Iterator[Caveat]:
    number = sum(len(study.hypotheses) for study in studies)
    amended = sum(len(study.amendments) for study in studies)
    if number:
        what = f"{number} hypothes{'is' if number == 1 else 'es'}"
        later = f", amended {'once' if amended == 1 else f'{amended} times'}" if amended else ""
        late = ", after runs had begun" if any(s.history[0].begun for s in studies) else ""
        text = f"{what}{late}{later}; all else is exploratory."
        yield Caveat("Registered", text, "warning" if amended or late else "")
    elif section.effects and studies:
        text = "these runs are of a version of the study without registered hypotheses."
        yield Caveat("Exploratory", text, "warning")
    elif section.effects:
        yield Caveat("Exploratory", "no hypothesis was registered before the runs.")


def _floor(section: Section, studies: Sequence[Registered]) -> Iterator[Caveat]:
    """Of the registered tasks, if there are any: those that no cell learns, and means over all."""
    tasks = next((study.tasks for study in studies if study.tasks), section.tasks)
    floor = [task for task in at_floor(section.results, section.references) if task in tasks]
    if not floor:
        return
    returns: dict[str, dict[str, float]] = {}
    for result in section.results:
        returns.setdefault(str(result.cell), {})[result.task] = result.mean.value
    names = {RANDOM: "the random policy", CLONED: "behaviour cloning", PLANNER: "the planner"}
    returns |= {said: dict(section.references.get(name, {})) for name, said in names.items()}
    means = [
        f"{name} {fmean(by[task] for task in tasks):.0f}"
        for name, by in returns.items()
        if set(tasks) <= by.keys()
    ]
    text = (
        f"on {len(floor)} of {counted(len(tasks), 'task')} no cell returns much more than the "
        f"random policy, so differences hardly show there. Means over all: {', '.join(means)}."
    )
    yield Caveat("Floor", text, "warning")


def _failures(section: Section) -> Iterator[Caveat]:
    policies = sum(found.policies for found in section.failures)
    failed = sum(found.failed for found in section.failures)
    if not policies:
        return
    listed = ", ".join(f"{x.cell} {x.failed}" for x in section.failures if x.failed)
    text = f"{failed} of {policies} policies returned less than {percent(SHARE)} of the planner"
    yield Caveat("Failures", f"{text} ({listed})." if failed else f"{text}.")


def _missing(section: Section) -> Iterator[Caveat]:
    have = {(r.cell, r.task): set(r.seeds) for r in section.results if r.task != OVERALL}
    seeds = {task: set().union(*(have[key] for key in have if key[1] == task)) for _, task in have}
    missing = sum(
        len(of_all - have.get((cell, task), set()))
        for task, of_all in seeds.items()
        for cell in section.cells
    )
    if missing:
        text = f"{missing} polic{'y is' if missing == 1 else 'ies are'} missing."
        yield Caveat("Incomplete", text, "warning")


def _health(section: Section) -> Iterator[Caveat]:
    unhealthy = [len(record.health) for record in section.records if record.health]
    if unhealthy:
        runs = f"{len(unhealthy)} of {len(section.records)} runs"
        number = sum(unhealthy)
        text = f"{counted(number, 'finding')} in {runs}."
        yield Caveat("Health", text, "warning")
