"""A whole study in seconds: its commands, and which of their results must be equal.

The commands are an import of a checkpoint, a study of two cells on a pretrained world model, an
experiment on the imported one, and the report on the study.
"""

import json

from same import assert_same_runs, assert_same_tree

from fmbpo.runs.checkpoint import load_checkpoint

SIZES = ["world_model.encoder_units=[48, 48, 48]", "world_model.units=[48, 48]",
         "world_model.latent_dim=32", "world_model.task_dim=16"]  # fmt: skip
MORE = [
    "pretrain.iterations=12",
    "pretrain.log_every=3",
    "pretrain.validate_every=4",
    "pretrain.checkpoint_every=3",
    "policy_learning.iterations=6",
    "policy_learning.critic_iterations=1",
    "policy_learning.critic_minibatches=2",
    "evaluation.final_episodes=1",
    "grid.tasks=['cartpole-balance']",
    "grid.seeds=[1]",
    "policy.units=[8]",
]


class SmallStudy:
    """``commands``: the command lines by their names, in their order."""

    def __init__(self, repository, store, overrides):
        self.repository, self.store, self.overrides = repository, store, [*overrides, *MORE]
        experiment = str(repository / "experiments" / "phase8_mlpwm_mlppolicy.toml")
        file = str(repository / "tests" / "golden" / "pwm" / "tiny_checkpoint.pt")
        self.commands = {
            "import": ["import-checkpoint", file, "--out", "imported"],
            "study": self._run("pair.toml"),
            "imported": self._run(experiment, *SIZES, "protocol.checkpoint=imported"),
            "report": ["report", "pair.toml", "--out", "report"],
        }

    def _run(self, what, *more):
        options = [word for one in (*self.overrides, *more) for word in ("-o", one)]
        return ["run", what, "--scale", "laptop", "--data", str(self.store), *options]

    def write(self, folder):
        """Make the folder, with the study's file in it."""
        folder.mkdir()
        lines = ['kind = "study"', 'factors = ["policy"]']
        for policy in ("mlp", "flow"):
            file = self.repository / "experiments" / f"phase8_mlpwm_{policy}policy.toml"
            lines += [f"[cells.{policy}]", f'experiment = "{file}"']
        (folder / "pair.toml").write_text("\n".join(lines))
        return folder

    def finish(self, forks, folder, *names, here=False):
        """All commands in ``folder``, or those that are named, left alone; the folder. ``here``:
        see ``Forks.run``."""
        for name in names or self.commands:
            ended = forks.run(folder, self.commands[name], here=here)
            assert ended.status == 0, ended.said
        return folder


def registry(forks, folder):
    """What ``fmbpo status`` says, without times."""
    entries = json.loads(forks.run(folder, ["status", "--json"]).said)
    return [{k: v for k, v in entry.items() if k != "runtime"} for entry in entries]


def assert_same(forks, folder, reference, seen=None):
    """The commands' results in ``folder``, which this process may see as ``seen``."""
    seen = seen or folder
    assert_same_runs(seen / "runs", reference / "runs")
    found = registry(forks, folder)
    assert found == registry(forks, reference)
    assert {entry["state"] for entry in found} == {"completed"}
    models = [load_checkpoint(place / "imported") for place in (seen, reference)]
    assert models[0].manifest == models[1].manifest
    assert_same_tree(*(model.weights for model in models))
    tables = sorted(path.name for path in (reference / "report").glob("*.csv"))
    assert tables == ["effects.csv", "results.csv", "seeds.csv"]
    for name in tables:
        found, wanted = ((place / "report" / name).read_text() for place in (seen, reference))
        assert found.replace(str(folder), "") == wanted.replace(str(reference), "")
    # Nothing is left beside them.
    assert {p.name for p in seen.iterdir()} == {p.name for p in reference.iterdir()}
