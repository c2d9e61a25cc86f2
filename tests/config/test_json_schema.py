"""The schema of experiment files, held by an independent validator against what fmbpo accepts."""

import datetime
import enum
import importlib.util
import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import attrs
import pytest
from jsonschema import Draft202012Validator

from fmbpo.base.structure import fit, plain, structure, takes
from fmbpo.cli import main
from fmbpo.config import json_schema, load_experiment
from fmbpo.config.json_schema import _table, meanings, schema_text
from fmbpo.config.protocols import PROTOCOLS
from fmbpo.config.study_file import CellConfig, load_study
from fmbpo.plugins import Listing, list_plugins

REPOSITORY = Path(__file__).parents[2]
SCHEMA = REPOSITORY / "experiments" / "schema.json"
VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
FILES = sorted((REPOSITORY / "experiments").rglob("*.toml"))


def refused(text, validator=VALIDATOR):
    return not validator.is_valid(tomllib.loads(text))


# -- the committed schema, and the files of the repository -------------------------------------


def test_the_committed_schema_is_current():
    file = REPOSITORY / "docs" / "generate_configuration.py"
    spec = importlib.util.spec_from_file_location("generate", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert SCHEMA.read_text(encoding="utf-8") == module.schema_file(), (
        "run: python docs/generate_configuration.py"
    )


def test_the_schema_is_one():
    Draft202012Validator.check_schema(VALIDATOR.schema)
    assert VALIDATOR.schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_shipped_file_names_the_schema_and_keeps_to_it(file):
    text = file.read_text(encoding="utf-8")
    directive, path = text.splitlines()[0].split()
    assert directive == "#:schema"
    assert (file.parent / path).resolve() == SCHEMA
    assert list(VALIDATOR.iter_errors(tomllib.loads(text))) == []


def objects(schema):
    """Every part of a schema that describes a table by its keys."""
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


def test_no_table_has_room_for_unknown_keys():
    tables = list(objects(VALIDATOR.schema))
    assert len(tables) > 15
    assert all(table["additionalProperties"] is False for table in tables)


# -- mistakes that both the schema and `fmbpo check` refuse --------------------------------------

PART = """
kind = "policy"
phase = "test"
aliases = ["old"]
[data]
tasks = []
[world_model]
plugin = "flow"
substeps = 2
units = [16]
[pretrain]
iterations = 10
betas = [0.9, 0.99]
[protocol]
kind = "finetuned"
world_model = "phase8_pretrain_flowwm"
model_iterations = 2
[conventions]
bundle = "pwm"
[policy]
plugin = "mlp"
init_log_std = -1.0
[policy_learning]
lam = 0.9
[critic]
units = [8]
[grid]
seeds = [1, 2]
[evaluation]
planner = "none"
[wandb]
mode = "disabled"
[system]
graph = "auto"
"""
SCALES = """[scale.laptop.pretrain]
batch = 8
[scale.laptop.policy]
units = [8]
"""
PART += SCALES
STUDY = """
kind = "study"
description = "a study"
factors = ["policy_learning.lam"]
[cells.high]
experiment = "part.toml"
[cells.low]
experiment = "part.toml"
overrides = ["policy_learning.lam=0.5"]
"""
MISTAKES = {
    # unknown keys, at every level
    "unknown key": ('phase = "test"', "phaze = 8", "phaze"),
    "unknown table": ("[critic]", "[critics]", "critics"),
    "reserved key": ('phase = "test"', 'scale_reason = "mine"', "scale_reason"),
    "factors without a study": ('phase = "test"', 'factors = ["policy"]', "factors"),
    "unknown key of a table": ("iterations = 10", "iteration = 10", "pretrain.iteration"),
    "unknown key of a plugin": ("substeps = 2", "sub_steps = 2", "world_model.sub_steps"),
    "another plugin's key": ("init_log_std = -1.0", "substeps = 2", "policy.substeps"),
    "a pretraining with a policy": ('kind = "policy"', 'kind = "pretrain"', "policy"),
    # wrong types
    "string for integer": ("iterations = 10", 'iterations = "10"', "pretrain.iterations"),
    "float for integer": ("iterations = 10", "iterations = 10.5", "pretrain.iterations"),
    "boolean for integer": ("iterations = 10", "iterations = true", "pretrain.iterations"),
    "boolean for number": ("lam = 0.9", "lam = true", "policy_learning.lam"),
    "string for boolean": ("substeps = 2", 'detach_velocity = "no"', "world_model.detach_velocity"),
    "number for string": ('phase = "test"', "phase = 8", "phase"),
    "date for string": ('phase = "test"', "phase = 2026-01-01", "phase"),
    "string for array": ('aliases = ["old"]', 'aliases = "old"', "aliases"),
    "number for array": ("units = [16]", "units = 16", "world_model.units"),
    "array for string": ('plugin = "mlp"', 'plugin = ["mlp"]', "policy.plugin"),
    "wrong element": ("seeds = [1, 2]", "seeds = [1, 2.5]", "grid.seeds[1]"),
    "value for table": ("[critic]\nunits = [8]", "", "critic", "critic = 3\n"),
    "array of tables": ("[critic]", "[[critic]]", "critic"),
    "extends one file": ('phase = "test"', 'extends = "x.toml"', "extends"),
    "a plugin's wrong type": ("init_log_std = -1.0", 'gate = "no"', "policy.gate"),
    # wrong words
    "unknown kind": ('kind = "policy"', 'kind = "polisy"', "kind"),
    "unknown word": ('mode = "disabled"', 'mode = "off"', "wandb.mode"),
    "a plugin's unknown word": ("substeps = 2", 'solver = "rk5"', "world_model.solver"),
    "unknown bundle": ('bundle = "pwm"', 'bundle = "pmw"', "conventions.bundle"),
    "unknown plugin": ('plugin = "mlp"', 'plugin = "mlpp"', "policy.plugin"),
    "unknown protocol": ('kind = "finetuned"', 'kind = "tuned"', "protocol.kind"),
    "frozen that learns": ('kind = "finetuned"', 'kind = "frozen"', "protocol.model_iterations"),
    "scratch that is given": ('kind = "finetuned"', 'kind = "scratch"', "protocol.world_model"),
    # scales
    "scale as a word": (SCALES, "", "scale", 'scale = "laptop"\n'),
    "scale that is no table": (SCALES, "[scale]\nlaptop = 3\n", "scale.laptop"),
    "unknown table of a scale": ("[scale.laptop.pretrain]", "[scale.laptop.pretrian]", "pretrian"),
    "unknown key of a scale": ("batch = 8", "batsh = 8", "pretrain.batsh"),
    "kind in a scale": ("[scale.laptop.pretrain]\nbatch = 8", "[scale.laptop]\nkind = 'policy'",
                        "kind"),
    "name in a scale": ("[scale.laptop.pretrain]\nbatch = 8", "[scale.laptop]\nname = 'x'", "name"),
    "a plugin's key in a scale": ("[scale.laptop.policy]\nunits", "[scale.laptop.policy]\nunit",
                                  "policy.unit"),
}  # fmt: skip
STUDY_MISTAKES = {
    "unknown key of a study": ('description = "a study"', 'describe = "x"', "describe"),
    "a study with a table": ("[cells.high]", "[pretrain]\nbatch = 3\n[cells.high]", "pretrain"),
    "a study with a scale": ("[cells.high]", "[scale.laptop.grid]\n[cells.high]", "scale"),
    "a factor that is no word": ('["policy_learning.lam"]', "[3]", "factors"),
    "unknown key of a cell": ("overrides", "override", "cells.low.override"),
    "one override in a cell": ('["policy_learning.lam=0.5"]', '"policy_learning.lam=0.5"',
                               "cells.low.overrides"),
    "cells in an array": ("[cells.high]", "[[cells]]", "cells"),
}  # fmt: skip
RULES = {
    "zero": ("iterations = 10", "iterations = 0", "pretrain.iterations"),
    "above one": ("lam = 0.9", "lam = 1.5", "policy_learning.lam"),
    "open bound": ("lam = 0.9", "discount = 0", "policy_learning.discount"),
    "negative": ("seeds = [1, 2]", "seeds = [1, -2]", "grid.seeds"),
    "one decay rate": ("betas = [0.9, 0.99]", "betas = [0.9]", "pretrain.betas"),
    "decay rate of one": ("betas = [0.9, 0.99]", "betas = [0.9, 1]", "pretrain.betas"),
    "empty array": ("[critic]\nunits = [8]", "[critic]\nunits = []", "critic.units"),
    "zero in an array": ("[critic]\nunits = [8]", "[critic]\nunits = [0]", "critic.units"),
    "twice in an array": ("seeds = [1, 2]", "seeds = [1, 1]", "grid.seeds"),
    "empty string": ('graph = "auto"', 'device = ""', "system.device"),
    "a plugin's zero": ("substeps = 2", "substeps = 0", "world_model.substeps"),
    "a plugin's empty array": ("units = [16]", "units = []", "world_model.units"),
    "a plugin's coefficient": ("substeps = 2", "rho = 1.5", "world_model.rho"),
    "empty name": ('phase = "test"', 'name = ""', "name"),
    "out of range in a scale": ("batch = 8", "batch = 0", "pretrain.batch"),
    "no factors": ('factors = ["policy_learning.lam"]', "", "factors"),
    "empty factors": ('factors = ["policy_learning.lam"]', "factors = []", "factors"),
    "the same factor twice": ('["policy_learning.lam"]', '["policy", "policy"]', "factors"),
    "a cell without experiment": ('experiment = "part.toml"\noverrides', "overrides",
                                  "cells.low.experiment"),
    "a cell with nothing as its experiment": ('"part.toml"\noverrides', '""\noverrides',
                                              "cells.low.experiment"),
}  # fmt: skip


def fails(text, key, write, capsys):
    """``fmbpo check`` refuses the text, beside an experiment that is right, and names the key."""
    write("part.toml", PART)
    assert main(["check", str(write("mistaken.toml", text))]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    assert key in message, message


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_by_the_schema_and_by_check(name, write, capsys):
    old, new, key, *before = MISTAKES[name]
    assert old in PART
    text = "".join(before) + PART.replace(old, new, 1)
    assert refused(text)
    fails(text, key, write, capsys)


@pytest.mark.parametrize("name", STUDY_MISTAKES)
def test_a_studys_mistake_is_refused_by_the_schema_and_by_check(name, write, capsys):
    old, new, key = STUDY_MISTAKES[name]
    assert old in STUDY
    text = STUDY.replace(old, new, 1)
    if "[[" in new:
        text = text.replace("[cells.low]", "").replace('experiment = "part.toml"\n', "", 1)
    assert refused(text)
    fails(text, key, write, capsys)


@pytest.mark.parametrize("name", RULES)
def test_a_broken_rule_is_refused_by_check_alone(name, write, capsys):
    old, new, key = RULES[name]
    good = PART if old in PART else STUDY
    assert old in good
    text = good.replace(old, new, 1)
    assert not refused(text)
    fails(text, key, write, capsys)


def test_without_the_mistakes_both_are_right(write):
    assert list(VALIDATOR.iter_errors(tomllib.loads(PART))) == []
    assert list(VALIDATOR.iter_errors(tomllib.loads(STUDY))) == []
    assert load_experiment(write("part.toml", PART)).pretrain.batch == 8
    assert len(load_study(write("study.toml", STUDY)).cells) == 2


# -- parts of experiments -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        'extends = ["a.toml"]',
        "[world_model]\nlatent_dim = 16",
        "[world_model]\nsubsteps = 2",
        "[protocol]\nworld_model = 'x'",
        "[scale.tiny]\nphase = '1'",
        "[scale.tiny.world_model]\nplugin = 'mlp'",
        "[grid]",
        "kind = 'study'",
        "cells = {}",
        "kind = 'study'\nextends = ['a.toml']\n[cells.third]\noverrides = []",
    ],
)
def test_what_a_part_leaves_out_is_not_demanded(text):
    assert not refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "[policy]\nsubsteps = 2\nplugin = 'mlp'",  # of flow
        "[protocol]\nmodel_iterations = 2\nkind = 'frozen'",
        "[world_model]\nplugin = 'toy-wm'",  # installed here, but none of the repository's
        "kind = 'study'\n[grid]",
    ],
)
def test_what_a_part_holds_must_fit(text):
    assert refused(text)


