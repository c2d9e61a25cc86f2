"""Registered hypotheses on the page, and what a page without any says."""

import attrs
import pytest
from synthetic import HOSTILE, imported_section

from fmbpo.compare.comparison import EXPLORATORY, Comparison, Hypothesis, Registered
from fmbpo.compare.hypotheses import RULES
from fmbpo.reporting.pages.csv_files import csv_files
from fmbpo.reporting.pages.render import html, parts_of
from fmbpo.runs.registration import Version


@pytest.fixture(scope="module")
def section():
    return imported_section()


@pytest.fixture(scope="module")
def study(section):
    effect = section.effects[0]
    hypothesis = Hypothesis(
        name=f"it helps {HOSTILE}", contrast=effect.name, expected="above", outcome="undecided",
        sentence=f"it helps {HOSTILE}: undecided.", effect=effect, p_difference=0.0551,
        p_equivalence=0.7512, development=attrs.evolve(effect),
    )  # fmt: skip
    first = Version("a" * 64, "2026-01-02T03:04:05.6+00:00", ["r"], [], [], {})
    second = Version("b" * 64, "2026-02-03T04:05:06.7+00:00", ["r"], ["r"], ["margin: 1 -> 2"], {})
    return Registered(
        study="s", hypotheses=[hypothesis], tasks=["walker-run"], rules=RULES, margin=0.03,
        development_tasks=["cup-catch"], history=[first, second],
    )  # fmt: skip


def page(section, *registered):
    made = Comparison(name="x", sections=[section], attention={}, registered=registered)
    return html(made, parts_of(made)), csv_files(made)


def test_hypotheses_come_first_with_their_history(section, study):
    text, files = page(section, study)
    before, after = text.split('<h2 id="exploratory">')
    assert "Registered hypotheses: s" in before
    for words in (
        "0.055", "0.751", "±0.03", "undecided", "walker-run", "for all hypotheses together",
        "Settings were chosen on cup-catch", "in this one world model",
        "Registered on 2026-01-02 03:04 UTC, before the first run (SHA-256 aaaaaaaaaaaa).",
        "Amended on 2026-02-03 04:05 UTC, after 1 of 1 runs of the study had begun",
        "(SHA-256 bbbbbbbbbbbb): margin: 1 -&gt; 2.",
    ):  # fmt: skip
        assert words in before
    assert all(rule.partition(": ")[0] in before for rule in RULES)
    assert HOSTILE not in text
    assert EXPLORATORY not in after
    assert "0.7512" in files["hypotheses.csv"]


def test_the_first_screen_answers_hypotheses(section, study):
    """In place of the exploratory sentence about the same contrast."""
    made = Comparison(name="x", sections=[section] * 2, attention={}, registered=[study])
    (first, second) = (part.first for part in parts_of(made))
    (answer,) = first.registered
    assert (answer.topic, answer.word, answer.tone) == (
        f"it helps {HOSTILE} (Policy: flow − mlp)", "Undecided", "open",
    )  # fmt: skip
    assert "Expected: flow ahead. Over 1 task, without those of development." in answer.text
    assert "mlp ahead on walker-stand" in answer.by_task
    assert [one.topic for one in first.answers] == ["World model: flow − mlp"]
    (hypothesis,) = study.hypotheses
    equal = attrs.evolve(hypothesis, expected="equivalent", outcome="supported")
    made = attrs.evolve(made, registered=[attrs.evolve(study, hypotheses=[equal])])
    (other,) = parts_of(made)[0].first.registered
    assert (other.word, other.tone) == ("Supported", "decided")
    assert "Expected: no difference beyond ±30." in other.text
    assert "margin of equivalence, ±30" in first.pictures[0].description
    assert first.caveats[0].text == "1 hypothesis, amended once; all else is exploratory."
    # A study's hypotheses stand once.
    assert second.registered == []
    assert "margin" not in second.pictures[0].description


def test_a_page_without_hypotheses_is_exploratory(section, study):
    text, files = page(section)
    assert EXPLORATORY in text
    assert "Registered hypotheses" not in text
    assert "hypotheses.csv" not in files
    # Runs that no registration covers, of a study that has one.
    text, _ = page(section, attrs.evolve(study, hypotheses=()))
    assert EXPLORATORY in text
    assert "Amended on 2026-02-03" in text
