"""Acting with a finished run, and filming it: through the command line, on tiny runs."""

import base64
import json
import pickle
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from short_episodes import episodes, short, whole

from fmbpo.cli import main
from fmbpo.errors import UserError
from fmbpo.running.trained_policies import load_policy, trained_policies
from fmbpo.tasks import drawing
from fmbpo.tasks.env import TaskEnv
from fmbpo.tasks.mt30 import MT30, SUITE
from fmbpo.tasks.vector import EpisodeRunner


def _can_draw():
    try:
        TaskEnv("pendulum-spin", drawable=True).camera((16, 16)).close()
    except UserError:
        return False
    return True


needs_gl = pytest.mark.skipif(
    not _can_draw(), reason="no OpenGL library: apt-get install libegl1 or libosmesa6"
)
QUADRANTS = {
    "frozen": ("phase8_mlpwm_flowpolicy", ["policy_learning.stack=3"]),
    "finetuned": ("phase8_mlpwm_mlppolicy_finetuned", []),
}
FEW = ["policy_learning.iterations=2", "policy_learning.evaluate_every=2"]
FEW += ["evaluation.episodes=2", "evaluation.final_episodes=1"]


STEPS = 60
"""Of the final evaluation's one episode, in place of 500."""


def one_longer(self, act, tasks, number, steps=None, progress=None):
    """In place of ``Evaluator.run``."""
    if number != 1:
        return short(self, act, tasks, number, steps, progress)
    return whole(self, act, tasks, number, STEPS, progress)


@pytest.fixture(scope="module")
def runs(repository, small_store, tiny_policy, tmp_path_factory):
    """Folders of two finished runs: one in several stages, one with world models of its own."""
    root = tmp_path_factory.mktemp("runs")
    found = {}
    for name, (quadrant, overrides) in QUADRANTS.items():
        file = repository / "experiments" / f"{quadrant}.toml"
        words = ["run", str(file), "--scale", "laptop", "--data", str(small_store)]
        words += ["--runs", str(root)]
        for override in (*tiny_policy, *FEW, *overrides):
            words += ["-o", override]
        with episodes(one_longer):
            assert main(words) == 0
        (found[name],) = root.glob(f"{quadrant}__*")
    return found


@pytest.fixture
def copy(runs, tmp_path):
    """The frozen run with its world model's, to be spoilt."""
    shutil.copytree(runs["frozen"].parent, tmp_path / "runs")
    return tmp_path / "runs" / runs["frozen"].name


def summary_of(run):
    return json.loads((run / "summary.json").read_text())


def test_a_run_of_an_earlier_version_is_named(copy):
    config = json.loads((copy / "config.json").read_text())
    config["pretrain"]["seed"] = 42
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="an earlier version of fmbpo trained these policies"):
        trained_policies(copy)


@pytest.mark.parametrize("name", list(QUADRANTS))
def test_a_loaded_policy_has_the_returns_of_the_summary(name, runs):
    run = runs[name]
    specs = trained_policies(run)
    tasks = summary_of(run)["tasks"]
    assert [(s.task, str(s.seed)) for s in specs] == [(t, s) for t in tasks for s in ("1", "1.1")]
    for spec in (specs[0], specs[-1]):
        policy = pickle.loads(pickle.dumps(spec)).load()

        def act(obs, _, policy=policy):
            return policy.act(obs[0])[None]

        recorded = tasks[spec.task]["seeds"][str(spec.seed)]["returns"]
        seeds = [policy.evaluation_seed + i for i in range(len(recorded))]
        with EpisodeRunner(0, SUITE) as runner:
            (found,) = runner.run(act, [spec.task], seeds, STEPS).sum(-1)
        assert found == pytest.approx(recorded, rel=1e-3)


def test_the_policies_of_a_run_differ(runs):
    obs = np.random.default_rng(0).normal(size=(3, SUITE.obs_width)).astype(np.float32)
    specs = trained_policies(runs["frozen"])
    actions = [spec.load().act(obs) for spec in specs]
    assert all(a.shape == (3, 6) and a.dtype == np.float32 for a in actions)
    for i, action in enumerate(actions):
        assert all((action != other).any() for other in actions[:i])
    np.testing.assert_array_equal(specs[1].load().act(obs), actions[1])


