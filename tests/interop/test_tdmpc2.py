"""World models out of TD-MPC2's and PWM's files: names, sizes, and files that are refused."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fmbpo.cli import main
from fmbpo.errors import UserError
from fmbpo.hookspecs import Task, WorldModelDims
from fmbpo.interop.tdmpc2 import Sizes, exported, read_world_model, renamed
from fmbpo.nn.blocks import simnorm
from fmbpo.plugins import load_plugin
from fmbpo.runs.checkpoint import load_checkpoint

GOLDEN = Path(__file__).parent.parent / "golden"
OLD, NEW = (GOLDEN / "pwm" / f"tiny_checkpoint{style}.pt" for style in ("", "_new_api"))
TINY = Sizes([48, 48, 48], [48, 48], 32, 16)


def test_both_styles_hold_the_same_world_model():
    old, sizes = read_world_model(OLD)
    new, same = read_world_model(NEW)
    assert sizes == same == TINY
    assert old.keys() == new.keys()
    assert len(old) == 39
    for name, value in old.items():
        assert torch.equal(value, new[name]), name


def test_pwms_own_names_and_the_way_back():
    ours, _ = read_world_model(OLD)
    with np.load(GOLDEN / "pwm" / "wm_weights.npz") as file:
        theirs = {k: torch.from_numpy(file[k]) for k in file.files}
    again = renamed(theirs)
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[k], ours[k]) for k in ours)
    raw = torch.load(OLD, weights_only=True)["model"]
    back = exported(ours)
    assert back.keys() == {k for k in raw if k.split(".")[0] not in ("_pi", "_Qs", "_target_Qs")}
    assert all(torch.equal(value, raw[k]) for k, value in back.items())


@pytest.fixture(scope="module")
def paper_file(tmp_path_factory):
    """A 48M file with the recorded names and shapes of the real one, random numbers in it."""
    table = json.loads((GOLDEN / "key_table_48M_mt30.json").read_text())["old_api"]
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("paper") / "mt30_48M.pt"
    torch.save({"model": {name: torch.randn(shape) for name, shape in table.items()}}, file)
    return file


MEASURE = """
import resource, sys
from pathlib import Path
from fmbpo.interop.checkpoints import import_checkpoint
import safetensors.torch
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
print(import_checkpoint(Path(sys.argv[1]), Path(sys.argv[2])))
print(peak() - before)
"""


def test_the_papers_model_is_imported_in_little_memory(paper_file, tmp_path):
    out = tmp_path / "model"
    command = [sys.executable, "-c", MEASURE, str(paper_file), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    sizes, grown = done.stdout.splitlines()
    assert "'encoder_units': [1792, 1792, 1792], 'units': [1792, 1792]" in sizes
    assert "'latent_dim': 768, 'task_dim': 64" in sizes
    part = 18_983_909 * 4 / 2**20  # MiB of the world model, a quarter of the file
    assert paper_file.stat().st_size / 2**20 > 3.5 * part
    # The mapped pages that were read, and one copy to be written.
    assert float(grown) < 2.5 * part
    weights = load_checkpoint(out, with_state=False, expect_kind="world_model").weights
    assert sum(value.numel() for value in weights.values()) == 18_983_909


def built(kind, **settings):
    component = load_plugin("world_model", kind)
    sizes = {"encoder_units": [48] * 3, "units": [48] * 2, "latent_dim": 32, "task_dim": 16}
    config = component.Config(**{**sizes, **settings})
    return component, component.build(config, WorldModelDims(obs=24, action=6, tasks=30))


def test_the_flow_model_at_one_euler_step_is_the_mlp_model():
    """From one imported checkpoint, to 1e-6, over a rollout; and the reward heads are equal."""
    weights, _ = read_world_model(OLD)
    torch.manual_seed(0)
    index = torch.tensor([0, 5, 7, 29])
    actions, rollouts = torch.rand(16, 4, 6) * 2 - 1, []
    z = simnorm(torch.randn(4, 32))
    for kind, settings in (("mlp", {}), ("flow", {"solver": "euler", "substeps": 1})):
        component, module = built(kind, **settings)
        module.load_state_dict(module.adopt(weights))
        task = Task(index, torch.ones(4, 6), module.embed(index))
        noise = torch.empty(16, 4, 0)
        act = lambda t, _: actions[t]  # noqa: E731
        rollouts.append(component.rollout(module, z, act, task, noise)[:3])
    for a, b in zip(*rollouts, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6 * float(b.detach().abs().max()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"parameterisation": "tangent"}, "dynamics.2"), ({"latent_dim": 40}, "has shape")],
)
def test_a_model_of_other_sizes_does_not_adopt(settings, words):
    weights, _ = read_world_model(OLD)
    _, module = built("flow", **settings)
    with pytest.raises(ValueError, match=words):
        module.adopt(weights)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["import-checkpoint", str(OLD)]) == 0
    out = capsys.readouterr().out
    assert "latent_dim = 32\n" in out
    assert 'checkpoint = "checkpoints/tiny_checkpoint"' in out
    loaded = load_checkpoint(tmp_path / "checkpoints" / "tiny_checkpoint", with_state=False)
    assert loaded.manifest["imported"]["file"] == "tiny_checkpoint.pt"
    # The same file again: there is nothing to do. Another one, or a damaged copy, is a mistake.
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert main(["import-checkpoint", str(OLD)]) == 0
    again = capsys.readouterr()
    assert again.out == out
    assert "is already this world model" in again.err
    assert main(["import-checkpoint", str(NEW), "--out", "checkpoints/tiny_checkpoint"]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == files
    weights = tmp_path / "checkpoints" / "tiny_checkpoint.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert main(["import-checkpoint", str(OLD)]) == 2
    assert "corrupt file" in capsys.readouterr().err


def state(**changes):
    """The tiny file's parameters, some replaced, some (None) left out."""
    content = dict(torch.load(NEW, weights_only=True)["model"])
    for name, value in changes.items():
        content.pop(name, None)
        if value is not None:
            content[name] = value
    return content


