"""Every mistake that a user can make ends with status 2 and one message: what, where, remedy."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from jsonschema import Draft202012Validator

from fmbpo.cli import main
from fmbpo.data.store_writer import StoreWriter
from fmbpo.runs.checkpoint import checkpoint_file, load_checkpoint, save_checkpoint

PRETRAIN, POLICY = "phase8_pretrain_mlpwm", "phase8_mlpwm_mlppolicy"
SHORT = ["grid.tasks=['cartpole-balance']", "grid.seeds=[1]", "evaluation.final_episodes=1"]


@pytest.fixture
def mistake(repository, small_store, tiny_policy, tmp_path, monkeypatch, capsys):
    """``mistake(words, ...)``: the message has each of the words; no file is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FMBPO_DATA", raising=False)

    def check(
        words,
        *overrides,
        command="run",
        file=PRETRAIN,
        scale="laptop",
        data=small_store,
        runs="runs",
        tidy=True,
    ):
        path = file if isinstance(file, Path) else repository / "experiments" / f"{file}.toml"
        tiny = tiny_policy + SHORT if "policy" in str(file) else tiny_policy[:13]
        arguments = [command, str(path), *(["--runs", str(runs)] if command == "run" else [])]
        arguments += ["--scale", scale] if scale else []
        arguments += ["--data", str(data)] if data else []
        arguments += [x for o in [*tiny, *overrides] for x in ("-o", o)]
        before = sorted(tmp_path.rglob("*"))
        assert main(arguments) == 2
        out = capsys.readouterr()
        message = out.err[out.err.index("error: ") :]
        for word in words:
            assert word in message, message
        says_how = ("  -> ", "instead of", "must", "more than once", "equal parts")
        assert any(word in message for word in says_how), "no remedy"
        assert "Traceback" not in out.err
        assert out.out == "" or command == "check"
        if tidy:
            assert sorted(tmp_path.rglob("*")) == before
        return message

    return check


# -- the experiment file and the command line ------------------------------------------------


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("world_model.plugin=mlpp", ["override: world_model.plugin", "'mlpp'", "'mlp'?"]),
        ("world_model.plugin=3", ["world_model.plugin", "plugin '3'"]),
        ("data.tasks=['reacher-eazy']", ["override: data.tasks", "'reacher-easy'?"]),
        ("pretrain.iteration=3", ["override: pretrain.iteration", "unknown key", "'iterations'?"]),
        ("pretrian.batch=3", ["override: pretrian", "unknown key", "'pretrain'?"]),
        ("pretrain.batch=0.5", ["pretrain.batch", "0.5", "an integer"]),
        ("pretrain.batch=0", ["pretrain.batch", "positive"]),
        ("pretrain.learning_rate=fast", ["pretrain.learning_rate", "a number"]),
        ("pretrain.learning_rate=nan", ["pretrain.learning_rate", "finite"]),
        ("pretrain=3", ["pretrain", "table"]),
        ("world_model.latent_dim=17", ["world_model.latent_dim", "multiple of 8"]),
        ("pretrain.batch", ["-o pretrain.batch", "not an override", "key=value"]),
        ("=3", ["-o =3", "not an override"]),
        ("pretrain.batch=[1", ["-o pretrain.batch=[1", "not a TOML value"]),
        ("scale=paper", ["-o scale=paper", "--scale"]),
        ("wandb.project=a/b", ["wandb.project", "none of / "]),
        ("system.device=quantum", ["system.device", "'quantum'", '"cpu"']),
        ("system.device=cuda:77", ["system.device", "'cuda:77'", '"cpu"']),
        ("system.device=meta", ["system.device", "'meta'", '"cpu"']),
        ("data.weights={ reacher-easy = 1e30 }", ["data.weights", "[0.001, 1000]"]),
        ("data.weights={ reacher-easy = 1e-9 }", ["data.weights", "[0.001, 1000]"]),
        ("pretrain.horizon=41", ["41 rows", "slice of 42", "pretrain.horizon"]),
    ],
)
def test_bad_values(override, words, command, mistake):
    mistake(words, override, command=command)


