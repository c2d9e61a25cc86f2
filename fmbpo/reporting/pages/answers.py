"""The page's first words: the question, and one plain sentence for each effect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from fmbpo.base.text import counted, listed
from fmbpo.compare.comparison import (
    NO_VERDICT,
    OVERALL,
    UNDECIDED,
    UNIT,
    Comparison,
    Effect,
    Hypothesis,
    Registered,
    Section,
)
from fmbpo.config.factors import FACTORS, Factor
from fmbpo.reporting.pages.content import LEVEL, Answer, Tone, decimal
from fmbpo.reporting.pages.dots import OPEN, bounded, in_returns

_NAMED = 3
"""With more tasks of one verdict, they are counted and not named."""


def question(comparison: Comparison) -> str:
    """The study's own question; without one, the question that its cells can answer."""
    if asked := _asked(comparison)[1]:
        return asked
    cells = [cell for section in comparison.sections for cell in section.cells]
    changed = []
    for factor in FACTORS:
        levels = list(dict.fromkeys(getattr(cell, factor) for cell in cells))
        if len(levels) > 1:
            changed.append(f"the {_words(factor)} ({listed(levels, 'or')})")
    if changed:
        verb = "Do" if len(changed) > 1 else "Does"
        return f"{verb} {' and '.join(changed)} change the return?"
    return f"Which return does {' and '.join(map(str, dict.fromkeys(cells)))} reach?"


def origin(comparison: Comparison) -> str:
    """The names of the runs, and the part of their description that is not the question."""
    return " · ".join(filter(None, (comparison.name, _asked(comparison)[0])))


def _asked(comparison: Comparison) -> tuple[str, str]:
    """The description and the question at its end, behind a colon; either may be empty."""
    first, _, last = comparison.description.rpartition(": ")
    return (
        (first, f"{last[0].upper()}{last[1:]}")
        if last.endswith("?")
        else (comparison.description, "")
    )


def heading(effect: Effect) -> str:
    """The contrast in short: ``World model: flow − mlp``."""
    pairs = {factor: f"{a} − {b}" for factor, (a, b) in effect.levels.items()}
    if effect.kind == "interaction":
        return f"Interaction: {' × '.join(pairs.values())}"
    name = effect.label or _words(effect.kind)
    part = effect.name.rpartition(" (")[2] if effect.name.endswith(" alone)") else ""
    return f"{name[0].upper()}{name[1:]}: {pairs[effect.kind]}{f' ({part}' if part else ''}"


def by_heading(effects: Iterable[Effect]) -> dict[str, list[Effect]]:
    """The effects of each contrast, the one over all tasks first."""
    found: dict[str, list[Effect]] = {}
    for effect in effects:
        found.setdefault(heading(effect), []).append(effect)
    return {name: sorted(one, key=lambda e: e.task != OVERALL) for name, one in found.items()}


def main_contrasts(section: Section) -> dict[str, list[Effect]]:
    """The contrasts over all tasks; those by task alone if there is no other."""
    found = by_heading(section.effects)
    return {name: one for name, one in found.items() if one[0].task == OVERALL} or found


def registered_answers(section: Section, studies: Sequence[Registered]) -> list[Answer]:
    """A sentence for each registered hypothesis."""
    found = []
    for study in studies:
        for one in study.hypotheses:
            effect = one.effect
            _, text = _told(effect, section)
            basis = "" if effect.reason else f" {_basis(effect, section)}"
            text = f"{basis}: {text}. Expected: {_expected(one, study.margin)}."
            if study.development_tasks:
                text += f" Over {counted(len(study.tasks), 'task')}, without those of development."
            if effect.reason:
                text += f" No test: {effect.reason}."
            tasks = _by_task([e for e in section.effects if e.name == one.contrast])
            tone: Tone = "open" if one.outcome == UNDECIDED else "decided"
            topic = f"{one.name} ({heading(effect)})"
            found.append(Answer(topic, one.outcome.capitalize(), tone, text, tasks))
    return found


def _expected(one: Hypothesis, margin: float) -> str:
    if one.expected == "equivalent":
        return f"no difference beyond ±{UNIT * margin:g}"
    a, b = next(iter(one.effect.levels.values()))
    first = a if one.expected == "above" else b
    return f"a larger lead in {first}" if one.effect.kind == "interaction" else f"{first} ahead"


def answers(section: Section, studies: Sequence[Registered] = ()) -> list[Answer]:
    """A sentence for each contrast; interactions of which none is found share one.

    ``studies``: those whose hypotheses have sentences of their own.
    """
    told = {one.contrast for study in studies for one in study.hypotheses}
    contrasts = {n: found for n, found in main_contrasts(section).items()
                 if found[0].name not in told}  # fmt: skip
    crossed = [found for found in contrasts.values() if found[0].kind == "interaction"]
    over = [found[0] for found in crossed if found[0].task == OVERALL]
    together = len(crossed) > 1 and all(effect.verdict in OPEN for effect in over)
    found = [
        _answer(name, effects, section)
        for name, effects in contrasts.items()
        if not (together and effects[0].kind == "interaction")
    ]
    return [*found, _none_detected(crossed)] if together else found