# -- types of plugins' settings ---------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Inner:
    """An inner table."""

    depth: int
    """How deep."""


@attrs.frozen(kw_only=True)
class Everything:
    """Whatever a plugin may think of."""

    bounded: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    """Between ``0`` and
    2."""
    optional: float | None = None
    word: Literal["ab", "c"] = "ab"
    pair: tuple[int, ...] = (1,)
    sequence: Sequence[int] = attrs.field(factory=list)
    mapping: Mapping[str, int] = attrs.field(factory=dict)
    either: int | str = 3
    inner: Inner = attrs.field(default=Inner(depth=1))
    several: list[Inner] = attrs.field(factory=list)
    named: dict[str, int] = attrs.field(factory=dict)
    same: typing.Any = None
    hidden: set[int] = attrs.field(factory=set, init=False)


class Mode(enum.Enum):
    A = "a"


UNKNOWN = [Mode, Path, datetime.date, set[int], tuple[int, int], list, dict[int, str]]


@pytest.mark.parametrize("hint", [hint for one in UNKNOWN for hint in (one, list[one], one | None)])
def test_a_type_that_no_file_can_hold(hint):
    assert not takes(hint)
    assert not takes(attrs.make_class("Config", {"x": attrs.field(type=hint)}))


def test_whatever_types_a_plugin_has():
    assert takes(Everything)
    schema = _table(Everything)
    validator = Draft202012Validator(schema)
    right = [
        {}, {"bounded": 1.5}, {"optional": 1}, {"word": "c"}, {"pair": [1, 2]}, {"either": "x"},
        {"several": [{"depth": 1}]}, {"named": {"a": 1}}, {"same": [1, "x"]}, {"sequence": [2]},
        {"mapping": {"a": 2}},
    ]  # fmt: skip
    wrong = [
        {"bounded": "x"}, {"optional": "x"}, {"word": "a"}, {"pair": ["x"]}, {"pair": 1},
        {"either": 0.5}, {"inner": {"x": 1}}, {"several": [{"depth": "x"}]},
        {"named": {"a": "b"}}, {"hidden": 1}, {"sequence": ["x"]}, {"mapping": {"a": "b"}},
    ]  # fmt: skip
    assert [value for value in [*right, {"inner": {}}] if not validator.is_valid(value)] == []
    assert [value for value in wrong if validator.is_valid(value)] == []
    for value in right:
        again = plain(structure(value, Everything))
        assert structure(again, Everything) == structure(value, Everything)
    assert [value for value in wrong if fit(value, Everything)] == []
    assert schema["description"] == "Whatever a plugin may think of."
    assert schema["properties"]["bounded"]["description"] == "Between `0` and 2."
    assert schema["properties"]["inner"]["default"] == {"depth": 1}
    assert schema["properties"]["pair"]["default"] == [1]
    assert "default" not in schema["properties"]["optional"]