def test_a_rate_that_spoils_the_parameters_at_once(mistake):
    words = ["encoder.0.linear.weight", "not finite after one update", "lower the learning rate"]
    mistake(words, "pretrain.learning_rate=1e300", command="check")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("protocol.kind=[1]", ["protocol.kind", "unknown protocol [1] (an array)"]),
        ("protocol.kind=''", ["protocol.kind: missing", "known: finetuned, frozen, scratch"]),
        ("policy.plugin=''", ["policy.plugin: missing", "`fmbpo plugins`"]),
        ("protocol.kind=frozne", ["protocol.kind", "unknown protocol 'frozne'", "'frozen'?"]),
        ("policy.plugin=gaussian", ["policy.plugin", "'gaussian'", "installed policy plugins"]),
        ("grid.tasks=['walker-fly']", ["grid.tasks", "walker-fly"]),
        ("grid.tasks=['walker-run']", ["grid.tasks", "no episodes of task 'walker-run'",
                                       "reacher-easy, cartpole-balance"]),
        ("grid.seeds=[1, 1]", ["grid.seeds", "more than once"]),
        ("policy_learning.critic_minibatches=7", ["critic_minibatches = 7", "equal parts"]),
        ('name="two words"', ["'two words'", "letters"]),
    ],
)  # fmt: skip
def test_bad_values_of_a_policy_experiment(override, words, mistake):
    """Before the world model is trained, not after."""
    mistake(words, override, file=POLICY)


def test_several_mistakes_are_reported_together(mistake):
    message = mistake(["pretrain.batch", "grid.seeds", "policy.unit"], "pretrain.batch=-1",
                      "grid.seeds=[]", "policy.unit=3", file=POLICY)  # fmt: skip
    assert message.count("  -> ") >= 1


def test_a_missing_file(mistake, repository):
    file = repository / "experiments" / "phase8_pretrain_mlpvm.toml"
    mistake(["no such file", "phase8_pretrain_mlpvm.toml", "'phase8_pretrain_mlpwm.toml'?"],
            file=file)  # fmt: skip