def _answer(name: str, effects: Sequence[Effect], section: Section) -> Answer:
    effect, tasks = effects[0], _by_task(effects)
    if effect.task != OVERALL:
        return Answer(name, "No number over all tasks", "open", ": no cells share them.", tasks)
    word, text = _told(effect, section)
    if effect.reason:
        return Answer(name, "No verdict", "open", f": {text}. There is {effect.reason}.", tasks)
    comma = "," if effect.kind == "interaction" else ""
    text = f"{comma} {_basis(effect, section)}: {text}."
    return Answer(name, word, "open" if effect.verdict in OPEN else "decided", text, tasks)


def _told(effect: Effect, section: Section) -> tuple[str, str]:
    word, text = _interaction(effect) if effect.kind == "interaction" else _main(effect)
    interval = _interval(effect)
    further = [*(["of 1000"] if bounded(section.tasks) else []), *([interval] if interval else [])]
    return word, f"{text} ({'; '.join(further)})" if further else text


def _main(effect: Effect) -> tuple[str, str]:
    """The verdict, and "flow policies returned 41 more than mlp policies"."""
    a, b = next(iter(effect.levels.values()))
    value = effect.difference.value
    word = "Undecided" if effect.verdict in OPEN else f"{a if value > 0 else b} is ahead"
    size = f"{_size(effect)} {'more' if value >= 0 else 'less'}"
    if effect.kind == "policy":
        text = f"{a} policies returned {size} than {b} policies"
    else:
        text = f"policies in {a} world models returned {size} than in {b} world models"
    return word, text


def _interaction(effect: Effect) -> tuple[str, str]:
    """The verdict, and the difference between the policy's effects in both world models."""
    (a, b), (p, q) = effect.levels["world_model"], effect.levels["policy"]
    side = "higher" if effect.difference.value >= 0 else "lower"
    text = (
        f"the lead of {p} over {q} policies is {_size(effect)} {side} in {a} than in {b} world "
        "models"
    )
    if effect.verdict == NO_VERDICT:
        return "No verdict", text
    if effect.verdict == UNDECIDED:
        return "The policy's effect does not depend detectably on the world model", text
    return "The policy's effect depends on the world model", text


def _none_detected(crossed: Sequence[Sequence[Effect]]) -> Answer:
    single = [effect for found in crossed for effect in found if effect.task != OVERALL]
    number = sum(effect.verdict not in OPEN for effect in single)
    if all(found[0].verdict == NO_VERDICT for found in crossed):
        return Answer(
            "Interactions", "No verdict", "open", f": there is {crossed[0][0].reason}.", ""
        )
    word = "No policy's effect depends detectably on the world model"
    tasks = f"By task: {number} of {len(single)} detected." if single else ""
    return Answer("Interactions", word, "open", f" ({len(crossed)} interactions).", tasks)


def _basis(effect: Effect, section: Section) -> str:
    """The replicates behind a verdict, or where it holds: "with 3 world models of each kind"."""
    numbers = section.world_models
    if effect.scope:
        return effect.scope
    if effect.kind == "policy":
        found = {kind: n for kind, n in numbers.items() if _meets(effect, kind, section)}
    else:
        found = {kind: numbers[kind] for kind in effect.levels["world_model"]}
    if 0 in found.values():
        return "if every policy has its own world model"
    same = "the same " if effect.paired and effect.kind == "policy" else ""
    if len(found) > 1 and len(set(found.values())) == 1:
        return f"with {same}{next(iter(found.values()))} world models of each kind"
    return f"with {same}{' and '.join(f'{n} {kind}' for kind, n in found.items())} world models"


def _meets(effect: Effect, kind: str, section: Section) -> bool:
    """Whether a policy's effect rests on this kind: it has both policies."""
    here = {cell.policy for cell in section.cells if cell.world_model == kind}
    return set(effect.levels["policy"]) <= here


def _by_task(effects: Sequence[Effect]) -> str:
    """``By task: flow ahead on cup-catch; undecided on 28.``; empty without effects by task."""
    single = [effect for effect in effects if effect.task != OVERALL]
    if not single or (len(single) == 1 < len(effects)):  # the one task is all tasks
        return ""
    parts = []
    counts = Counter(effect.verdict for effect in single)
    for verdict, number in sorted(counts.items(), key=lambda item: item[0] in OPEN):
        named = [effect.task for effect in single if effect.verdict == verdict]
        if number == len(single):
            places = f"all {number}"
        elif number <= _NAMED and verdict not in OPEN:
            places = ", ".join(named)
        else:
            places = str(number)
        parts.append(f"{verdict} on {places}")
    return f"By task: {'; '.join(parts)}."


def _size(effect: Effect) -> str:
    return _number(abs(in_returns(effect.difference, effect.task).value), effect)


def _interval(effect: Effect) -> str:
    found = in_returns(effect.difference, effect.task)
    if found.low is None or found.high is None:
        return ""
    return f"{LEVEL} interval {_number(found.low, effect)} to {_number(found.high, effect)}"


def _number(value: float, effect: Effect) -> str:
    """Without decimals, unless the difference and its interval are small."""
    numbers = attrs.astuple(in_returns(effect.difference, effect.task))
    largest = max(abs(number) for number in numbers if number is not None)
    return decimal(value, 0 if largest >= 10 else 1)


def _words(factor: Factor | str) -> str:
    return factor.replace("_", " ")
