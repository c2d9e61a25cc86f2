"""Fixtures that many tests share: one thread, a small real data set, the four pairs."""

import importlib
import os
import signal
import sys
import tomllib

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"  # tests run side by side: nobody spins
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # tests compare folders before and after
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.pop("FMBPO_DATA", None)

from pathlib import Path

import pytest
import torch
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
sys.dont_write_bytecode = True

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(Path(__file__).parent / "support"))


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def small_store(tmp_path_factory) -> Path:
    """Real episodes of two tasks, random behaviour, 40 steps each."""
    from fmbpo.data.collecting.collector import Request, collect
    from fmbpo.data.collecting.recipes import recipe_named

    out = tmp_path_factory.mktemp("data") / "small.zarr"
    tasks = ["cartpole-balance", "reacher-easy"]
    mix = recipe_named("random").mix
    return collect(out, Request(tasks, episodes=8, mix=mix, seed=1, steps=40), workers=1)


@pytest.fixture(scope="session", autouse=True)
def short_episodes():
    """Evaluations are short (``support/short_episodes.py``), except with ``whole_episodes``."""
    from short_episodes import episodes, short

    with episodes(short):
        yield


@pytest.fixture(scope="session", autouse=True)
def small_pictures():
    """Runs draw small pictures (``support/small_pictures.py``), except with ``real_pictures``."""
    from small_pictures import pictures, small

    with pictures(small):
        yield


@pytest.fixture(scope="session", autouse=True)
def known_costs():
    """Runs count costs that are not known (``support/known_costs.py``), except with
    ``real_costs``."""
    from known_costs import costs, once

    with costs(once):
        yield


@pytest.fixture(scope="session", autouse=True)
def short_cloning():
    """Behaviour cloning makes few updates; its own tests ask for more."""
    from fmbpo.training import behaviour_cloning

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(behaviour_cloning, "UPDATES", 2)
        yield


@pytest.fixture
def real_costs(known_costs):
    """Every run counts its costs."""
    from known_costs import always, costs

    with costs(always):
        yield


@pytest.fixture
def real_pictures(small_pictures):
    """Runs draw their pictures."""
    from small_pictures import pictures, real

    with pictures(real):
        yield


@pytest.fixture
def whole_episodes(short_episodes):
    """Evaluations of whole episodes, in worker processes."""
    from short_episodes import episodes, whole

    with episodes(whole):
        yield


TINY = [
    "world_model.encoder_units=[16]",
    "world_model.units=[16]",
    "world_model.latent_dim=16",
    "world_model.task_dim=4",
    "pretrain.iterations=6",
    "pretrain.batch=8",
    "pretrain.horizon=3",
    "pretrain.log_every=2",
    "pretrain.validate_every=3",
    "pretrain.checkpoint_every=2",
    "system.device=cpu",
    "system.threads=1",
    "grid.seeds=[1]",
]
TINY_POLICY = [
    "grid.tasks=[]",
    "grid.seeds=[1]",
    "grid.policies_per_model=2",
    "policy.units=[16]",
    "critic.units=[16]",
    "policy_learning.iterations=6",
    "policy_learning.batch=4",
    "policy_learning.horizon=4",
    "policy_learning.critic_iterations=2",
    "policy_learning.critic_minibatches=2",
    "policy_learning.log_every=2",
    "policy_learning.evaluate_every=3",
    "policy_learning.checkpoint_every=2",
    "evaluation.episodes=1",
    "evaluation.final_episodes=2",
    "evaluation.workers=1",
]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Overrides that make a pretraining experiment run in about a second."""
    return TINY


@pytest.fixture(scope="session")
def tiny_policy() -> list[str]:
    """The same for a policy experiment."""
    return TINY + TINY_POLICY


@pytest.fixture(scope="session")
def small_study(small_store, tiny_policy):
    """A whole study in seconds (``support/small_study.py``)."""
    from small_study import SmallStudy

    return SmallStudy(REPOSITORY, small_store, tiny_policy)


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """Processes that begin with everything imported (``support/forks.py``)."""
    from forked import Forks

    with Forks(tmp_path_factory.mktemp("said")) as forks:
        yield forks


@pytest.fixture(scope="session")
def whole_study(forks, small_study, tmp_path_factory):
    """The folder of the small study that was left alone and had space enough."""
    folder = small_study.write(tmp_path_factory.mktemp("whole") / "whole")
    return small_study.finish(forks, folder, here=True)


@pytest.fixture(scope="session")
def write_dist_info():
    """``write_dist_info(folder, home)``: the metadata that installing a project would leave."""

    def write(folder: Path, home: Path) -> None:
        about = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        info = home / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
        )
        lines = []
        for group, entries in about["entry-points"].items():
            lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))

    return write


@pytest.fixture
def offer_project(monkeypatch, write_dist_info):
    """``offer_project(folder)``: a project of a plugin or of tasks as an editable install would
    offer it."""
    from fmbpo.tasks import known

    offered: list[Path] = []

    def offer(folder: Path) -> Path:
        offered.append(folder)
        write_dist_info(folder, folder)
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        known._offered.cache_clear()
        return folder

    yield offer
    for name, module in list(sys.modules.items()):
        if any(
            folder in Path(getattr(module, "__file__", None) or "").parents for folder in offered
        ):
            del sys.modules[name]
    known._offered.cache_clear()
    known._load.cache_clear()


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no process ends with one alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


# No deadlines: a loaded machine is slow, not wrong.
settings.register_profile("fmbpo", deadline=None, derandomize=True)
settings.load_profile("fmbpo")


@pytest.fixture
def uncompiled(monkeypatch):
    """The names of the functions that kernels had compiled; they run as they are, since the
    compiler takes a second for each."""
    from fmbpo.nn import compiled, norm_mish

    made = []

    def as_it_is(function, constants, tensors, threads):
        made.append(function.__name__)
        return compiled._writing(function, constants)

    monkeypatch.setattr(compiled, "_compiled", as_it_is)
    for kernel in vars(norm_mish).values():
        if isinstance(kernel, compiled.Kernel):
            monkeypatch.setattr(kernel, "_code", {})
    return made