def test_docstrings_are_read_through_bases_and_never_fail():
    assert meanings(PROTOCOLS["finetuned"])["checkpoint"].startswith("A world model's checkpoint")
    assert meanings(CellConfig)["experiment"] == "The file, relative to the study's file."
    assert meanings(attrs.make_class("Made", ["x"])) == {}


# -- plugins of others --------------------------------------------------------------------------


def test_installed_plugins_are_in_the_schema(capsys):
    assert main(["config", "schema"]) == 0
    out = capsys.readouterr()
    assert "toy-wm" not in out.err
    validator = Draft202012Validator(json.loads(out.out))
    assert not refused("[world_model]\nplugin = 'toy-wm'\ntau = 0.5", validator)
    assert refused("[world_model]\nplugin = 'toy-wm'\nsolver = 'rk5'", validator)
    assert refused("[world_model]\nplugin = 'mlp'\ntau = 0.5", validator)
    assert refused("[policy]\nplugin = 'toy-wm'", validator)
    assert out.out == schema_text()


def test_plugins_that_cannot_be_loaded_are_left_out_and_named():
    said = []
    good = [item for item in list_plugins() if item.name in ("mlp", "flow")]
    broken = Listing("policy", "gone", "1", "gone-dist", "gone")
    schema = schema_text([*good, broken, broken], said.append)
    assert len(said) == 1
    assert "'gone'" in said[0]
    assert schema == schema_text(good)


def test_a_plugin_of_whose_settings_no_schema_can_be_made_is_left_out(monkeypatch):
    unsayable = attrs.make_class("Unsayable", {"x": attrs.field(default=float("nan"), type=float)})
    monkeypatch.setattr(json_schema, "load_plugin", lambda *_: SimpleNamespace(Config=unsayable))
    said = []
    strange = Listing("policy", "strange", "1", "strange-dist", "strange")
    assert schema_text([strange], said.append) == schema_text([])
    assert "policy strange (strange): ValueError" in said[0]


def test_with_no_plugin_no_table_is_right():
    validator = Draft202012Validator(json.loads(schema_text([])))
    Draft202012Validator.check_schema(validator.schema)
    assert refused("[policy]", validator)
    assert not refused("[grid]", validator)
