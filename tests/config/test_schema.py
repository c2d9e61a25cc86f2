import json
from pathlib import Path

import attrs
import pytest

from fmbpo.base.structure import Problems, structure
from fmbpo.config import Frozen, from_resolved, load_experiment, origins, resolved
from fmbpo.config.study_file import is_study
from fmbpo.errors import UserError, UserErrors
from fmbpo.plugins import list_plugins

REPOSITORY = Path(__file__).parents[2]
FILES = sorted((REPOSITORY / "experiments").glob("*.toml"))
EXPERIMENTS = [path for path in FILES if not is_study(path)]


def refusal(path, *overrides, **options):
    with pytest.raises(UserError) as caught:
        load_experiment(path, overrides=overrides, **options)
    return str(caught.value)


def test_the_defaults_are_the_studys(policy):
    experiment = load_experiment(policy, scale="paper", data=".")
    assert experiment.name == "toy_policy"
    assert experiment.pretrain.iterations == 200_000
    assert experiment.pretrain.batch == 256
    assert experiment.policy_learning.betas == [0.7, 0.95]
    assert experiment.critic.units == [400, 200]
    assert experiment.critic.count == 3
    assert experiment.grid.seeds == [42, 123, 456]
    assert experiment.evaluation.final_episodes == 50
    assert experiment.wandb.mode == "disabled"
    assert experiment.protocol == Frozen(world_model="toy_pretrain")


def test_the_plugins_own_config_structures_its_table(policy):
    experiment = load_experiment(
        policy, overrides=["world_model.solver=heun", "world_model.tau=1", "policy.gate=true"]
    )
    config = experiment.world_model.config
    assert (config.solver, config.tau, config.units) == ("heun", 1.0, [8, 8])
    assert type(config.tau) is float
    assert experiment.world_model.component.distribution == "toys"
    assert experiment.policy.config.gate is True


