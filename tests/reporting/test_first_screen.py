"""The first screen: the question, a sentence for each effect, figures and caveats."""

from statistics import fmean

import attrs
import pytest
from synthetic import CELLS, comparison, imported_section, main_section

from fmbpo.compare.attention import in_section
from fmbpo.compare.comparison import OVERALL, Cell, Estimate, Registered
from fmbpo.compare.floor import at_floor
from fmbpo.reporting.pages import dots
from fmbpo.reporting.pages.answers import answers, heading, origin, question
from fmbpo.reporting.pages.caveats import caveats
from fmbpo.reporting.pages.first_screen import collapsed, first_screen
from fmbpo.reporting.pages.render import parts_of
from fmbpo.reporting.pages.svg import styles
from fmbpo.runs.registration import Version

VERSION = Version("a" * 64, "2026-01-02T03:04:05.6+00:00", ["r"], [], [], {})


@pytest.fixture(scope="module")
def section():
    return main_section()


def said(section):
    """Each contrast's sentence, by its topic, with plain spaces."""
    return {
        x.topic: f"{x.word}{x.text} {x.by_task}".replace("\N{NO-BREAK SPACE}", " ").strip()
        for x in answers(section)
    }


def with_overall(section, kind, **changes):
    """The section with another effect of a kind over all tasks."""
    effects = [
        attrs.evolve(e, **changes) if (e.kind, e.task) == (kind, OVERALL) else e
        for e in section.effects
    ]
    return attrs.evolve(section, effects=effects)


@pytest.mark.parametrize(
    ("description", "cells", "want", "first"),
    [
        ("In short: does flow help?", CELLS, "Does flow help?", "runs · In short"),
        ("Does flow help?", CELLS, "Does flow help?", "runs"),
        ("All cells", CELLS, "Do the world model (mlp or flow) and the policy (mlp or flow) change "
         "the return?", "runs · All cells"),
        ("", CELLS[:2], "Does the policy (mlp or flow) change the return?", "runs"),
        ("", [Cell(x, "p") for x in "abc"], "Does the world model (a, b or c) change the return?",
         "runs"),
        ("", CELLS[:1], "Which return does mlp × mlp reach?", "runs"),
    ],
)  # fmt: skip
def test_question(section, description, cells, want, first):
    found = attrs.evolve(
        comparison(), name="runs", description=description,
        sections=[attrs.evolve(section, cells=cells)],
    )  # fmt: skip
    assert (question(found), origin(found)) == (want, first)


@pytest.mark.parametrize(
    ("estimate", "verdict", "want"),
    [
        (Estimate(0.0412, -0.0122, 0.094), "undecided", "Undecided with 3 world models of each "
         "kind: policies in flow world models returned 41 more than in mlp world models ("
         "95 % interval −12 to 94)."),
        (Estimate(-0.0032, -0.0052, -0.0012), "mlp ahead", "mlp is ahead with 3 world models of "
         "each kind: policies in flow world models returned 3.2 less than in mlp world models ("
         "95 % interval −5.2 to −1.2)."),
    ],
)  # fmt: skip
def test_a_sentence_for_a_world_model(section, estimate, verdict, want):
    found = with_overall(section, "world_model", difference=estimate, verdict=verdict)
    assert said(found)["World model: flow − mlp"].startswith(want)


def test_only_returns_of_mt30_are_out_of_1000(section):
    """The others' largest returns are not known; the section has a task of another name."""
    found = with_overall(section, "world_model", difference=Estimate(0.041, -0.012, 0.094))
    for tasks, brackets in ((found.tasks, "(95 %"), (["walker-stand"], "(of 1000; 95 %")):
        sentence = said(attrs.evolve(found, tasks=tasks))["World model: flow − mlp"]
        assert f"41 more than in mlp world models {brackets} interval −12 to 94)." in sentence
    one = {"flow − mlp": [attrs.evolve(section.effects[0], task="pole")]}
    for effects, known in ((one, False), ({"flow − mlp": section.effects[:1]}, True)):
        svg = dots.forest("key", "title", effects, styles(effects), strip=False)
        assert ("of 1000" in svg) == known


def test_many_contrasts_of_a_single_task_keep_their_intervals(section):
    one = [effect for effect in section.effects if effect.task != OVERALL][:1]
    many = {f"contrast {i}": one for i in range(40)}
    assert not collapsed(many)
    assert collapsed(dict.fromkeys(many, one * 2))


def test_sentences_say_in_which_world_models(section):
    policy = "Policy: flow − mlp"
    assert " with the same 3 world models of each kind: flow policies" in said(section)[policy]
    unequal = attrs.evolve(section, world_models={"mlp": 3, "flow": 2})
    assert " with the same 3 mlp and 2 flow world models: " in said(unequal)[policy]
    own = attrs.evolve(section, world_models={"mlp": 0, "flow": 0})
    assert " if every policy has its own world model: " in said(own)[policy]
    imported = said(imported_section())
    assert imported[policy] == (
        "Undecided in this one world model: flow policies returned 44 less than mlp policies (of "
        "1000; 95 % interval −91 to 2). By task: mlp ahead on walker-stand; undecided on 2."
    )
    assert imported["World model: flow − mlp"] == (
        "No verdict: policies in flow world models returned 12 more than in mlp world models (of "
        "1000). There is one world model of mlp: another of its kind may differ as much."
    )


