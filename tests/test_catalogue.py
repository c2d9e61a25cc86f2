"""The study's experiments: they agree with the study's table, and each runs to its end."""

import json
import re
import shutil

import pytest
import torch

from fmbpo.cli import main
from fmbpo.config import load_experiment
from fmbpo.config.factors import differences
from fmbpo.config.study_file import load_study
from fmbpo.hookspecs import Task
from fmbpo.measure.cost import flops
from fmbpo.measure.sizes import dims_of
from fmbpo.tasks.mt30 import SUITE

PAIRS = [(w, p) for w in ("mlp", "flow") for p in ("mlp", "flow")]
ARMS = {  # of the studies of causes and of equal operations: plugin, level
    "tied": ("flow", "tied"),
    "flownoise": ("flow", "flow_noise"),
    "mlpwide": ("mlp", "mlp_wide"),
}
NAMES = {
    ("mlp", "mlp"): "pwm_48M_mt_baseline",
    ("mlp", "flow"): "pwm_48M_mt_flowpolicy",
    ("flow", "mlp"): "pwm_48M_mt_flowwm",
    ("flow", "flow"): "pwm_48M_mt_fullflow",
}
POLICIES = {  # name: (phase, world model, policy, protocol)
    **{f"phase8_{w}wm_{p}policy": ("8", w, p, "frozen") for w, p in PAIRS},
    **{
        f"phase8_{a}wm_{p}policy": ("8", w, p, "frozen")
        for a, (w, _) in ARMS.items()
        for p in ("mlp", "flow")
    },
    **{f"phase8_{w}wm_{p}policy_finetuned": ("8", w, p, "finetuned") for w, p in PAIRS},
    **{f"phase7_{p}policy": ("7", "mlp", p, "finetuned") for p in ("mlp", "flow")},
    **{f"phase3_{p}policy": ("3", "mlp", p, "frozen") for p in ("mlp", "flow")},
}
STUDIES = {  # name: its cells
    "phase8": [f"phase8_{w}wm_{p}policy" for w, p in PAIRS],
    "phase8_causes": [
        f"phase8_{a}wm_{p}policy"
        for a in ("mlp", "tied", "flow", "flownoise")
        for p in ("mlp", "flow")
    ],
    "phase8_mini": [
        f"phase8_{a}wm_{p}policy" for a in ("mlp", "tied", "flow") for p in ("mlp", "flow")
    ],
    "phase8_equal_compute": [
        f"phase8_{a}wm_{p}policy" for a in ("mlp", "mlpwide", "flow") for p in ("mlp", "flow")
    ],
    "phase8_finetuned": [f"phase8_{w}wm_{p}policy_finetuned" for w, p in PAIRS],
    "phase7": ["phase7_mlppolicy", "phase7_flowpolicy"],
    "phase3": ["phase3_mlppolicy", "phase3_flowpolicy"],
    "phase6_mlp_epochs": ["phase6_mlp"] * 4,
    "phase6_fullflow_epochs": ["phase6_fullflow"] * 4,
}
EPOCHS = {"paper": [15_000, 50_000, 100_000, 150_000], "laptop": [75, 250, 500, 750]}
EPOCHS["mini"] = EPOCHS["laptop"]
SEEDS = {
    "paper": [42, 123, 456, 789, 1011],
    "laptop": [123, 456, 789],  # settings of this scale were chosen in world models of seed 42
    "mini": [1201, 1202, 1203, 1204],
}


@pytest.fixture(params=["paper", "laptop", "mini"])
def scale(request):
    return request.param


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_experiment_is_that_of_the_table(name, scale, repository):
    e = load_experiment(repository / f"experiments/{name}.toml", scale=scale, data="embedded")
    arm = name.removeprefix("phase8_").split("wm_")[0]
    assert (e.phase, e.world_model.plugin, e.policy.plugin, e.protocol.kind) == POLICIES[name]
    assert (e.conventions.recorded(), e.aliases) == (
        "corrected",
        [NAMES[e.world_model.plugin, e.policy.plugin]]
        if e.phase == "8" and e.protocol.kind == "frozen" and arm not in ARMS
        else [],
    )
    assert e.world_model.level == ARMS.get(arm, (None, e.world_model.plugin))[1]
    if e.phase == "8":
        assert e.protocol.world_model == f"phase8_pretrain_{arm}wm"
    elif scale == "paper":
        assert e.protocol.checkpoint == "checkpoints/mt30_48M_4900000"
    if scale == "paper":
        assert (e.policy_learning.horizon, e.policy_learning.discount, e.policy_learning.lam) == (
            16, 0.99, 0.95,
        )  # fmt: skip
        assert (e.world_model.config.latent_dim, e.critic.count) == (768, 3)
        assert e.grid.tasks == ["reacher-easy", "walker-stand", "cheetah-run"]
    assert e.grid.seeds == SEEDS[scale]
    assert e.grid.policies_per_model == 1