def spoil_version(run):
    config = json.loads((run / "config.json").read_text())
    config["versions"]["policy"] = "9.9"
    (run / "config.json").write_text(json.dumps(config))


def spoil_plugin(run):
    config = json.loads((run / "config.json").read_text())
    config["policy"]["plugin"] = "gone"
    (run / "config.json").write_text(json.dumps(config))


def spoil_world_model(run):
    """Another world model in the place of the one that the policies were trained in."""
    from fmbpo.runs.checkpoint import load_checkpoint, save_checkpoint

    place = Path(summary_of(run)["world_model"]["checkpoint"])
    place = run.parent / place.parent.parent.name / "checkpoints" / "best"
    found = load_checkpoint(place, with_state=False)
    weights = {key: value + 1 for key, value in found.weights.items()}
    save_checkpoint(place, manifest=found.manifest, weights=weights, state=None)
    summary = summary_of(run)
    summary["world_model"]["checkpoint"] = str(place)
    (run / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "summary.json").unlink(), "the run is not complete"),
        (lambda run: shutil.rmtree(run), "there is no run here"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "no checkpoint"),
        (lambda run: (run / "study.json").write_text("{}"), "this is a study"),
        (spoil_version, "made with policy plugin 'flow' 9.9"),
        (spoil_plugin, "gone"),
        (spoil_world_model, "trained in a different world model"),
    ],
)
def test_a_run_that_cannot_act_ends_in_one_message(spoil, said, copy):
    spoil(copy)
    with pytest.raises(UserError, match=said):
        load_policy(copy, "reacher-easy", 1)


def test_other_versions_of_the_plugins_act_if_the_user_accepts_them(copy, capsys):
    spoil_version(copy)
    command = ["tasks", "render", "reacher-easy", "--policy", str(copy), "--steps", "2"]
    assert main(command) == 2
    assert "add --accept-plugin-versions" in capsys.readouterr().err
    assert main([*command, "--accept-plugin-versions", "--out", str(copy / "a.gif")]) == 0
    obs = np.zeros(SUITE.obs_width)
    found = trained_policies(copy, accept_versions=True)
    assert found[0].load().act(obs).shape == (6,)


def test_an_unknown_task_or_seed_and_a_pretraining_are_named(runs):
    run = runs["frozen"]
    for task, seed, said in (
        ("reacher-esy", 1, "did you mean 'reacher-easy'"),
        ("walker-walk", 1, "no policy for task 'walker-walk'"),
        ("reacher_easy", 7, "choose among 1, 1.1"),
    ):
        with pytest.raises(UserError, match=said):
            load_policy(run, task, seed)
    (pretraining,) = run.parent.glob("phase8_pretrain_mlpwm__*")
    with pytest.raises(UserError, match="the run trained no policies"):
        trained_policies(pretraining)


def test_a_run_that_was_moved_finds_its_world_model_beside_it(copy, runs):
    obs = np.ones((1, SUITE.obs_width), np.float32)
    summary = summary_of(copy)
    gone = Path("nowhere", *Path(summary["world_model"]["checkpoint"]).parts[-3:])
    summary["world_model"]["checkpoint"] = str(gone)
    (copy / "summary.json").write_text(json.dumps(summary))
    moved, first = (load_policy(run, "reacher-easy", 1) for run in (copy, runs["frozen"]))
    np.testing.assert_array_equal(moved.act(obs), first.act(obs))


def frames_of(file):
    """Frames [N, H, W, 3], and seconds between two."""
    if file.suffix == ".mp4":
        import imageio_ffmpeg

        reader = imageio_ffmpeg.read_frames(str(file))
        about = next(reader)
        width, height = about["size"]
        frames = [np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader]
        return np.stack(frames), 1 / about["fps"]
    from PIL import Image, ImageSequence

    with Image.open(file) as image:
        frames = [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(image)]
        return np.stack(frames), image.info["duration"] / 1000