def test_no_toml(mistake, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("name = mine\n")
    mistake(["mine.toml", "not TOML", "line 1"], file=file)
    file.write_bytes(b"\xff\xfe")
    mistake(["mine.toml", "not TOML", "save it as UTF-8"], file=file)
    file.write_bytes(b'\xef\xbb\xbfkind = "pretrain"\n')
    mistake(["mine.toml", "byte-order mark", "save it as UTF-8"], file=file)
    for text in ("x = " + "[" * 3000, ".".join("a" * 3000) + " = 1", "x = " + "9" * 5000):
        file.write_text(text)
        mistake(["mine.toml"], file=file)
        assert len(mistake(["-o "], text.replace("x =", "pretrain.batch ="))) < 400
    mistake(["cannot be read"], file=tmp_path)
    file.write_text('extends = ["yours.toml"]\n')
    mistake(["mine.toml: extends", "yours.toml", "no such file"], file=file)


def test_scales(mistake):
    mistake(["--scale laptap", "no scale 'laptap'", "'laptop'?"], scale="laptap")
    mistake(["--scale paper", "no data set is configured", "FMBPO_DATA"], scale="paper", data=None)


def test_usage_mistakes_end_in_2_too(capsys):
    for arguments in ([], ["runn"], ["run"], ["run", "phase8", "--scales", "y"], ["data"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "usage: fmbpo" in capsys.readouterr().err


# -- the data --------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [None, "laptop", "paper"])
def test_a_missing_data_set_is_never_replaced(scale, mistake, monkeypatch, tmp_path):
    missing = str(tmp_path / "gone.zarr")
    mistake([missing, "does not exist", "--data"], data=missing, scale=scale)
    monkeypatch.setenv("FMBPO_DATA", missing)
    mistake([missing, "environment variable FMBPO_DATA", "not exist"], data=None, scale=scale)


@pytest.fixture
def store(small_store, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(small_store, tmp_path / "mine.zarr"))


def drop_a_chunk(store):
    next((store / "data" / "reward" / "c").rglob("[0-9]*")).unlink()


def cut_a_chunk(store):
    chunk = next(p for p in (store / "data" / "obs" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:100])


def drop_an_array(store):
    shutil.rmtree(store / "data" / "action")


def drop_the_attributes(store):
    meta = json.loads((store / "zarr.json").read_text())
    del meta["attributes"]["id"]
    (store / "zarr.json").write_text(json.dumps(meta))


def spoil(name, change):
    def apply(store):
        group = zarr.open_group(store, mode="a")
        group[name][:] = change(group[name][:])

    return apply


def nan_in(values):
    values.reshape(-1)[37] = np.nan
    return values


def widen(store):
    group = zarr.open_group(store, mode="a")
    wide = np.pad(group["data/obs"][:], ((0, 0), (0, 3)))
    del group["data/obs"]
    group.create_array("data/obs", data=wide)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (drop_a_chunk, ["data/reward", "truncated", "chunks missing"]),
        (cut_a_chunk, ["data/obs"]),
        (drop_an_array, ["data/action", "missing"]),
        (drop_the_attributes, ["id"]),
        (spoil("data/obs", nan_in), ["data/obs", "not finite"]),
        (spoil("data/reward", nan_in), ["data/reward", "not finite"]),
        (spoil("meta/episode_task", lambda v: v + 2), ["meta/episode_task"]),
        (spoil("meta/episode_ends", lambda v: v[::-1]), ["meta/episode_ends"]),
        (widen, ["data/obs", "27", "[N, 24]"]),
    ],
)
def test_a_spoilt_store(harm, words, store, mistake, capsys):
    harm(store)
    mistake(["mine.zarr", *words], data=store)
    assert main(["data", "verify", str(store)]) == 2
    assert words[0] in capsys.readouterr().err


def test_no_store(mistake, tmp_path):
    (tmp_path / "empty").mkdir()
    mistake(["empty", "fmbpo wrote"], data=tmp_path / "empty")
    (tmp_path / "file.zarr").write_text("text")
    mistake(["file.zarr", "fmbpo wrote"], data=tmp_path / "file.zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    mistake(["other.zarr"], data=tmp_path / "other.zarr")


def test_tasks_that_the_data_lack(mistake):
    words = ["small.zarr", "data.tasks names task 'walker-run'", "no episodes of it"]
    mistake(words, "data.tasks=['walker-run']")


def test_data_without_a_held_out_episode(mistake, tmp_path):
    writer = StoreWriter(tmp_path / "one.zarr", ["reacher-easy"], ["random"])
    writer.append(
        obs=np.zeros((20, 6), np.float32),
        action=np.zeros((20, 2), np.float32),
        reward=np.zeros(20, np.float32),
        task="reacher-easy",
        behaviour="random",
    )
    writer.finish({})
    words = ["one.zarr", "no episodes to validate on", "two episodes"]
    mistake(words, data=tmp_path / "one.zarr")


# -- what is in the way of a run -------------------------------------------------------------


def test_a_file_in_the_way(mistake, tmp_path):
    (tmp_path / "runs").write_text("mine")
    mistake(["runs", "there is a file in place of a folder"])
    assert (tmp_path / "runs").read_text() == "mine"
    mistake(["there is a file in place of a folder"], runs=tmp_path / "runs" / "deeper")


def test_no_permission(mistake, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    mistake(["runs", "no permission to write here", "choose a folder"])


@pytest.fixture(scope="module")
def pretrained(repository, small_store, tiny_policy, tmp_path_factory):
    """A folder with one complete pretraining run."""
    runs = tmp_path_factory.mktemp("pretrained") / "runs"
    options = [x for o in tiny_policy[:13] for x in ("-o", o)]
    file = repository / "experiments" / f"{PRETRAIN}.toml"
    where = ["--scale", "laptop", "--data", str(small_store), "--runs", str(runs)]
    assert main(["run", str(file), *where, *options]) == 0
    return runs


@pytest.fixture
def runs(pretrained, tmp_path):
    """A copy that a test may spoil; the run's folder."""
    shutil.copytree(pretrained, tmp_path / "runs")
    return next((tmp_path / "runs").glob(f"{PRETRAIN}__*"))


def other_kind(best):
    loaded = load_checkpoint(best)
    manifest = {**loaded.manifest, "kind": "policies"}
    save_checkpoint(best, manifest=manifest, weights=loaded.weights, state=None)


def flip_a_bit(path):
    content = bytearray(checkpoint_file(path).read_bytes())
    content[-5] ^= 1
    checkpoint_file(path).write_bytes(content)


def cut(path):
    checkpoint_file(path).write_bytes(checkpoint_file(path).read_bytes()[:-5])


def old_format(path):
    checkpoint_file(path).unlink()
    path.mkdir()
    (path / "manifest.json").write_text("{}")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (other_kind, ["kind 'policies'", "'world_model' is needed"]),
        (flip_a_bit, ["best.safetensors", "weights do not match their SHA-256"]),
        (cut, ["best.safetensors", "corrupt file"]),
        (old_format, ["an older format"]),
        (lambda path: checkpoint_file(path).unlink(), ["there is no checkpoint here"]),
    ],
)
def test_a_spoilt_checkpoint(harm, words, runs, mistake):
    harm(runs / "checkpoints" / "best")
    mistake(["best", *words], file=POLICY)


def test_a_spoilt_training_state(runs, mistake):
    (runs / "summary.json").unlink()
    flip_a_bit(runs / "checkpoints" / "pretrain")
    mistake(["pretrain.safetensors", "SHA-256"], tidy=False)


def test_a_spoilt_summary(runs, mistake):
    (runs / "summary.json").write_text("{}")
    mistake([str(runs.name)], file=POLICY)
    (runs / "summary.json").write_text("{")
    mistake(["summary.json", "not valid JSON"], file=POLICY)


def test_a_run_with_another_configuration(runs, mistake):
    (runs / "summary.json").unlink()
    config = json.loads((runs / "config.json").read_text())
    config["pretrain"]["batch"] = 9
    (runs / "config.json").write_text(json.dumps(config))
    mistake(["config.json", "another configuration", "pretrain.batch: 9 -> 8"])


def test_a_run_continued_in_another_world_model(runs, mistake):
    rates = [f"policy_learning.{r}_learning_rate=1e30" for r in ("actor", "critic")]
    mistake(["diverged"], *rates, file=POLICY, tidy=False)  # leaves an unfinished run
    best = runs / "checkpoints" / "best"
    loaded = load_checkpoint(best)
    weights = {name: value + 1e-3 for name, value in loaded.weights.items()}
    save_checkpoint(best, manifest=loaded.manifest, weights=weights, state=None)
    mistake(["made with a different world model"], *rates, file=POLICY, tidy=False)


def test_a_folder_that_is_no_run(runs, mistake):
    shutil.rmtree(runs)
    runs.mkdir()
    (runs / "thesis.txt").write_text("mine")
    mistake([runs.name, "not a run", "thesis.txt"], tidy=False)
    assert (runs / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("every", [1, 2])
def test_divergence(every, mistake, tmp_path):
    """It is found before diverged weights are saved, in a loss or in a validation measure."""
    mistake(
        ["training has diverged", "(pretrain)", "lower the learning rate", "checkpoint is kept"],
        "pretrain.learning_rate=1e30",
        "pretrain.checkpoint_every=1",
        f"pretrain.validate_every={every}",
        tidy=False,
    )
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "summary.json").exists()
    lines = (folder / "metrics.jsonl").read_text()
    assert "NaN" not in lines
    assert "Infinity" not in lines
    if checkpoint_file(folder / "checkpoints" / "pretrain").exists():
        load_checkpoint(folder / "checkpoints" / "pretrain")


def test_divergence_of_a_policy(runs, mistake):
    words = ["training has diverged", "(policies)", "lower the learning rate"]
    rates = [f"policy_learning.{r}_learning_rate=1e30" for r in ("actor", "critic")]
    mistake(words, *rates, file=POLICY, tidy=False)


# -- plugins of others -----------------------------------------------------------------------


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """``offer(name, group, source)`` installs a module as a plugin for this test."""

    def offer(name, group, source):
        home = tmp_path / f"site-{name}"
        module = f"mistaken_{name.replace('-', '_')}_{tmp_path.name}"
        info = home / f"dist_{name}-0.3.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 0.3\n")
        (info / "entry_points.txt").write_text(f"[fmbpo.{group}]\n{name} = {module}\n")
        (home / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(home))
        importlib.invalidate_caches()
        return f"{module}.py"

    return offer


