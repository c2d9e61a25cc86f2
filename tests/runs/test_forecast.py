"""The line that says when a stage and its run will end."""

import re

import pytest

from fmbpo.runs.forecast import AFTER, Forecast, Outlook


def said(outlook=None, start=0, deadline=None, update=2.0, evaluation=10.0, first=500.0):
    """Of 1000 iterations with an evaluation every 100: what is said, and at which iteration."""
    forecast, now = Forecast("policies", 1000, 100, start, outlook or Outlook()), 50.0
    found = []
    if start == 0 and evaluation:
        forecast.evaluated(evaluation)
        now += evaluation
    for iteration in range(start + 1, 1001):
        now += first if iteration == start + 1 else update
        if iteration % 100 == 0 and evaluation:
            forecast.evaluated(evaluation)
            now += evaluation
        limit = None if deadline is None else now + deadline
        text = forecast.updated(iteration, now, limit)
        if text:
            found.append((iteration, re.sub(r" \([\d: -]+\)", "", text)))
    return found


def test_it_is_said_once_after_the_first_updates():
    """800 updates of 2 s and 8 evaluations of 10 s; the first update, of 500 s, does not count."""
    at, text = said()[0]
    assert (at, len(said())) == (AFTER, 1)
    assert text == "policies ends in about 0:28:00, the run in about 0:28:00"


def test_a_continued_stage_is_judged_by_what_is_new():
    ((at, text),) = said(start=300)
    assert at == 500
    assert text == "policies ends in about 0:17:30, the run in about 0:17:30"


def test_what_follows_is_added():
    ((_, text),) = said(Outlook(alike=2, evaluations=6.0, seconds=7.0))
    stage, ends = 1000 * 2 + 10 * 10, 60
    whole = 1680 + ends + 2 * (stage + ends) + 7
    minutes, seconds = divmod(whole, 60)
    assert text.endswith(f"the run in about {minutes // 60}:{minutes % 60:02}:{seconds:02}")
    ((_, text),) = said(Outlook(seconds=None))
    assert text.endswith("the duration of the rest of the run is not known")


@pytest.mark.parametrize(
    ("deadline", "words"),
    [(1680.0, "this fits the time limit, 0:28:00 from now"), (1679.0, "does NOT fit")],
)
def test_a_time_limit_is_held_against_it(deadline, words):
    ((_, text),) = said(deadline=deadline)
    assert words in text


def test_evaluations_that_were_not_seen_are_not_counted():
    ((_, text),) = said(evaluation=0.0)
    assert "0:26:40" in text
    assert text.endswith("evaluations not counted")


def test_a_stage_that_is_over_by_then_says_nothing():
    assert said(start=800) == []
    assert len(said(start=799)) == 1