@needs_gl
def test_a_run_is_filmed_and_its_report_shows_it(copy, tmp_path, capsys):
    words = ["tasks", "render", "--policy", str(copy), "--seed", "1.1", "--size", "64x48"]
    assert main([*words, "--steps", str(STEPS)]) == 0
    out = capsys.readouterr().out
    tasks = summary_of(copy)["tasks"]
    files = sorted((copy / "videos").iterdir())
    assert [file.name for file in files] == sorted(f"{task}__1.1.mp4" for task in tasks)
    for task, found in tasks.items():
        assert f"return {found['seeds']['1.1']['returns'][0]:.1f} in {STEPS} steps" in out
        frames, seconds = frames_of(copy / "videos" / f"{task}__1.1.mp4")
        # cartpole has 50 steps a second, of which every other one is drawn.
        steps = {"cartpole-balance": STEPS // 2}.get(task, STEPS)
        assert frames.shape == (steps + 1, 48, 64, 3)
        assert seconds == pytest.approx(0.04)
    assert main(["report", str(copy), "--out", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    for file in files:
        assert base64.b64encode(file.read_bytes()).decode() in page


@needs_gl
@pytest.mark.parametrize("ending", [".mp4", ".gif", ".webp"])
def test_random_actions_in_every_format(ending, tmp_path, capsys):
    file = tmp_path / "new" / f"walk{ending}"
    words = ["tasks", "render", "walker_walk", "--steps", "20", "--size", "160x120"]
    assert main([*words, "--episode", "3", "--out", str(file)]) == 0
    assert "random actions" in capsys.readouterr().err
    frames, seconds = frames_of(file)
    assert frames.shape == (21, 120, 160, 3)
    assert seconds == pytest.approx(0.05)
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 80  # it moves
    env = TaskEnv("walker-walk", drawable=True)
    env.reset(3)
    with env.camera((160, 120)) as camera:
        first = camera.draw()
    right, upside_down, other_colours = (
        np.abs(frames[0].astype(int) - drawn).mean()
        for drawn in (first, first[::-1], first[..., ::-1])
    )
    assert right < 0.25 * min(upside_down, other_colours)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


@needs_gl
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.endurance)])
def test_tasks_can_be_drawn_and_drawing_changes_nothing(every):
    """One task of each domain, or all."""
    of_domain = {info.domain: task for task, info in MT30.items()}
    for task in MT30 if every else of_domain.values():
        seen, blind = TaskEnv(task, drawable=True), TaskEnv(task)
        with seen.camera((64, 48)) as camera:
            first = seen.reset(1)
            np.testing.assert_array_equal(first, blind.reset(1))
            pictures = []
            for _ in range(3):
                pictures.append(camera.draw())
                action = np.full(6, 0.5, np.float32)
                (obs, reward), (expected, paid) = seen.step(action), blind.step(action)
                np.testing.assert_array_equal(obs, expected)
                assert reward == paid
        assert pictures[0].std() > 5, task
        assert (pictures[0] != pictures[-1]).any(), task


@needs_gl
def test_gymnasium_draws():
    import gymnasium

    import fmbpo.tasks.gym  # noqa: F401

    env = gymnasium.make("fmbpo/fish-swim-v0", render_mode="rgb_array", width=48, height=32)
    env.reset(seed=0)
    assert env.render().shape == (32, 48, 3)
    assert env.metadata["render_fps"] == pytest.approx(12.5)
    # Copies of an environment that has drawn go on as it would, and draw as it would.
    copies = [deepcopy(env), pickle.loads(pickle.dumps(env))]
    action = np.full(5, 0.5, np.float32)
    found = [(*one.step(action)[:2], one.render()) for one in (env, *copies)]
    for obs, reward, picture in found[1:]:
        np.testing.assert_array_equal(obs, found[0][0])
        assert reward == found[0][1]
        np.testing.assert_array_equal(picture, found[0][2])
    env.close()


@needs_gl
def test_an_encoder_that_fails_says_why_in_one_line(tmp_path, monkeypatch, capsys):
    """Even if it takes every frame first, as on a disk that is full at the end."""
    encoder = tmp_path / "encoder"
    encoder.write_text("#!/bin/sh\ncat > /dev/null\necho 'No space left' >&2\nexit 1\n")
    encoder.chmod(0o755)
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: str(encoder))
    for out, said in (
        (tmp_path / "a.mp4", "a.mp4: cannot be written (the encoder says: No space left)"),
        (Path("/proc/a.mp4"), "/proc/a.mp4: cannot be written (No such file or directory)"),
    ):
        assert main(["tasks", "render", "cup-spin", "--steps", "3", "--out", str(out)]) == 2
        assert capsys.readouterr().err.splitlines()[1:] == [
            f"error: {out.parent}/{said.removeprefix('/proc/')}", "  -> choose another place"
        ]  # fmt: skip
    assert list(tmp_path.iterdir()) == [encoder]