def test_a_broken_plugin_beside_the_good_ones(offer, runs, mistake, capsys):
    offer("rotten", "policies", "import no_such_module_of_mine\n")
    assert main(["plugins"]) == 0
    out = capsys.readouterr().out.splitlines()
    rows = {tuple(line.split()[:2]): line for line in out}
    for known in (("world_model", "mlp"), ("world_model", "flow"), ("policy", "mlp")):
        assert known in rows
    assert "dist-rotten" in rows["policy", "rotten"]
    assert main(["plugins", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["rotten"]["version"] == "0.3"
    # The good one beside it still runs as far as to meet the next mistake.
    mistake(["no episodes of task"], "grid.tasks=['walker-run']", file=POLICY)
    words = ["policy.plugin", "'rotten'", "dist-rotten 0.3", "no_such_module_of_mine", "install"]
    mistake(words, "policy.plugin=rotten", file=POLICY)


CHECK_ODD = ["plugins", "check", "odd", "--json", "--check", "settings_survive_a_file"]


@pytest.mark.parametrize("command", [["config", "schema"], CHECK_ODD])
def test_a_plugin_that_prints_spoils_no_json(command, offer, capsys):
    """Nor does one whose validator compares words."""
    source = WORLD_MODEL.replace("{method}", "pass").replace(
        "spec_version, Config,",
        """
import attrs

def _words():
    print("of a default")
    return ["b"]

@attrs.frozen(kw_only=True)
class Config(MLPWorldModel.Config):
    word: str = attrs.field(default="b", validator=attrs.validators.gt("a"))
    words: list[str] = attrs.field(factory=_words)

print("at import")
small = MLPWorldModel.small
spec_version, _,""",
    )
    offer("odd", "world_models", source)
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "at import" in err
    assert "of a default" in err
    assert "at import" not in out
    found = json.loads(out)
    if command == ["config", "schema"]:
        Draft202012Validator.check_schema(found)
        assert "world_model odd" in out


def test_a_run_with_a_good_plugin_beside_a_broken_one(
    offer, repository, small_store, tiny, tmp_path, capsys
):
    offer("rotten", "world_models", "raise RuntimeError('rotten')\n")
    file = repository / "experiments" / f"{PRETRAIN}.toml"
    options = [x for o in tiny for x in ("-o", o)]
    where = ["--scale", "laptop", "--data", str(small_store), "--runs", str(tmp_path / "runs")]
    assert main(["run", str(file), *where, *options]) == 0
    assert "rotten" not in capsys.readouterr().err


WORLD_MODEL = """
import torch
from fmbpo_wm_mlp import MLPWorldModel
from fmbpo.hookspecs import Prediction, Rollout, hookimpl

class Plugin(MLPWorldModel):
    {method}

plugin = Plugin()
spec_version, Config, build = plugin.spec_version, plugin.Config, plugin.build
predict, rollout, loss, freeze = plugin.predict, plugin.rollout, plugin.loss, plugin.freeze
"""
POLICY_PLUGIN = WORLD_MODEL.replace("fmbpo_wm_mlp", "fmbpo_policy_mlp").replace(
    "MLPWorldModel", "GaussianPlugin"
)

LOSS = """@hookimpl
    def loss(self, module, batch, noise, done):
        loss, metrics = super().loss(module, batch, noise, done)
        {}"""
ROLLOUT = """@hookimpl
    def rollout(self, module, state, partner, task, noise):
        z, a, r, _ = super().rollout(module, state, partner, task, noise)
        {}"""
POLICYS_ROLLOUT = ROLLOUT.replace("state", "z")
PREDICT = """@hookimpl
    def predict(self, module, state, action, task, noise):
        z, r, _ = super().predict(module, state, action, task, noise)
        {}"""
ACT = """@hookimpl
    def predict(self, module, z, task, noise):
        a = super().predict(module, z, task, noise)
        {}"""
ACTOR_LOSS = """@hookimpl
    def loss(self, module, imagined, context):
        loss, metrics = super().loss(module, imagined, context)
        {}"""
BUILD = """def build(self, config, dims):
        {}"""
FREEZE = """@hookimpl
    def freeze(self, module):
        {}"""


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (LOSS.format("raise ValueError('my mistake')"), ["ValueError: my mistake", "in loss"]),
        (LOSS.format("return loss.expand(4), metrics"), ["the loss of `loss`", "shape [4]"]),
        (LOSS.format("return loss, {'x': 3.0}"), ["x of `loss`", "float", "not a tensor"]),
        (LOSS.format("return loss"), ["Error"]),
        (LOSS.format("return loss * float('nan'), metrics"), ["not finite"]),
        (LOSS.format("return loss.detach(), metrics"), ["RuntimeError"]),
        (ROLLOUT.format("return Rollout(z[1:], a, r)"), ["latent of `rollout`", "not [4, 4, 16]"]),
        (ROLLOUT.format("return Rollout(z, a, r[..., :5])"), ["reward of `rollout`"]),
        (ROLLOUT.format("return Rollout(z, a[..., :1], r)"), ["action of `rollout`"]),
        (ROLLOUT.format("1 / 0"), ["ZeroDivisionError", "in rollout"]),
        (PREDICT.format("return Prediction(z[..., :8], r)"), ["latent of `predict`"]),
        (PREDICT.format("return z"), ["Error"]),
        (BUILD.format("return None"), ["Error"]),
        (BUILD.format("raise TypeError('no such size')"), ["TypeError: no such size", "in build"]),
        (BUILD.format("return torch.nn.Linear(2, 2)"), ["AttributeError"]),
        (FREEZE.format("pass"), ["`freeze` leaves parameters"]),
    ],
)
def test_check_names_a_world_model_that_breaks_its_contract(method, words, offer, mistake):
    source = WORLD_MODEL.replace("{method}", method)
    file = offer("mistaken", "world_models", source)
    words = [file if word.startswith("in ") else word for word in words] + words
    experiment = POLICY if method.startswith(FREEZE[:40]) else PRETRAIN
    words = ["world model 'mistaken'", *words]
    mistake(words, "world_model.plugin=mistaken", command="check", file=experiment)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (ACT.format("raise ValueError('my mistake')"), ["ValueError: my mistake", "in predict"]),
        (ACT.format("return a[..., :1]"), ["`predict`'s result", "[4, 1], not [4, 6]"]),
        (ACT.format("return a * 3 + task.mask_BA * 2"), ["leave [-1, 1]"]),
        (ACT.format("return torch.tanh(a + 1)"), ["not 0 where the mask is"]),
        (POLICYS_ROLLOUT.format("return Rollout(z[1:], a, r)"), ["latent of `rollout`"]),
        (POLICYS_ROLLOUT.format("1 / 0"), ["ZeroDivisionError", "in rollout"]),
        (ACTOR_LOSS.format("return imagined.return_B, metrics"), ["the loss of `loss`"]),
        (ACTOR_LOSS.format("return loss, {'x': imagined.return_B}"), ["x of `loss`", "shape [4]"]),
        (ACTOR_LOSS.format("loss.item(); raise KeyError('k')"), ["KeyError", "in loss"]),
        (BUILD.format("return None"), ["Error"]),
    ],
)
def test_check_names_a_policy_that_breaks_its_contract(method, words, offer, mistake):
    offer("mistaken", "policies", POLICY_PLUGIN.replace("{method}", method))
    words = ["policy 'mistaken'", *words]
    mistake(words, "policy.plugin=mistaken", command="check", file=POLICY)