def test_a_pretrained_protocol_needs_a_world_model(policy):
    text = refusal(policy, "protocol.world_model=''")
    assert "protocol: world_model must name a pretraining experiment" in text
    load_experiment(policy, overrides=["protocol.world_model=''", "protocol.checkpoint=x"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pretrain.batch=3.7", ["pretrain.batch", "3.7 (a float)", "instead of an integer"]),
        ('pretrain.iterations="10"', ["pretrain.iterations", "'10' (a string)"]),
        ("pretrain.iterations=true", ["pretrain.iterations", "true (a boolean)"]),
        ('policy.gate="false"', ["policy.gate", "instead of true or false"]),
        ("policy.gate=1", ["policy.gate", "1 (an integer)"]),
        ("system.compile=true", ["system.compile", "true (a boolean)", "auto"]),
        ("pretrain.learning_rate=true", ["pretrain.learning_rate", "instead of a number"]),
        ("pretrain.learning_rate=nan", ["pretrain.learning_rate", "finite"]),
        ("pretrain.learning_rate=0", ["pretrain.learning_rate", "must be positive"]),
        ("pretrain.batch=-1", ["pretrain.batch", "must be positive"]),
        ("grid.seeds=[-1]", ["grid.seeds", "must not be negative"]),
        ("pretrain.betas=[0.9]", ["pretrain.betas", "two numbers in [0, 1)"]),
        ("pretrain.betas=[0.9, 1]", ["pretrain.betas", "two numbers in [0, 1)"]),
        ("policy_learning.lam=1.5", ["policy_learning.lam", "[0, 1]"]),
        ("policy_learning.discount=0", ["policy_learning.discount", "(0, 1]"]),
        ("policy_learning.critic_minibatches=7", ["policy_learning", "8192", "equal parts"]),
        ("policy_learning.batsh=3", ["policy_learning.batsh", "did you mean 'batch'?"]),
        ("polcy.gate=true", ["polcy", "unknown key", "did you mean 'policy'?"]),
        ("critic.units=[]", ["critic.units", "must not be empty"]),
        ("critic.units=[400, 0]", ["critic.units", "must be positive"]),
        ("critic.units=[400, 2.5]", ["critic.units[1]", "instead of an integer"]),
        ("critic.units=400", ["critic.units", "an array"]),
        ("critic=3", ["critic", "instead of a table"]),
        ("grid.seeds=[42, 42]", ["grid.seeds", "42 more than once"]),
        ("grid.seeds=[true]", ["grid.seeds[0]", "instead of an integer"]),
        ("grid.tasks=[walker]", ["not a TOML value"]),
        ('grid.tasks=["walker-wlk"]', ["grid.tasks", "'walker-wlk'", "did you mean"]),
        ('data.tasks=["walker-walk", "walker_walk"]', ["data.tasks", "walker-walk more than once"]),
        ("data.tasks=3", ["data.tasks", "an array"]),
        ("data.path=3", ["data.path", "instead of a string"]),
        ("data=3", ["data", "instead of a table"]),
        ("wandb.mode=onlin", ["wandb.mode", "'online' or 'offline'", "did you mean 'online'?"]),
        ("kind=polisy", ["kind", "did you mean 'policy'?"]),
        ("protocol.kind=frosen", ["protocol.kind", "did you mean 'frozen'?"]),
        ("protocol.checkpont=x", ["protocol.checkpont", "did you mean 'checkpoint'?"]),
        ("conventions.bundle=pmw", ["conventions.bundle", "did you mean 'pwm'?"]),
        ("conventions.mask=true", ["conventions.mask", "unknown key"]),
        ("protocol=frozen", ["protocol", "instead of a table", "[protocol]"]),
        ("policy.plugin=toy-polcy", ["policy.plugin", "did you mean 'toy-policy'?"]),
        ("policy.plugin=3", ["policy.plugin", "a policy plugin '3'", "toy-policy"]),
        ("policy.gaet=true", ["policy.gaet", "did you mean 'gate'?"]),
        ("policy.plugin=toy-wm", ["policy.plugin", "world model plugin only"]),
        ("world_model.latent_dim=0", ["world_model.latent_dim", "> 0"]),
        ("world_model.solver=hoin", ["world_model.solver", "'euler' or 'heun'"]),
        ("world_model.units=[8, true]", ["world_model.units[1]"]),
        ("world_model=toy-wm", ["world_model", "instead of a table"]),
        ("origin=x", ["origin", "unknown key"]),
        ("scale_reason=x", ["scale_reason", "unknown key"]),
    ],
)
def test_each_mistake_names_override_key_and_hint(policy, override, words):
    text = refusal(policy, override)
    for word in ["override" if "TOML" not in words[0] else "-o", *words]:
        assert word in text, text


def test_a_mistake_that_an_override_brings_to_light_names_the_file(policy):
    text = refusal(policy, 'data.tasks=["reacher-easy"]', "world_model.plugin=other-wm")
    assert "toy_policy.toml: grid: the task 'walker-walk' is not among data.tasks" in text
    assert "toy_policy.toml: world_model.depth: missing\n  -> wanted: an integer" in text


def test_a_mistake_in_a_base_names_the_base(write):
    write("base/b.toml", 'kind = "pretrain"\n[pretrain]\nbatch = "x"\n')
    path = write(
        "a.toml",
        'extends = ["base/b.toml"]\n[world_model]\nplugin = "toy-wm"\nlatnt_dim = 3\n'
        "[scale.laptop.pretrain]\nhorizon = 0\n",
    )
    text = refusal(path)
    assert "base/b.toml: pretrain.batch: 'x' (a string)" in text
    assert "a.toml: world_model.latnt_dim: unknown key\n  -> did you mean 'latent_dim'?" in text
    assert "scale laptop (a.toml): pretrain.horizon: 0 (an integer): must be positive" in text


def test_all_mistakes_are_reported_at_once(policy):
    overrides = ["pretrain.batch=1.5", "policy.gaet=1", "grid.tasks=['x']", "critic.count=0"]
    with pytest.raises(UserErrors) as caught:
        load_experiment(policy, overrides=[*overrides, "world_model.plugin=none", "bogus.x=1"])
    assert len(caught.value.errors) == 6
    assert all(error.where and str(error) in str(caught.value) for error in caught.value.errors)


