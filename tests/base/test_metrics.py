"""The names of metrics; ``test_sinks.py`` holds their written form."""

import pytest

from fmbpo.base.metrics import (
    OBS_ERROR,
    POLICY_PANELS,
    PRETRAINING_PANELS,
    REAL,
    RETURN,
    after,
    at_horizon,
    before,
    by_horizon,
    cell_series,
)
from fmbpo.errors import UserError


def test_a_measure_by_its_horizons_is_the_inverse_of_its_names():
    errors = {1: 0.5, 16: 2.0}
    measures = {at_horizon(after(OBS_ERROR), steps): error for steps, error in errors.items()}
    assert measures == {"after_obs_error_h1": 0.5, "after_obs_error_h16": 2.0}
    assert by_horizon({**measures, "score": 1.0}, after(OBS_ERROR)) == errors
    assert by_horizon(measures, OBS_ERROR) == by_horizon(measures, before(OBS_ERROR)) == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]", "m.jsonl:1: not a JSON object"),
        ('{"step": ' + "9" * 400 + ', "return": 1.0}', "return has a point that is no number"),
        ('{"step": 1, "return": "many"}', "return has a point that is no number"),
        ('{"return": 1.0}', "return has a point that is no number"),
    ],
)
def test_a_record_that_was_edited(line, said, tmp_path):
    (tmp_path / "m.jsonl").write_text(f"{line}\n")
    with pytest.raises(UserError, match=said) as caught:
        cell_series(tmp_path / "m.jsonl", RETURN)
    assert caught.value.remedy


def test_the_real_thing_is_drawn_for_a_metric_that_a_panel_shows():
    shown = {*POLICY_PANELS.values(), *PRETRAINING_PANELS.values()}
    assert REAL.keys() <= shown
    assert list(POLICY_PANELS) == [
        "return", "held-out reward R²", "spread of the decoded reward",
    ]  # fmt: skip