def test_check_blames_the_world_model_for_what_it_does_to_a_policy(offer, mistake):
    method = PREDICT.format("1 / (len(noise) - len(z) + module.reward[0].weight.requires_grad)")
    offer("mistaken", "world_models", WORLD_MODEL.replace("{method}", method + "; return 1"))
    words = ["world model 'mistaken'", "in predict"]
    mistake(words, "world_model.plugin=mistaken", command="check", file=POLICY)


def test_a_plugin_that_fails_during_a_run(offer, mistake, tmp_path):
    method = LOSS.format("raise ValueError('my mistake')")
    file = offer("mistaken", "world_models", WORLD_MODEL.replace("{method}", method))
    words = ["world model 'mistaken'", "ValueError: my mistake", f"{file}:", "in loss"]
    mistake([*words, "fmbpo check"], "world_model.plugin=mistaken", tidy=False)
    (text,) = (tmp_path / "runs").rglob("plugin-error.txt")
    assert text.read_text().startswith("Traceback")
    assert "my mistake" in text.read_text()


def test_a_plugin_that_fails_before_a_run_has_a_folder(offer, mistake, tmp_path, repository):
    offer("mistaken", "world_models", WORLD_MODEL.replace("{method}", BUILD.format("1 / 0")))
    base = [f"{repository}/experiments/base/{p}.toml" for p in ("policies", "policy_mlp")]
    file = tmp_path / "scratch_policy.toml"
    file.write_text(f'extends = {base}\nkind = "policy"\n[protocol]\nkind = "scratch"\n')
    words = ["world model 'mistaken'", "ZeroDivisionError", "in build", "plugin-error.txt"]
    mistake(words, "world_model.plugin=mistaken", file=file, tidy=False)
    assert "ZeroDivisionError" in (tmp_path / "runs" / "plugin-error.txt").read_text()


def test_a_policy_whose_actions_are_not_finite(offer, mistake):
    source = POLICY_PLUGIN.replace("{method}", ACT.format("return a / 0"))
    offer("mistaken", "policies", source)
    words = ["evaluation in the simulator", "cartpole-balance, step 0", "the action is not finite"]
    mistake(words, "policy.plugin=mistaken", file=POLICY, tidy=False)


# -- what must stay light and what must work -------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["plugins", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom fmbpo.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'zarr', 'wandb', 'dm_control', 'rich', 'matplotlib', 'scipy'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "fmbpo" in done.stdout


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out.split()[0] == "fmbpo"


def test_the_embedded_data(capsys):
    assert main(["data", "info", "embedded"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["id"].startswith("sha256:")
    assert info["episodes"]
    assert main(["data", "verify", "embedded"]) == 0
    assert info["id"] in capsys.readouterr().out
    assert main(["data", "info", "nowhere.zarr"]) == 2
    assert "nowhere.zarr: there is no data set here" in capsys.readouterr().err