class Hostile:
    """Unpickled, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (Path(self.path), "pwned"))


HARMS = [
    ({"_encoder.state.1.bias": None}, "encoder"),
    ({"_dynamics.0.ln.weight": None}, "dynamics.0.norm.weight has shape none"),
    ({"_reward.2.weight": torch.zeros(7, 48), "_reward.2.bias": torch.zeros(7)},
     r"reward.2.bias has shape \[7\], not \[101\]"),
    ({"_task_emb.weight": torch.zeros(80, 16)}, r"shape \[80, 16\], but MT30 has 30 tasks"),
    ({"_task_emb.weight": torch.zeros(30, 17)}, "has shape"),
    ({"_task_emb.weight": torch.zeros(30)}, "task_embedding.weight has shape"),
    ({"_encoder.state.0.weight": torch.zeros(48, 30)}, "encoder.0.linear.weight has shape"),
    ({"_encoder.rgb.0.weight": torch.zeros(3)}, "unknown parameter '_encoder.rgb.0.weight'"),
    ({"_dynamics.0.bias": torch.full((48,), float("nan"))}, "is not finite"),
    ({"_dynamics.0.bias": torch.zeros(48, dtype=torch.int64)}, "not a tensor of floating-point"),
    ({"_action_masks": torch.ones(30, 6)}, "action widths of the file"),
    ({"_task_emb.weight": torch.zeros(1).expand(10**6, 10**6)}, "no|not stored as a plain array"),
    ({"_task_emb.weight": torch.zeros(30, 16).to_sparse()}, "not stored as a plain array"),
    ({"_task_emb.weight": torch.zeros(30, 16, device="meta")}, "not stored as a plain array"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), HARMS, ids=[words[:25] for _, words in HARMS])
def test_a_file_of_another_kind(changes, words, tmp_path):
    torch.save({"model": state(**changes)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=words) as caught:
        read_world_model(tmp_path / "x.pt")
    assert "trained on MT30" in caught.value.remedy


def test_nothing_in_a_file_is_executed(tmp_path):
    victim, file = tmp_path / "victim", tmp_path / "x.pt"
    torch.save({"model": state(), "extra": Hostile(victim)}, file)
    with pytest.raises(UserError, match="it was not executed"):
        read_world_model(file)
    file.write_bytes(pickle.dumps(Hostile(victim)))
    with pytest.raises(UserError, match="not a torch file"):
        read_world_model(file)
    assert not victim.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", OLD.read_bytes()[:5000]])
def test_a_damaged_file(content, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"truncated or damaged|the file is empty"):
        read_world_model(tmp_path / "x.pt")


def test_no_file_and_no_dictionary(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_world_model(tmp_path / "x.pt")
    with pytest.raises(UserError, match="a folder instead of a file"):
        read_world_model(tmp_path)
    torch.save(torch.zeros(3), tmp_path / "x.pt")
    with pytest.raises(UserError, match="holds a Tensor"):
        read_world_model(tmp_path / "x.pt")