@pytest.mark.parametrize(
    "table", ["protocol", "conventions", "policy", "policy_learning", "critic"]
)
def test_a_pretraining_has_no_policy_tables(pretrain, table):
    override = {"protocol": "{kind='frozen', world_model='x'}", "policy": "{plugin='toy-policy'}"}
    text = refusal(pretrain, f"{table}={override.get(table, '{}')}", "pretrain.batch=1.5")
    assert f"an experiment of kind 'pretrain' takes no table [{table}]" in text
    assert "pretrain.batch" in text


@pytest.mark.parametrize("table", ["protocol", "policy"])
def test_a_policy_experiment_needs_its_tables(write, policy, table):
    text = policy.read_text().replace(f"[{table}]", "[gone]")
    message = refusal(write("x.toml", text))
    assert f"x.toml: {table}: an experiment of kind 'policy' needs a table [{table}]" in message
    assert f"write [{table}]" in message


def test_a_base_is_no_experiment(write):
    text = refusal(write("b.toml", "[scale.laptop.pretrain]\nbatch = 3\n"))
    assert "b.toml: kind: missing\n  -> wanted: 'pretrain' or 'policy'" in text
    assert "b.toml: world_model: missing" in text


def test_frozen_without_a_world_model_cannot_be_written(write, policy):
    text = policy.read_text().replace('world_model = "toy_pretrain"', "")
    assert "protocol: world_model must name" in refusal(write("x.toml", text))


def test_task_names_are_normalised(policy):
    experiment = load_experiment(policy, overrides=['grid.tasks=["dmcontrol-reacher_easy"]'])
    assert experiment.grid.tasks == ["reacher-easy"]


def test_scale_follows_the_data(pretrain, tmp_path, monkeypatch):
    laptop = load_experiment(pretrain)
    assert (laptop.scale, laptop.data.path) == ("laptop", "embedded")
    assert laptop.pretrain.iterations == 30
    assert "FMBPO_DATA" in laptop.scale_reason
    store = tmp_path / "store"
    store.mkdir()
    for paper in [
        load_experiment(pretrain, data=str(store)),
        load_experiment(pretrain, overrides=["data.path=store"]),
    ]:
        assert paper.scale == "paper"
        assert paper.pretrain.iterations == 200_000
        assert "store" in paper.scale_reason
    asked = load_experiment(pretrain, scale="laptop", data=str(store))
    assert (asked.scale, asked.data.path) == ("laptop", str(store))
    monkeypatch.setenv("FMBPO_DATA", str(store))
    by_environment = load_experiment(pretrain)
    assert (by_environment.scale, by_environment.data.path) == ("paper", str(store))
    assert origins(by_environment)["data.path"] == "environment variable FMBPO_DATA"
    assert load_experiment(pretrain, overrides=["data.path=."]).data.path == "."


def test_the_file_may_name_the_data(write, pretrain):
    path = write("x.toml", pretrain.read_text() + '[data]\npath = "."\n')
    assert load_experiment(path).scale == "paper"


def test_scale_mistakes(pretrain, write):
    text = refusal(pretrain, scale="laptp")
    assert "did you mean 'laptop'?" in text
    assert "toy_pretrain.toml" in text
    text = refusal(pretrain, scale="paper")
    assert "no data set is configured" in text
    assert "--data PATH" in text
    assert "FMBPO_DATA" in text
    bare = write("x.toml", pretrain.read_text().split("[scale")[0])
    assert "has no scale 'laptop'" in refusal(bare)


def test_missing_data_are_an_error_never_a_fall_back(pretrain, monkeypatch):
    assert "--data: data.path: the data set 'nowhere' does not exist" in refusal(
        pretrain, data="nowhere"
    )
    assert "override: data.path" in refusal(pretrain, "data.path=nowhere", scale="laptop")
    monkeypatch.setenv("FMBPO_DATA", "/no/such/store")
    assert "environment variable FMBPO_DATA: data.path" in refusal(pretrain)