def test_sentences_for_interactions(section):
    topic, number = "Interaction: flow − mlp × flow − mlp", Estimate(0.05, -0.01, 0.11)
    found = with_overall(section, "interaction", difference=number, verdict="undecided")
    assert said(found)[topic].startswith(
        "The policy's effect does not depend detectably on the world model, with 3 world models "
        "of each kind: the lead of flow over mlp policies is 50 higher in flow than in mlp world "
        "models (95 % interval −10 to 110)."
    )
    other = with_overall(section, "interaction", difference=number, verdict="larger in flow")
    assert said(other)[topic].startswith("The policy's effect depends on the world model, with")
    # Several of which none is found share a sentence; one that is found has its own.
    more = [
        attrs.evolve(e, levels={**e.levels, "world_model": ("flow", "tied")})
        for e in found.effects if e.kind == "interaction"
    ]  # fmt: skip
    both = attrs.evolve(found, effects=[*found.effects, *more])
    assert topic not in said(both)
    assert said(both)["Interactions"].startswith(
        "No policy's effect depends detectably on the world model (2 interactions)."
    )
    some = attrs.evolve(other, world_models={"mlp": 3, "flow": 3, "tied": 3})
    some = attrs.evolve(some, effects=[*some.effects, *more])
    assert "depends on the world model" in said(some)[topic]
    assert "Interaction: flow − tied × flow − mlp" in said(some)


def test_headings(section):
    effect = next(e for e in section.effects if e.kind == "world_model")
    named = attrs.evolve(effect, label="flow matching", name=f"x ({effect.name})")
    part = attrs.evolve(effect, name=f"{effect.name} (policy mlp alone)")
    assert heading(named) == "Flow matching: flow − mlp"
    assert heading(part) == "World model: flow − mlp (policy mlp alone)"


def test_caveats(section):
    found = {x.topic: x.text.replace("\N{NO-BREAK SPACE}", " ") for x in caveats(section)}
    assert found == {
        "World models": "3 of each kind; so few find only large differences.",
        "Exploratory": "no hypothesis was registered before the runs.",
        "Failures": "1 of 23 policies returned less than 60 % of the planner (flow × flow 1).",
        "Incomplete": "1 policy is missing.",
        "Health": "1 finding in 1 of 4 runs.",
    }
    small = [attrs.evolve(section.bases[0], scale="laptop")]
    other = attrs.evolve(
        section, bases=small, mixed=["data"], world_models={"mlp": 1, "flow": 5}, effects=[]
    )
    found = {x.topic: x.text for x in caveats(other)}
    assert {"Scale laptop", "Mixed"} < found.keys()
    assert "1 of mlp and 5 of flow, so nothing can be said" in found["World models"]
    assert "Exploratory" not in found


def test_the_floor_is_a_caveat(section):
    """Of the registered tasks, if there are any."""
    random = {"random": {"reacher-easy": 31.25, "cheetah-run": 300.0, "walker-stand": 20.0}}
    low = attrs.evolve(section, references=section.references | random)
    assert at_floor(low.results, low.references) == ["cheetah-run"]
    assert "No cell learns these tasks" in "".join(in_section(low))
    found = {x.topic: x for x in caveats(low)}
    assert found["Floor"].text.startswith("on 1 of 4 tasks no cell returns much more than the ")
    assert found["Floor"].tone == "warning"
    study = Registered(study="s", tasks=["reacher-easy", "cheetah-run"], history=[VERSION])
    (floor,) = [x for x in caveats(low, [study]) if x.topic == "Floor"]
    assert "on 1 of 2 tasks" in floor.text
    assert "the random policy 166, behaviour cloning 322, the planner 766." in floor.text
    over = fmean(
        result.mean.value for result in section.results
        if result.cell == CELLS[0] and result.task in study.tasks
    )  # fmt: skip
    assert f"{CELLS[0]} {over:.0f}," in floor.text
    learned = attrs.evolve(study, tasks=["reacher-easy"])
    assert "Floor" not in {x.topic for x in caveats(low, [learned])}


def test_differences_of_many_rows_are_side_by_side(section):
    """Then each contrast has its own figure further down."""
    names = {f"task {n}": n for n in range(12)}
    (task, *_), effects = section.tasks, [e for e in section.effects if e.task == OVERALL]
    effects += [
        attrs.evolve(e, task=name) for e in section.effects if e.task == task for name in names
    ]
    many = attrs.evolve(
        section, effects=effects, results=[], profiles=[], model_errors={},
        records=[attrs.evolve(record, curves={}) for record in section.records],
    )  # fmt: skip
    (part,) = parts_of(attrs.evolve(comparison(), sections=[many]))
    first = part.first
    assert "single tasks" in first.pictures[0].svg
    assert "task 3" not in first.pictures[0].svg
    assert len(first.pictures[0].data.rows) == 3 * 13
    block = next(block for block in part.blocks if block.title == "Effects")
    assert [picture.title for picture in block.pictures] == [x.topic for x in first.answers]
    assert all("task 3" in picture.svg for picture in block.pictures)


def test_returns_are_beside_their_references(section):
    section = attrs.evolve(section, effects=[])
    first = first_screen(section, "s1", styles(CELLS))
    drawn = first.pictures[0].svg
    for words in (
        "planner",
        "random",
        "cloned",
        "PWM, published",
        "TD-MPC2, published",
        "all tasks",
    ):
        assert words in drawn
    bare = attrs.evolve(section, references={})
    assert "planner" not in first_screen(bare, "s1", styles(CELLS)).pictures[0].svg
    assert first.facts.endswith(" · 4 tasks · 47 policies in 6 world models")


def test_a_difference_on_the_only_task_is_drawn_once(section):
    (task, *_) = section.tasks
    one = attrs.evolve(section, effects=[e for e in section.effects if e.task in (OVERALL, task)])
    drawn = first_screen(one, "s1", styles(CELLS)).pictures[0]
    assert task in drawn.svg
    assert drawn.svg.count("all tasks") == 1  # in the description
    assert len(drawn.data.rows) == len(section.effects) // (1 + len(section.tasks))
