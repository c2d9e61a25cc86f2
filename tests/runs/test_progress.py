import io

import pytest

from fmbpo.base.metrics import Row
from fmbpo.base.text import clock, speed
from fmbpo.runs.progress import ProgressDisplay
from fmbpo.runs.sinks import MetricSinks


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def run(stream, live, main=()):
    now = Clock()
    with MetricSinks([ProgressDisplay(stream=stream, live=live, now=now, main=main)]) as sinks:
        sinks.begin("policy/walker-stand [42] :bug:", 20, 100)
        now.now += 60
        values = {"loss": 0.123456, "return": 512.25, "host/s": 3.0, "note": "ok"}
        sinks.log("policy/walker-stand [42] :bug:", 50, [Row({"loss": 9.0}, "a-b", 1), Row(values)])
        sinks.event("evaluated", {"mean": 3})
        sinks.event("host/saved")
        sinks.event("WARNING", {"text": "too good", "by": 2})


def test_plain_lines():
    stream = io.StringIO()
    run(stream, None)
    assert stream.getvalue().splitlines() == [
        "policy/walker-stand [42] :bug:: continues at 20, 100 iterations",
        "policy/walker-stand [42] :bug:  50/100 (50 %)  loss 0.1235  return 512.2  note ok  "
        "[2 s/it, elapsed 0:01:00, left 0:01:40]",
        "evaluated: mean 3",
        "saved",
        "WARNING: too good, by 2",
    ]


def test_chosen_metrics():
    stream = io.StringIO()
    run(stream, False, main=("return", "absent"))
    assert "  return 512.2  [" in stream.getvalue()


def test_a_stage_that_was_not_announced():
    stream = io.StringIO()
    ProgressDisplay(stream=stream).log("x", 5, [])
    assert stream.getvalue() == "x  5    [- it/s, elapsed 0:00:00, left -:--:--]\n"


def test_live_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    stream = io.StringIO()
    run(stream, True)
    text = stream.getvalue()
    assert "policy/walker-stand [42] :bug:" in text
    assert "50/100" in text
    assert "loss 0.1235" in text
    assert "0:01:40 left" in text
    assert "evaluated: mean 3" in text


@pytest.mark.parametrize("live", [True, False])
def test_a_closed_stream_is_given_up(live):
    stream = io.StringIO()
    display = ProgressDisplay(stream=stream, live=live)
    display.begin("a", 0, 10)
    stream.close()
    display.log("a", 1, [Row({"x": 1.0})])
    display.event("e", {})
    display.close()


def test_stdout_stays_clean(capsys):
    ProgressDisplay(live=False).begin("a", 0, 10)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "a: starts, 10 iterations\n"


def test_times_and_rates():
    assert clock(None) == "-:--:--"
    assert clock(429.4) == "0:07:09"
    assert clock(3600 * 51 + 5) == "2d 03:00:05"
    assert (speed(None), speed(12.345), speed(0.5)) == ("- it/s", "12.3 it/s", "2 s/it")