def test_the_quickstart_differs_in_its_grid_and_its_episodes(scale, repository):
    whole, quick = (
        load_experiment(repository / f"experiments/{name}.toml", scale=scale, data="embedded")
        for name in ("phase8_mlpwm_flowpolicy", "quickstart")
    )
    keys = "grid.seeds", "grid.policies_per_model", "grid.tasks", "evaluation.episodes"
    declared, undeclared = differences([whole, quick], keys)
    assert undeclared == []
    assert bool(declared) == (scale == "laptop")


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_has_its_cells_and_they_differ_in_its_factors_alone(name, scale, repository):
    study = load_study(repository / f"experiments/{name}.toml", scale=scale, data="embedded")
    assert [e.name for e in study.cells.values()] == STUDIES[name]
    assert {e.phase for e in study.cells.values()} == {study.phase}
    if "epochs" in name:
        cells = study.cells.values()
        assert [e.policy_learning.iterations for e in cells] == EPOCHS[scale]
        assert {e.protocol.kind for e in cells} == {"scratch"}
        assert {(e.world_model.plugin, e.policy.plugin) for e in cells} == {
            ("mlp", "mlp") if "mlp" in name else ("flow", "flow")
        }


def test_the_study_in_small_has_the_causes_contrasts(repository):
    mini, causes = (
        load_study(repository / f"experiments/{name}.toml", scale="mini", data="embedded")
        for name in ("phase8_mini", "phase8_causes")
    )
    assert mini.contrasts == {
        **{name: one for name, one in causes.contrasts.items() if name != "stochasticity"},
        "flow world model": {"world_model": ["flow", "mlp"]},
    }


@pytest.mark.parametrize("arm", ["mlp", "flow", *ARMS])
def test_the_pretrainings_differ_in_the_world_model_alone(arm, repository):
    e = load_experiment(repository / f"experiments/phase8_pretrain_{arm}wm.toml", scale="paper",
                        data="embedded")  # fmt: skip
    kind, level = ARMS.get(arm, (arm, arm))
    assert (e.kind, e.phase, e.world_model.plugin, e.world_model.level, e.pretrain.iterations) == (
        "pretrain", "8", kind, level, 200_000,
    )  # fmt: skip


def test_every_arm_weighs_the_error_of_the_dynamics_alike(scale, repository):
    """The terms of the flow's loss add up to the MLP's one."""
    study = load_study(repository / "experiments/phase8_causes.toml", scale=scale, data="embedded")
    configs = [e.world_model.config for e in study.cells.values()]
    assert len({(c.consistency_coef, c.reward_coef, c.rho) for c in configs}) == 1
    flows = [c for c in configs if hasattr(c, "matching_coef")]
    assert len(flows) == 6
    assert {c.matching_coef + c.endpoint_coef for c in flows} == {1.0}


def test_the_policies_have_equal_noise(scale, repository):
    study = load_study(repository / "experiments/phase8.toml", scale=scale, data="embedded")
    configs = [e.policy.config for e in study.cells.values()]
    assert len({(c.init_log_std, c.min_log_std) for c in configs}) == 1
    assert len({type(c) for c in configs}) == 2


