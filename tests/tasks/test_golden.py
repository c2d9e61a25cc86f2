from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmbpo.tasks.custom import gaussian, linear
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


def _changed(tmp_path: Path, change: Any) -> Path:
    """The recording of one task with its arrays and meta changed."""
    with np.load(FILE) as archive:
        arrays = {k: archive[k] for k in archive.files if k.startswith("pendulum-spin/")}
    arrays["meta"] = np.array('{"seed": 0, "action_repeat": 2, "tasks": ["pendulum-spin"]}')
    change(arrays)
    file = tmp_path / "changed.npz"
    np.savez(file, **arrays)
    return file


def _set(key: str, value: Any) -> Any:
    return lambda arrays: arrays.update({key: np.array(value)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("meta", '{"seed": 0, "action_repeat": 2, "tasks": ["pendulum-spni"]}'), "did you"),
        (
            _set("meta", '{"seed": 0, "action_repeat": 4, "tasks": ["pendulum-spin"]}'),
            "repeat 2",
        ),
        (_set("meta", '{"seed": -1, "action_repeat": 2, "tasks": ["pendulum-spin"]}'), "no seed"),
        (_set("meta", "[]"), "meta has no"),
        (_set("walker-walk/obs", [1.0]), "walker-walk/obs belongs to no task that meta lists"),
        (_set("pendulum-spin/reward", [1.0]), "pendulum-spin/reward is float64 (1,)"),
        (_set("pendulum-spin/obs", ["x"]), "pendulum-spin/obs is <U1"),
        (_set("pendulum-spin/qpos", np.zeros((61, 2))), "qpos (2,)"),
        (lambda arrays: arrays.pop("pendulum-spin/obs"), "pendulum-spin/obs is <U7 ()"),
        (lambda arrays: arrays.pop("meta"), "meta has no"),
    ],
)
def test_a_file_of_another_layout_ends_in_one_message(
    change: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _changed(tmp_path, change)
    assert checker.main([str(file)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 2


def test_a_file_that_is_no_archive_ends_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = FILE.read_bytes()
    middle = len(whole) // 2
    contents = {
        "truncated.npz": whole[:middle],
        "damaged.npz": whole[:middle] + bytes(4096) + whole[middle + 4096 :],
        "text.npz": b"x",
        "empty.npz": b"",
    }
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "array.npy", "missing.npz", "."):
        assert checker.main([str(tmp_path / name)]) == 2, name
        assert len(capsys.readouterr().err.splitlines()) <= 2, name
    assert checker.main([str(_changed(tmp_path, lambda arrays: None))]) == 0


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
