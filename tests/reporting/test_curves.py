import math
import os
import subprocess
import sys

import numpy as np
import pytest

from fmbpo.errors import UserError
from fmbpo.reporting.curves import (
    Heading,
    draw,
    errors_panel,
    learning_panel,
    losses_panel,
    mean_series,
)

HEADING = Heading("phase8_mlpwm_mlppolicy", "laptop", "frozen", "3 seeds")


def series(top, count=5):
    return [(i * 500, top * i / count) for i in range(count)]


def read(path):
    from matplotlib.image import imread

    return imread(path)


def panel(seeds=3, **levels):
    return learning_panel("t", {str(s): series(100.0 + s) for s in range(seeds)}, levels)


@pytest.mark.parametrize(
    ("count", "size"),
    [(1, (6.4, 1)), (3, (12.6, 1)), (4, (12.6, 2))],
)
def test_size_grows_with_the_panels(tmp_path, count, size):
    path = tmp_path / "curves.png"
    levels = {"random": 5.0, "planner (true simulator)": 90}
    draw(path, HEADING, [panel(**levels) for _ in range(count)])
    pixels = read(path)
    wide, rows = size
    assert pixels.shape[:2] == (int(130 * (2.7 * rows + 1.14)), int(130 * wide))
    assert 0.02 < np.mean(pixels[..., :3].min(-1) < 0.9) < 0.5  # neither empty nor filled
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_equal_numbers_give_equal_files(tmp_path):
    for name in ("a.png", "b.png"):
        draw(tmp_path / name, HEADING, [panel(1)])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    draw(tmp_path / "b.png", HEADING, [panel(1, **{"PWM, published": 50.0})])
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_the_users_settings_change_nothing(tmp_path):
    import matplotlib

    draw(tmp_path / "a.png", HEADING, [panel(1)])
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "savefig.dpi": 9}):
        draw(tmp_path / "b.png", HEADING, [panel(1)])
        assert matplotlib.rcParams["text.usetex"]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_settings_that_matplotlib_refuses(tmp_path):
    """A backend that is not there does no harm; an unreadable file is one message."""
    code = "from fmbpo.reporting.drawing import own_style\nwith own_style(): print('drawn')"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "MPLBACKEND": "nonsense"}
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("drawn\n", "")
    (tmp_path / "matplotlibrc").write_bytes(b"\xff")
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "UserError: matplotlib cannot be imported (UnicodeDecodeError" in ended.stderr
    assert "-> mend or remove its settings file" in ended.stderr


def test_the_scale_is_stamped(tmp_path):
    for name, scale in (("a.png", "laptop"), ("b.png", "full")):
        heading = Heading("x", scale, "frozen")
        draw(tmp_path / name, heading, [panel(1)])
    a, b = read(tmp_path / "a.png"), read(tmp_path / "b.png")
    corner = (slice(0, 60), slice(-200, None))
    assert not np.array_equal(a[corner], b[corner])
    red = (np.abs(a[corner][..., :3] - np.array([0xD5, 0x5E, 0]) / 255) < 0.02).all(-1)
    assert red.sum() > 500


def test_awkward_curves(tmp_path):
    tasks = {
        "nothing yet": {"1": []},
        "one point, no number": {"1": [(0, math.nan)], "2": [(0, 3.0)]},
        "negative": {"1": [(0, -5.0), (10, -1.0)]},
        "no seeds": {},
    }
    panels = [learning_panel(task, seeds, {}) for task, seeds in tasks.items()]
    draw(tmp_path / "a.png", Heading("long_name_" * 9, "tiny", "scratch"), panels)
    assert read(tmp_path / "a.png").std() > 0


def test_mean_of_what_all_seeds_reached():
    assert mean_series([[(0, 1.0), (5, 3.0), (10, 9.0)], [(0, 3.0), (5, 5.0)]]) == [(0, 2), (5, 4)]
    assert mean_series([]) == []


def test_pretraining(tmp_path):
    errors = [
        errors_panel(
            "observation",
            {"world model": {1: 1, 2: 2, 16: 5}, "copy baseline": {1: 2, 2: 4, 16: 10}},
        ),
        errors_panel("reward", {"world model": {1: 0.1, 16: 0.2}}),
    ]
    losses = {"total": [(0, 5.0), (100, 0.1)], "reward": [(0, 2.0), (100, math.nan)]}
    draw(tmp_path / "p.png", HEADING, [losses_panel(losses), *errors], own_legends=True)
    assert read(tmp_path / "p.png").shape[1] == int(130 * 3 * 4.2)
    draw(tmp_path / "q.png", HEADING, errors[:1], own_legends=True)
    assert read(tmp_path / "q.png").shape[1] == int(130 * 6.4)


def test_nothing_to_draw_and_nowhere_to_write(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(tmp_path / "a.png", HEADING, [])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="there is a file in place of a folder"):
        draw(tmp_path / "file" / "a.png", HEADING, [panel(1)])