def test_the_wide_mlp_has_the_operations_of_the_flow(scale, repository):
    """Per predicted step, within 1 %."""

    def operations(arm):
        file = repository / f"experiments/phase8_pretrain_{arm}wm.toml"
        table = load_experiment(file, scale=scale, data="embedded").world_model
        with torch.device("meta"):
            module = table.component.build(table.config, dims_of(SUITE))
            task = Task(torch.zeros(1, dtype=torch.int64), torch.ones(1, 6), module.embed(
                torch.zeros(1, dtype=torch.int64)))  # fmt: skip
            inputs = torch.zeros(1, module.latent_dim), torch.zeros(1, 6), task, torch.zeros(1, 0)
            return flops(table.component.predict, module, *inputs)

    assert operations("mlpwide") == pytest.approx(operations("flow"), rel=0.01)
    assert operations("mlpwide") > 1.5 * operations("mlp")


@pytest.fixture
def go(repository, tmp_path, small_store, tiny_policy, monkeypatch, capsys):
    """``go(name)`` runs a study of the catalogue on tiny networks; its summaries by cell."""
    shutil.copytree(repository / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)

    def arguments(command, name, *without):
        words = [*command, f"experiments/{name}.toml", "--scale", "laptop"]
        words += ["--data", str(small_store)]
        for override in tiny_policy:
            if override.partition("=")[0] not in without:
                words += ["-o", override]
        return words

    def go(name, *without):
        status = main([*arguments(["run"], name, *without), "--json"])
        out = capsys.readouterr()
        assert status == 0, out.err
        return json.loads(out.out)

    go.arguments = arguments
    return go


@pytest.mark.parametrize(
    "name", ["phase8", pytest.param("phase8_finetuned", marks=pytest.mark.endurance)]
)
def test_a_factorial_runs_to_its_end(name, go, tmp_path):
    found = go(name)
    assert list(found) == [f"{w}wm_{p}policy" for w, p in PAIRS]
    wanted = "finetuned" if "finetuned" in name else "frozen"
    assert {cell["protocol"] for cell in found.values()} == {wanted}
    # Four cells share two pretrained models.
    assert len(list((tmp_path / "runs").glob("phase8_pretrain_*"))) == 2
    checkpoints = {cell["world_model"]["checkpoint"] for cell in found.values()}
    assert len(checkpoints) == 2


@pytest.mark.parametrize(
    "name",
    ["phase6_mlp_epochs", pytest.param("phase6_fullflow_epochs", marks=pytest.mark.endurance)],
)
def test_a_sweep_over_epochs_runs_to_its_end(name, go, tmp_path):
    file = tmp_path / "experiments" / f"{name}.toml"
    text = file.read_text()
    for many, few in zip(EPOCHS["laptop"], (1, 2, 3, 4), strict=True):
        text, count = re.subn(rf"iterations={many}\"", f'iterations={few}"', text)
        assert count == 2  # at scale mini, too
    file.write_text(text)
    found = go(name, "policy_learning.iterations")
    assert {cell["protocol"] for cell in found.values()} == {"scratch"}
    costs = [cell["flops"]["policy_learning"] for cell in found.values()]
    assert costs == [costs[0] * k for k in (1, 2, 3, 4)]


def test_the_phases_on_an_imported_checkpoint_run_to_their_end(go, tmp_path, capsys):
    """Made here: an MLP model is pretrained, exported in TD-MPC2's format and taken in again."""
    assert main(go.arguments(["run"], "phase8_mlpwm_mlppolicy")) == 0
    (pretrained,) = (tmp_path / "runs").glob("phase8_pretrain_mlpwm__*")
    words = ["--format", "tdmpc2", "--out", "laptop_tdmpc2.pt"]
    assert main(["export-checkpoint", str(pretrained), *words]) == 0
    assert main(["import-checkpoint", "laptop_tdmpc2.pt"]) == 0
    capsys.readouterr()
    found = {name: go(name) for name in ("phase3", "phase7")}
    for name, kind in (("phase3", "frozen"), ("phase7", "finetuned")):
        assert list(found[name]) == ["mlppolicy", "flowpolicy"]
        for cell in found[name].values():
            assert cell["protocol"] == kind
            assert cell["world_model"]["checkpoint"] == "checkpoints/laptop_tdmpc2"
    # The very model that was pretrained here: policies of phase 3 are those of phase 8.
    own = json.loads(next((tmp_path / "runs").glob("phase8_mlpwm_mlp*/summary.json")).read_text())
    assert found["phase3"]["mlppolicy"]["tasks"] == own["tasks"]
