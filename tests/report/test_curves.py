import math

import numpy as np
import pytest

from fmbpo.errors import UserError
from fmbpo.report.curves import (
    Heading,
    HorizonErrors,
    TaskCurves,
    learning_curves,
    mean_series,
    pretraining_curves,
)

HEADING = Heading("phase8_mlpwm_mlppolicy", "laptop", "frozen", "3 seeds")


def series(top, count=5):
    return [(i * 500, top * i / count) for i in range(count)]


def read(path):
    from matplotlib.image import imread

    return imread(path)


def curves(seeds=3, **levels):
    return TaskCurves({str(s): series(100.0 + s) for s in range(seeds)}, **levels)


@pytest.mark.parametrize(
    ("count", "size"),
    [(1, (6.4, 1)), (3, (10.8, 1)), (4, (10.8, 2))],
)
def test_size_grows_with_the_panels(tmp_path, count, size):
    path = tmp_path / "curves.png"
    learning_curves(path, HEADING, {f"t{i}": curves(random=5.0, planner=90) for i in range(count)})
    pixels = read(path)
    wide, rows = size
    assert pixels.shape[:2] == (int(130 * (2.7 * rows + 1.14)), int(130 * wide))
    assert 0.02 < np.mean(pixels[..., :3].min(-1) < 0.9) < 0.5  # neither empty nor filled
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_equal_numbers_give_equal_files(tmp_path):
    for name in ("a.png", "b.png"):
        learning_curves(tmp_path / name, HEADING, {"t": curves(1)})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    learning_curves(tmp_path / "b.png", HEADING, {"t": curves(1, pwm=50.0)})
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_the_scale_is_stamped(tmp_path):
    for name, scale in (("a.png", "laptop"), ("b.png", "full")):
        heading = Heading("x", scale, "frozen")
        learning_curves(tmp_path / name, heading, {"t": curves(1)})
    a, b = read(tmp_path / "a.png"), read(tmp_path / "b.png")
    corner = (slice(0, 60), slice(-200, None))
    assert not np.array_equal(a[corner], b[corner])
    red = (np.abs(a[corner][..., :3] - np.array([0xD5, 0x5E, 0]) / 255) < 0.02).all(-1)
    assert red.sum() > 500


def test_awkward_curves(tmp_path):
    tasks = {
        "nothing yet": TaskCurves({"1": []}),
        "one point, no number": TaskCurves({"1": [(0, math.nan)], "2": [(0, 3.0)]}),
        "negative": TaskCurves({"1": [(0, -5.0), (10, -1.0)]}),
        "no seeds": TaskCurves({}),
    }
    learning_curves(tmp_path / "a.png", Heading("long_name_" * 9, "tiny", "scratch"), tasks)
    assert read(tmp_path / "a.png").std() > 0


def test_mean_of_what_all_seeds_reached():
    assert mean_series([[(0, 1.0), (5, 3.0), (10, 9.0)], [(0, 3.0), (5, 5.0)]]) == [(0, 2), (5, 4)]
    assert mean_series([]) == []


def test_pretraining(tmp_path):
    errors = [
        HorizonErrors(
            "observation",
            [1, 2, 4, 8, 16],
            {"world model": [1, 2, 3, 4, 5], "copy baseline": [2, 4, 6, 8, 10]},
        ),
        HorizonErrors("reward", [1, 16], {"world model": [0.1, 0.2]}),
    ]
    losses = {"total": [(0, 5.0), (100, 0.1)], "reward": [(0, 2.0), (100, math.nan)]}
    pretraining_curves(tmp_path / "p.png", HEADING, losses, errors)
    assert read(tmp_path / "p.png").shape[1] == int(130 * 3 * 4.4)
    pretraining_curves(tmp_path / "q.png", HEADING, {}, errors[:1])
    assert read(tmp_path / "q.png").shape[1] == int(130 * 6.4)


def test_nothing_to_draw_and_nowhere_to_write(tmp_path):
    with pytest.raises(ValueError, match="no task"):
        learning_curves(tmp_path / "a.png", HEADING, {})
    with pytest.raises(ValueError, match="nothing to draw"):
        pretraining_curves(tmp_path / "a.png", HEADING, {}, [])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a file stands"):
        learning_curves(tmp_path / "file" / "a.png", HEADING, {"t": curves(1)})
