from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmbpo.tasks.custom.shaping import gaussian, linear
from fmbpo.testing import tasks as checker

FILE = Path(__file__).parents[1] / "golden" / "mt30_trajectories.npz"


@pytest.fixture(scope="module")
def recording() -> tuple[int, dict[str, Any]]:
    return checker.golden_tasks(FILE)


def test_task_agrees_with_the_recording(task: str, recording: tuple[int, dict[str, Any]]) -> None:
    seed, tasks = recording
    report = checker.check_task(task, tasks[task], seed)
    assert set(report.errors) == set(checker.BOUNDS)
    assert report.failures == [], str(report)


def test_a_wrong_recording_fails(
    recording: tuple[int, dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    seed, tasks = recording
    wrong = dict(tasks["pendulum-spin"])
    wrong["reward"] = wrong["reward"] + 2e-6
    wrong["probe_obs_static"] = np.full_like(wrong["probe_obs_static"], np.nan)
    wrong["resets_obs"] = np.nextafter(wrong["resets_obs"], np.float32(9), dtype=np.float32)
    report = checker.check_task("pendulum-spin", wrong, seed)
    assert set(report.failures) == {"reset", "path reward", "step reward", "probe obs"}

    file = tmp_path / "wrong.npz"
    meta = '{"seed": 0, "action_repeat": 2, "tasks": ["pendulum-spin"]}'
    np.savez(file, meta=np.array(meta), **{f"pendulum-spin/{k}": v for k, v in wrong.items()})
    assert checker.main([str(file)]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_shaping_agrees_with_dm_controls_tolerance() -> None:
    from dm_control.utils.rewards import tolerance

    for distance in np.linspace(-1, 4, 101):
        ours = gaussian(distance, 1.5)
        assert ours == pytest.approx(tolerance(distance, (-9, 0), margin=1.5), abs=1e-15)
        for at_margin in (0.0, 0.5):
            stock = tolerance(
                distance, (-9, 0), margin=1.5, sigmoid="linear", value_at_margin=at_margin
            )
            assert linear(distance, 1.5, at_margin) == pytest.approx(stock, abs=1e-15)


def test_the_checker_is_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tasks", "--help"])
    with pytest.raises(SystemExit) as ended:
        checker.main()
    assert ended.value.code == 0
