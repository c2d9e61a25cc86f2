"""What a run takes: the counts on shapes against the real updates, the disk against real files."""

import os

import attrs
import pytest
import torch
from known_costs import always, costs, once
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from fmbpo import cli
from fmbpo.base import control_groups, free_memory
from fmbpo.base.cores import usable_cores
from fmbpo.base.text import bytes_text
from fmbpo.config import load_experiment
from fmbpo.config.schema import EvaluationConfig
from fmbpo.data.store import open_store
from fmbpo.errors import UserError
from fmbpo.measure.evaluation import threads
from fmbpo.running.preflight import duration, needs, remaining
from fmbpo.running.preflight.on_shapes import META, Tally, policies_cost, pretraining_cost
from fmbpo.running.preflight.remaining import policies_part, pretraining_parts
from fmbpo.tasks.mt30 import SUITE
from fmbpo.training.cells import Cell
from fmbpo.training.context import Context
from fmbpo.training.dataset import load_dataset
from fmbpo.training.device import hardware
from fmbpo.training.networks import build_world_model
from fmbpo.training.policies import PolicyTraining
from fmbpo.training.pretraining import Pretraining
from fmbpo.training.residence_choice import check_loading

pytestmark = pytest.mark.usefixtures("real_costs")

CPU = torch.device("cpu")
TASKS = ["cartpole-balance", "reacher-easy"]
CELLS = [Cell(task, 1, number) for task in TASKS for number in (0, 1)]
"""The grid of the small store and ``tiny_policy``."""
PRETRAIN, FROZEN, SCRATCH = "phase8_pretrain_flowwm", "phase8_mlpwm_flowpolicy", "base/demo_scratch"
SIZES = {
    "small": ["pretrain.batch=64", "policy_learning.batch=16", "policy_learning.horizon=4"],
    "wide": ["pretrain.batch=64", "world_model.units=[256, 256]", "policy_learning.batch=32"],
    "long": ["pretrain.batch=128", "pretrain.horizon=12", "policy_learning.horizon=12"],
}


@pytest.fixture(scope="module")
def load(repository, small_store, tiny, tiny_policy):
    def load(name, *overrides):
        small = tiny if "pretrain" in name else tiny_policy
        kept = [o for o in overrides if "policy" not in o or "pretrain" not in name]
        path = repository / "experiments" / f"{name}.toml"
        return load_experiment(
            path, scale="laptop", data=str(small_store), overrides=[*small, *kept]
        )

    return load


def stage_of(e):
    """The real stage of an experiment, all cells of its grid."""
    context = Context(e, load_dataset(e.data, CPU), CPU)
    if e.policy is None:
        return Pretraining(context, 42)
    module = build_world_model(e.world_model, SUITE, 0, CPU)
    e.world_model.component.freeze(module)
    return PolicyTraining("x", CELLS, context, module, None)


def cost_of(e):
    return pretraining_cost(e, TASKS) if e.policy is None else policies_cost(e, CELLS)