@needs_gl
@pytest.mark.parametrize("steps", [5, 500])
def test_a_film_that_fails_leaves_the_old_one(steps, tmp_path, monkeypatch, capsys):
    file = tmp_path / "a.mp4"
    file.write_bytes(b"old")

    def diverge(self, action):
        from fmbpo.tasks.suite import SimulationError

        raise SimulationError("cup-spin, step 0: the simulation diverged")

    monkeypatch.setattr(TaskEnv, "step", diverge)
    assert main(["tasks", "render", "cup-spin", "--steps", str(steps), "--out", str(file)]) == 2
    assert "cup-spin, step 0: the simulation diverged" in capsys.readouterr().err
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.mp4", b"old")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to film"),
        (["walker-wlk"], "did you mean 'walker-walk'"),
        (["walker-walk", "--seed", "1"], "a seed selects a trained policy"),
        (["walker-walk", "--out", "a.avi"], "use .mp4, .gif or .webp"),
        (["walker-walk", "--out", "a"], "no video format"),
        (["walker-walk", "--size", "33x20"], "even width and height"),
        (["walker-walk", "--steps", "501"], "1 to 500 steps"),
        (["--policy", "nowhere"], "there is no run here"),
    ],
)
def test_mistakes_end_in_one_message(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["tasks", "render", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_a_colon_is_a_files(tmp_path, monkeypatch):
    """Not a protocol of the encoder."""
    monkeypatch.chdir(tmp_path)
    assert main(["tasks", "render", "reacher-easy", "--steps", "2", "--out", "pipe:1.mp4"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["pipe:1.mp4"]


def test_several_films_do_not_fit_into_one_file(runs, tmp_path, capsys):
    out = str(tmp_path / "a.mp4")
    assert main(["tasks", "render", "--policy", str(runs["frozen"]), "--out", out]) == 2
    assert "one file cannot hold the 2 tasks" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--size", "9x9"], ["--size", "x"], ["--steps", "0"],
                                    ["--episode", "-1"]])  # fmt: skip
def test_numbers_that_are_none(option, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["tasks", "render", "cup-spin", *option])
    assert ended.value.code == 2


def test_without_a_library_the_packages_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(drawing, "PLATFORMS", {"nowhere": "libegl1", "neither": "libosmesa6"})
    out = tmp_path / "a.mp4"
    assert main(["tasks", "render", "cup-spin", "--out", str(out)]) == 2
    assert "apt-get install libegl1 or libosmesa6" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@needs_gl
def test_where_one_platform_fails_another_draws():
    code = """
import mujoco, sys
from fmbpo.tasks import drawing
from fmbpo.tasks.env import TaskEnv
from fmbpo.tasks.mt30 import MT30
from fmbpo.errors import UserError
first, second = list(drawing.PLATFORMS)
def size(platforms):
    drawing.PLATFORMS = dict.fromkeys(platforms, "")
    try:
        with TaskEnv("cup-spin", drawable=True).camera((32, 16)) as camera:
            return camera.draw().shape
    except UserError:
        return None
broken = type("Broken", (), {"GLContext": property()})()
works = [name for name in (first, second) if size([name])][0]
sys.modules["mujoco.broken"] = broken
assert size(["broken", works]) == (16, 32, 3)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_list_has_names_widths_and_published_scores(capsys):
    assert main(["tasks", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 30
    assert rows[12] == {
        "suite": "MT30", "name": "cup-catch", "index": 12, "domain": "ball_in_cup", "task": "catch",
        "obs_dim": 8, "action_dim": 2, "episode_steps": 500, "action_repeat": 2,
        "largest_reward": 2.0, "pwm_return": 471.6, "tdmpc2_return": 964.3,
    }  # fmt: skip
    assert main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "cup-catch" in line]
    assert line.split() == ["12", "cup-catch", "8", "2", "471.6", "964.3"]
    assert sum(len(line.split()) == 6 and line.split()[0].isdigit() for line in lines) == 30
