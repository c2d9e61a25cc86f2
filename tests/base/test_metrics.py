"""The names of metrics; ``test_sinks.py`` holds their written form."""

from fmbpo.base.metrics import (
    OBS_ERROR,
    POLICY_PANELS,
    PRETRAINING_PANELS,
    REAL,
    after,
    at_horizon,
    before,
    by_horizon,
)


def test_a_measure_by_its_horizons_is_the_inverse_of_its_names():
    errors = {1: 0.5, 16: 2.0}
    measures = {at_horizon(after(OBS_ERROR), steps): error for steps, error in errors.items()}
    assert measures == {"after_obs_error_h1": 0.5, "after_obs_error_h16": 2.0}
    assert by_horizon({**measures, "score": 1.0}, after(OBS_ERROR)) == errors
    assert by_horizon(measures, OBS_ERROR) == by_horizon(measures, before(OBS_ERROR)) == {}


def test_the_real_thing_is_drawn_for_a_metric_that_a_panel_shows():
    shown = {*POLICY_PANELS.values(), *PRETRAINING_PANELS.values()}
    assert REAL.keys() <= shown
    assert list(POLICY_PANELS) == [
        "return", "held-out reward R²", "spread of the decoded reward",
    ]  # fmt: skip