def allocated(step):
    """Most bytes that a call has allocated at one time, by torch's own record of the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    live = peak = 0
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [PRETRAIN, FROZEN, SCRATCH])
def test_shapes_tell_what_a_real_update_takes(name, size, load):
    e = load(name, *SIZES[size])
    cost, stage = cost_of(e), stage_of(e)
    assert cost.flops == stage.count_flops()
    measured = allocated(lambda: [stage.step(1), stage.step(2)])  # recorded, then replayed
    peak = cost.state + measured
    assert 0.8 * peak < needs.FRAGMENTATION * (cost.state + cost.replayed.update) < 2 * peak
    tensors = stage.weights()
    assert cost.weights == sum(4 * t.numel() for t in tensors.values())


def test_the_state_in_closed_form(load):
    """Parameters once in the module and once in the state, Adam's two moments, the best ones; two
    generators; and the slices that the validator keeps."""
    e = load(PRETRAIN)
    cost, stage = cost_of(e), stage_of(e)
    parameters = sum(p.numel() for p in stage.module.parameters())
    assert cost.weights == 4 * parameters
    generators = 2 * torch.get_rng_state().numel()
    assert cost.training == 4 * (2 * parameters + 1 + parameters) + generators
    slices = tree_leaves([stage.validator.batch, stage.validator.fit])
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in slices}
    least = 5 * 4 * parameters + sum(storages.values())
    blocks = 5 * sum(1 for _ in stage.module.parameters()) + 1
    assert least <= cost.state < least + 512 * blocks


def test_more_of_everything_needs_more(load):
    first = cost_of(load(FROZEN))
    for change in ("policy_learning.batch=8", "policy_learning.horizon=8"):
        more = cost_of(load(FROZEN, change))
        assert more.update > first.update
        assert more.flops > 1.5 * first.flops
        assert more.state == first.state
    e = load(FROZEN)
    more = [*CELLS, *(Cell(task, seed) for task in TASKS for seed in (3, 4))]
    assert policies_cost(e, more).weights == 2 * policies_cost(e, CELLS).weights


def test_a_tally_counts_what_lives():
    with META, Tally() as tally:
        a = torch.ones(1000)
        b = a.view(10, 100)  # no memory of its own
        assert tally.live == 4096
        c = b + 1
        assert tally.live == 2 * 4096
        del c
        assert tally.live == 4096
        tally.begin()
        for _ in range(3):
            a.add(1).mul(2)
    assert tally.ran == (0, 6, 3 * 4096)
    with META, Tally() as tally:
        x = torch.empty(2, 3) @ torch.empty(3, 5)
    assert x.is_meta
    assert tally.flops == 2 * 2 * 3 * 5


def test_no_generator_is_used_up(load):
    before = torch.get_rng_state()
    cost_of(load(FROZEN))
    assert torch.equal(before, torch.get_rng_state())


# -- memory ----------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GB free, and what its control groups say."""
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    (tmp_path / "own").write_text("0::/job/step\n")
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(control_groups, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(control_groups, "CGROUPS", tmp_path / "groups")

    def group(path, limit, used, cached=0):
        folder = tmp_path / "groups" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nslab 7\n")

    return group


def test_free_memory_is_the_least_that_the_machine_and_its_groups_leave(machine, tmp_path):
    assert free_memory.host_free() == 8_000_000 * 1024
    assert free_memory.host_total() == 16_000_000 * 1024
    machine("job/step", "max", 10)
    assert free_memory.host_free() == 8_000_000 * 1024
    machine("job", 3_000_000, 1_000_000, cached=400_000)
    assert free_memory.host_free() == 2_400_000
    assert free_memory.host_total() == 3_000_000
    machine("job/step", 500, 600)
    assert free_memory.host_free() == 0
    (tmp_path / "meminfo").unlink()
    (tmp_path / "own").unlink()
    assert free_memory.host_free() is None


def test_the_usable_cores_are_the_fewest_that_anything_allows(machine, tmp_path, monkeypatch):
    def write(path, text):
        (tmp_path / "groups" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / path).write_text(text)

    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert usable_cores() == 64
    write("job/step/cpu.max", "max 100000\n")
    assert usable_cores() == 64
    write("job/cpu.max", "1250000 100000\n")
    assert usable_cores() == 12
    (tmp_path / "own").write_text("5:cpu,cpuacct:/pod/box\n4:memory:/x\n0::/job/step\n")
    write("cpu/pod/box/cpu.cfs_quota_us", "-1\n")
    write("cpu/pod/box/cpu.cfs_period_us", "100000\n")
    assert usable_cores() == 12
    write("cpu/cpu.cfs_quota_us", "800000\n")  # of a container, which sees no more than this
    write("cpu/cpu.cfs_period_us", "100000\n")
    assert usable_cores() == 8
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert usable_cores() == 6
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert (usable_cores(), EvaluationConfig().simulators()) == (3, 3)
    assert EvaluationConfig(workers=9).simulators() == 9
    assert EvaluationConfig(workers=9).simulators(2) == 4
    assert cli.parser().parse_args(["data", "collect", "--out", "x"]).workers == 3
    assert hardware(CPU).endswith(", 3 cores")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "9" * 5000)  # more digits than Python reads
    assert usable_cores() == 6
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "many")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7})
    assert usable_cores() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {6, 7})
    write("job/step/cpu.max", "50000 100000\n")
    assert usable_cores() == 1


def test_the_need_of_host_and_device(load):
    costs = [cost_of(load(PRETRAIN)), cost_of(load(FROZEN))]
    all_of_it, none = needs.need(costs, 2, 10, on_gpu=False)
    host, gpu = needs.need(costs, 2, 10, on_gpu=True)
    assert none == 0
    assert all_of_it == host + gpu
    assert gpu == int(1.25 * max(c.state + max(c.update, c.evaluation) for c in costs))
    more, _ = needs.need(costs, 3, 12, on_gpu=True)
    assert more - host == needs.WORKER + 2 * needs.SIMULATION


@pytest.mark.parametrize("kind", ["device", "host"])
def test_data_that_do_not_fit_are_not_loaded(kind, small_store, monkeypatch):
    store = open_store(small_store)
    needed = 3 * store.rows * 124  # the rows, and the only piece decoded and packed
    monkeypatch.setattr(free_memory, "host_free", lambda: needed)
    check_loading(kind, store, CPU)
    monkeypatch.setattr(free_memory, "host_free", lambda: needed - 1)
    with pytest.raises(UserError, match=rf"{store.rows:,} rows need .* of memory") as caught:
        check_loading(kind, store, CPU)
    assert "stream" in caught.value.remedy
    check_loading("stream", store, CPU)