def test_resolved_is_json_and_has_an_inverse(policy, pretrain):
    for path in [policy, pretrain]:
        experiment = load_experiment(path, overrides=["world_model.units=[3, 4]"])
        values = json.loads(json.dumps(resolved(experiment), allow_nan=False))
        assert from_resolved(values) == experiment
        assert values["world_model"]["units"] == [3, 4]
        assert "origin" not in values
    with pytest.raises(UserErrors, match=r"pretrain\.batch"):
        from_resolved({**values, "pretrain": {**values["pretrain"], "batch": "x"}})


def test_every_value_has_an_origin(policy):
    where = origins(load_experiment(policy, overrides=["critic.count=5"]))
    assert where["critic.count"] == "override"
    assert where["policy.plugin"] == "toy_policy.toml"
    assert where["pretrain.iterations"] == "scale laptop (toy_policy.toml)"
    assert where["pretrain.batch"] == "default"


def test_an_experiment_is_frozen(policy):
    experiment = load_experiment(policy)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        experiment.pretrain.batch = 3


INSTALLED = {(item.kind, item.name) for item in list_plugins()}
WANTED = {(kind, name) for kind in ["world_model", "policy"] for name in ["mlp", "flow"]}
studies = pytest.mark.skipif(not WANTED <= INSTALLED, reason="the study's plugins are missing")


@studies
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("scale", ["paper", "laptop"])
def test_the_studys_files_load(path, scale):
    experiment = load_experiment(path, scale=scale, data=".")
    assert experiment.name == path.stem
    paper = scale == "paper"
    assert experiment.world_model.config.latent_dim == (768 if paper else 128)
    assert experiment.pretrain.iterations == (200_000 if paper else 5000)
    if experiment.protocol is not None:
        names = {other.stem for other in EXPERIMENTS}
        own = experiment.protocol.world_model in names
        assert own != bool(experiment.protocol.checkpoint)
        assert own == (experiment.phase == "8")


@studies
def test_the_policy_experiments_differ_in_the_declared_factors_alone():
    def rest(path):
        experiment = load_experiment(path, data=".")
        values = resolved(experiment)
        told = ["name", "phase", "description", "aliases", "world_model", "policy", "protocol"]
        for key in told:
            values.pop(key)
        return values

    quadrants = [path for path in EXPERIMENTS if "policy" in path.stem]
    assert len(quadrants) == 18
    assert all(rest(path) == rest(quadrants[0]) for path in quadrants)


@studies
def test_names_and_aliases_are_unique():
    experiments = [load_experiment(path, data=".") for path in EXPERIMENTS]
    names = [name for e in experiments for name in [e.name, *e.aliases]]
    assert len(set(names)) == len(names)
    assert "pwm_48M_mt_fullflow" in names


@attrs.frozen
class Raising:
    """A plugin's settings whose own code fails in ways that attrs' never does."""

    width: int = attrs.field(
        default=1, converter=lambda value: value.bit_count() and 1 // (value - 2)
    )
    depth: int = 1

    def __attrs_post_init__(self):
        if self.depth == 3:
            raise RuntimeError("not three")


def test_what_converters_and_classes_raise_is_a_problem_at_its_key():
    with pytest.raises(Problems) as caught:
        structure({"width": 2, "depth": "a"}, Raising)
    assert [item.path for item in caught.value.problems] == [("width",), ("depth",)]
    assert caught.value.problems[0].what.startswith("2 (an integer): integer division")
    with pytest.raises(Problems) as caught:
        structure({"depth": 3}, Raising)
    assert [item.what for item in caught.value.problems] == ["not three"]


def test_types_that_cannot_be_resolved_name_their_class_and_the_remedy():
    lost = attrs.make_class("Lost", {"x": attrs.field(type="Unheard")})
    with pytest.raises(Problems) as caught:
        structure({"x": 1}, lost)
    (item,) = caught.value.problems
    assert "Lost cannot be resolved" in item.what
    assert "'Unheard'" in item.what
    assert item.remedy