def test_bytes_for_people():
    assert [bytes_text(n) for n in (5, 1234, 999_600, 2.5e9, 3e12)] == [
        "5 B", "1.23 kB", "1 MB", "2.5 GB", "3 TB",
    ]  # fmt: skip


# -- disk and time ---------------------------------------------------------------------------


def test_a_checkpoint_is_as_large_as_said(load, tmp_path):
    from fmbpo.runs.checkpoint import checkpoint_file, save_checkpoint

    for name in (PRETRAIN, FROZEN, SCRATCH):
        e = load(name)
        stage = stage_of(e)
        part = (
            policies_part(e, tmp_path / "none", CELLS)
            if e.policy
            else pretraining_parts(e, [tmp_path / "none"], TASKS)[0]
        )
        path = tmp_path / name.replace("/", "-")
        manifest = {"kind": "x", "step": 0}
        save_checkpoint(path, manifest=manifest, weights=stage.weights(), state=stage.state())
        size = checkpoint_file(path).stat().st_size
        assert 0.8 * size < part.checkpoints[0] < 2 * size


def test_the_disk_at_its_fullest(load, tmp_path):
    e = load(FROZEN, "policy_learning.log_every=2", "policy_learning.evaluate_every=3")
    one = policies_part(e, tmp_path, CELLS)
    logs, evaluations = 3 * 5 * 12, 3 * 5  # 6 iterations, 4 cells and their means
    assert one.beside == remaining.VALUE * (logs + evaluations)
    parts = [attrs.evolve(one, checkpoints=[100], beside=35)]
    parts += [attrs.evolve(one, checkpoints=[400, 300], beside=7)]
    assert remaining.disk_need(parts) == 135 + 707 + 400 + 2 * remaining.FIXED
    assert remaining.disk_need([]) == 0


def test_groups_of_cells_keep_a_checkpoint_each(load, tmp_path):
    one = policies_part(load(FROZEN), tmp_path, CELLS)
    several = policies_part(load(FROZEN, "policy_learning.stack=3"), tmp_path, CELLS)
    assert len(several.checkpoints) == 2
    assert several.cells == 3
    assert sum(several.checkpoints) == pytest.approx(one.checkpoints[0], rel=0.01)
    assert several.updates == 6 + 2  # a group of one is a third of one of three


def test_seconds_are_updates_validations_and_simulated_steps(load, tmp_path):
    part = attrs.evolve(
        policies_part(load(SCRATCH), tmp_path, CELLS), updates=10, validations=3, episodes=4.0
    )
    pace = duration.Pace(0.5, validation=2.0, step=0.01)
    assert part.seconds(pace, 1) == pytest.approx(10 * 0.5 + 3 * 2 + 500 * 0.01 * 4)
    cloning = attrs.evolve(pace, cloning=3.0)  # of each of the two tasks
    assert part.seconds(cloning, 1) == pytest.approx(part.seconds(pace, 1) + 2 * 3.0)
    assert part.validations + part.updates > 0


def test_a_rough_pace_has_a_term_for_products_and_one_for_calls(load):
    cost = attrs.evolve(cost_of(load(PRETRAIN)), flops=6 * 10**9, operations=1000)
    assert duration.rough(cost, 1e10, SUITE).update == pytest.approx(1.0 + 0.015)


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_threads_are_no_more_than_the_usable_cores_unless_asked_for(monkeypatch):
    monkeypatch.setattr("fmbpo.measure.evaluation.usable_cores", lambda: 2)
    with threads(3):
        assert torch.get_num_threads() == 3
        with threads(0):
            assert torch.get_num_threads() == 2
    with threads(1), threads(0):
        assert torch.get_num_threads() == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_need_of_a_gpu(load):
    e = load(PRETRAIN, *SIZES["long"])
    e = attrs.evolve(e, system=attrs.evolve(e.system, device="cuda"))
    device = torch.device("cuda")
    data = load_dataset(e.data, device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    stage = Pretraining(Context(e, data, device), 42)
    for i in (1, 2):
        stage.step(i)
    measured = torch.cuda.max_memory_allocated() - before
    needed = needs.need([cost_of(e)], 0, 0, on_gpu=True)[1]
    assert 0.8 * measured < needed < 2 * measured


def test_a_cost_that_the_tests_know_is_the_one_that_counts(load):
    """Of ``support/known_costs.py``, with which other tests run."""
    experiments = [load(FROZEN), load(FROZEN, "policy_learning.horizon=3"), load(SCRATCH)]
    stages = list(map(stage_of, experiments))
    counted = list(map(cost_of, experiments))
    assert len({cost.flops for cost in counted}) == len(experiments)
    for by in (once, once, always):
        with costs(by):
            assert [remaining.policies_cost(e, CELLS) for e in experiments] == counted
            assert [stage.count_flops() for stage in stages] == [cost.flops for cost in counted]
