"""The schema of experiment files, held by an independent validator against what fmbpo accepts."""

import importlib.util
import json
import re
import shlex
import tomllib
import typing
from pathlib import Path
from typing import Literal

import attrs
import pytest
from jsonschema import Draft202012Validator

from fmbpo.base.structure import Problems, structure
from fmbpo.cli import main
from fmbpo.config import load_experiment, resolved
from fmbpo.config import validators as checks
from fmbpo.config.docstrings import meanings
from fmbpo.config.json_schema import (
    _constrain,
    _table,
    config_schema,
    file_schema,
    fits,
    schema_text,
)
from fmbpo.config.protocols import PROTOCOLS
from fmbpo.config.schema import Experiment
from fmbpo.config.study_file import CellConfig, is_study, load_study
from fmbpo.plugins import Listing, list_plugins, load_plugin

REPOSITORY = Path(__file__).parents[2]
SCHEMA = REPOSITORY / "experiments" / "schema.json"
VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
FILES = sorted((REPOSITORY / "experiments").rglob("*.toml"))
WHOLE = [file for file in FILES if file.parent == SCHEMA.parent]


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
compile = false
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
    "a pretraining with a grid": ('kind = "policy"', 'kind = "pretrain"', "grid"),
    # wrong types
    "string for integer": ("iterations = 10", 'iterations = "10"', "pretrain.iterations"),
    "float for integer": ("iterations = 10", "iterations = 10.5", "pretrain.iterations"),
    "boolean for integer": ("iterations = 10", "iterations = true", "pretrain.iterations"),
    "boolean for number": ("lam = 0.9", "lam = true", "policy_learning.lam"),
    "string for boolean": ("compile = false", 'compile = "false"', "system.compile"),
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
    # out of range
    "zero": ("iterations = 10", "iterations = 0", "pretrain.iterations"),
    "above one": ("lam = 0.9", "lam = 1.5", "policy_learning.lam"),
    "open bound": ("lam = 0.9", "discount = 0", "policy_learning.discount"),
    "negative": ("iterations = 10", "seed = -1", "pretrain.seed"),
    "one decay rate": ("betas = [0.9, 0.99]", "betas = [0.9]", "pretrain.betas"),
    "decay rate of one": ("betas = [0.9, 0.99]", "betas = [0.9, 1]", "pretrain.betas"),
    "empty array": ("[critic]\nunits = [8]", "[critic]\nunits = []", "critic.units"),
    "zero in an array": ("[critic]\nunits = [8]", "[critic]\nunits = [0]", "critic.units"),
    "twice in an array": ("seeds = [1, 2]", "seeds = [1, 1]", "grid.seeds"),
    "empty string": ("compile = false", 'device = ""', "system.device"),
    "a plugin's zero": ("substeps = 2", "substeps = 0", "world_model.substeps"),
    "a plugin's empty array": ("units = [16]", "units = []", "world_model.units"),
    "a plugin's coefficient": ("substeps = 2", "rho = 1.5", "world_model.rho"),
    "empty name": ('phase = "test"', 'name = ""', "name"),
    # scales
    "scale as a word": (SCALES, "", "scale", 'scale = "laptop"\n'),
    "scale that is no table": (SCALES, "[scale]\nlaptop = 3\n", "scale.laptop"),
    "unknown table of a scale": ("[scale.laptop.pretrain]", "[scale.laptop.pretrian]", "pretrian"),
    "unknown key of a scale": ("batch = 8", "batsh = 8", "pretrain.batsh"),
    "out of range in a scale": ("batch = 8", "batch = 0", "pretrain.batch"),
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
    "no factors": ('factors = ["policy_learning.lam"]', "", "factors"),
    "empty factors": ('factors = ["policy_learning.lam"]', "factors = []", "factors"),
    "the same factor twice": ('["policy_learning.lam"]', '["policy", "policy"]', "factors"),
    "a factor that is no word": ('["policy_learning.lam"]', "[3]", "factors"),
    "a cell without experiment": ('experiment = "part.toml"\noverrides', "overrides",
                                  "cells.low.experiment"),
    "a cell with nothing as its experiment": ('"part.toml"\noverrides', '""\noverrides',
                                              "cells.low.experiment"),
    "unknown key of a cell": ("overrides", "override", "cells.low.override"),
    "one override in a cell": ('["policy_learning.lam=0.5"]', '"policy_learning.lam=0.5"',
                               "cells.low.overrides"),
    "cells in an array": ("[cells.high]", "[[cells]]", "cells"),
}  # fmt: skip


def mistaken(good, old, new, before=""):
    assert old in good
    return before + good.replace(old, new, 1)


def check(text, write, capsys):
    """The status and the message of ``fmbpo check``, beside an experiment that is right."""
    write("part.toml", PART)
    status = main(["check", str(write("mistaken.toml", text))])
    return status, capsys.readouterr().err


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_by_the_schema_and_by_check(name, write, capsys):
    old, new, key, *before = MISTAKES[name]
    text = mistaken(PART, old, new, *before)
    assert refused(text)
    status, message = check(text, write, capsys)
    assert status == 2
    assert message.startswith("error: ")
    assert "Traceback" not in message
    assert key in message, message


@pytest.mark.parametrize("name", STUDY_MISTAKES)
def test_a_studys_mistake_is_refused_by_the_schema_and_by_check(name, write, capsys):
    old, new, key = STUDY_MISTAKES[name]
    text = mistaken(STUDY, old, new).replace("[cells.low]", "" if "[[" in new else "[cells.low]")
    text = text.replace('experiment = "part.toml"\n', "", 1) if "[[" in new else text
    assert refused(text)
    status, message = check(text, write, capsys)
    assert status == 2
    assert message.startswith("error: ")
    assert "Traceback" not in message
    assert key in message, message


def test_without_the_mistakes_both_are_right(write):
    assert list(VALIDATOR.iter_errors(tomllib.loads(PART))) == []
    assert list(VALIDATOR.iter_errors(tomllib.loads(STUDY))) == []
    assert load_experiment(write("part.toml", PART)).pretrain.batch == 8
    assert len(load_study(write("study.toml", STUDY)).cells) == 2
    assert len(MISTAKES) + len(STUDY_MISTAKES) >= 40


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
        "kind = 'study'\nextends = ['a.toml']",
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
        "kind = 'study'",
        "cells = {}",
    ],
)
def test_what_a_part_holds_must_fit(text):
    assert refused(text)


# -- the schema says what the structuring does --------------------------------------------------

VALUES = [
    -1, 0, 1, 7, 16, 0.5, 1.5, -0.5, 2**31, 2**31 + 1, True, False, "", "x", "none", [], [1],
    [1, 1], [1, 2], [0, 1], [0.5, 0.5], [0.5, 1], [0.1, 0.2, 0.3], ["a"], ["a", "a"], [True], {},
    {"a": 1},
]  # fmt: skip


def classes():
    """(Key of the table, what its branch is chosen by, class)."""
    hints = typing.get_type_hints(Experiment)
    for name in (f.name for f in attrs.fields(Experiment)):
        for cls in (hints[name], *typing.get_args(hints[name])):
            if isinstance(cls, type) and attrs.has(cls) and cls.__name__.endswith("Config"):
                yield name, {}, cls
    for kind, cls in PROTOCOLS.items():
        yield "protocol", {"kind": kind}, cls
    for kind in ("world_model", "policy"):
        for name in ("mlp", "flow"):
            yield kind, {"plugin": name}, load_plugin(kind, name).Config


def words(hint):
    return list(typing.get_args(hint)) if typing.get_origin(hint) is Literal else []


@pytest.mark.parametrize(("table", "which", "cls"), list(classes()))
def test_schema_and_structuring_refuse_the_same_values(table, which, cls):
    hints, seen = typing.get_type_hints(cls), 0
    for field in attrs.fields(cls):
        for value in VALUES + words(hints[field.name]):
            try:
                structure({field.name: value}, cls)
                accepted = True
            except Problems as problems:  # those of the whole table have no path
                accepted = all(problem.path[:1] != (field.name,) for problem in problems.problems)
            told = VALIDATOR.is_valid({table: {**which, field.name: value}})
            if field.name == "latent_dim" and isinstance(value, int):
                continue  # its validator tells no rule
            if field.name in which:
                continue  # it chooses the branch
            assert told == accepted, f"{table}.{field.name} = {value!r}"
            seen += accepted
    assert seen > len(attrs.fields(cls))


NUMBERS = [-1, 0, 0.5, 1, 1.5]
ARRAYS = [[], [1], [0, 0], [0, 0.9], [0.5, 1], [0.5, 0.5], [-1, 2], [0.1, 0.2, 0.3]]


@pytest.mark.parametrize(
    ("validator", "values"),
    [
        (checks.positive, NUMBERS + ARRAYS),
        (checks.non_negative, NUMBERS + ARRAYS),
        (checks.within(0, 1), NUMBERS),
        (checks.within(0, 1, open_low=True), NUMBERS),
        (checks.betas, ARRAYS),
        (checks.unique, ARRAYS),
        (checks.filled, [*ARRAYS, "", "x"]),
    ],
)
def test_each_check_carries_its_own_rule(validator, values):
    verdicts = set()
    for value in values:
        entry = {"type": "string" if isinstance(value, str) else "number"}
        if isinstance(value, list):
            entry = {"type": "array", "items": entry | {"type": "number"}}
        _constrain(entry, validator)
        try:
            validator(None, None, value)
            accepted = True
        except ValueError:
            accepted = False
        assert Draft202012Validator(entry).is_valid(value) == accepted, (entry, value)
        verdicts.add(accepted)
    assert verdicts == {True, False}


@attrs.frozen(kw_only=True)
class Inner:
    """An inner table."""

    depth: int
    """How deep."""


@attrs.frozen(kw_only=True)
class Everything:
    """Whatever a plugin may think of."""

    bounded: float = attrs.field(
        default=1.0, validator=[attrs.validators.gt(0), attrs.validators.lt(2)]
    )
    """Between ``0`` and
    2."""
    twice: int = attrs.field(default=3, validator=[attrs.validators.ge(1), attrs.validators.ge(3)])
    optional: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.le(1))
    )
    word: str = attrs.field(default="ab", validator=attrs.validators.in_(["ab", "c"]))
    among: int = attrs.field(default=3, validator=attrs.validators.in_(range(2, 5)))
    pair: tuple[int, ...] = attrs.field(
        default=(1,), validator=[attrs.validators.min_len(1), attrs.validators.max_len(2)]
    )
    either: int | str = 3
    inner: Inner = attrs.field(default=Inner(depth=1))
    several: list[Inner] = attrs.field(factory=list)
    named: dict[str, int] = attrs.field(factory=dict)
    same: typing.Any = None
    hidden: int = attrs.field(default=0, init=False)


def test_whatever_types_a_plugin_has():
    schema = _table(Everything)
    validator = Draft202012Validator(schema)
    right = [
        {}, {"bounded": 1.5}, {"twice": 3}, {"optional": 1}, {"word": "c"}, {"pair": [1, 2]},
        {"either": "x"}, {"inner": {}}, {"several": [{"depth": 1}]}, {"named": {"a": 1}},
        {"same": [1, "x"]}, {"among": 2},
    ]  # fmt: skip
    wrong = [
        {"bounded": 2}, {"twice": 2}, {"optional": 2}, {"word": "a"}, {"pair": []},
        {"pair": [1, 2, 3]}, {"either": 0.5}, {"inner": {"x": 1}}, {"several": [{}]},
        {"named": {"a": "b"}}, {"hidden": 1},
    ]  # fmt: skip
    assert [value for value in right if not validator.is_valid(value)] == []
    assert [value for value in wrong if validator.is_valid(value)] == []
    assert schema["description"] == "Whatever a plugin may think of."
    assert schema["properties"]["bounded"]["description"] == "Between `0` and 2."
    assert schema["properties"]["inner"]["default"] == {"depth": 1}
    assert schema["properties"]["pair"]["default"] == [1]
    assert "default" not in schema["properties"]["optional"]


def test_bounds_are_those_of_numbers():
    """A bound of another type would make the whole schema none."""

    @attrs.frozen
    class Config:
        word: str = attrs.field(default="b", validator=attrs.validators.gt("a"))
        least: float = attrs.field(default=0.0, validator=attrs.validators.gt(float("-inf")))
        most: float = attrs.field(default=0.0, validator=attrs.validators.lt(2))

    schema = config_schema(Config)
    Draft202012Validator.check_schema(schema)
    assert "exclusiveMinimum" not in schema["properties"]["word"]
    assert "exclusiveMinimum" not in schema["properties"]["least"]
    assert schema["properties"]["most"]["exclusiveMaximum"] == 2


def test_what_fits_is_what_a_validator_says_of_types():
    """Without ranges and lengths, of which ``fits`` says nothing; 3.0 is JSON's integer."""

    @attrs.frozen
    class Config:
        flag: bool = True
        count: int = 1
        size: float = 1.0
        word: Literal["a", 2, True] = "a"
        among: int = attrs.field(default=1, validator=attrs.validators.in_((1, 2)))
        either: int | str = 3
        pair: tuple[int, ...] = (1,)
        inner: Inner = attrs.field(default=Inner(depth=1))
        several: list[Inner] = attrs.field(factory=list)
        named: dict[str, int] = attrs.field(factory=dict)
        same: typing.Any = None

    values = [True, 0, 1, 2, 3, 1.5, "a", "b", [], [1], [1.5], [True], ["a"], {}, {"depth": 1}]
    values += [{"depth": "x"}, {"x": 1}, [{"depth": 1}], [{"depth": 0.5}], [{"x": 1}], {"a": 1.5}]
    entries = config_schema(Config)["properties"]
    assert len(entries) == 11
    for key, entry in entries.items():
        validator = Draft202012Validator(entry)
        assert [v for v in values if fits(v, entry)] == [
            v for v in values if validator.is_valid(v)
        ], key
        assert fits(None, entry)


def test_a_config_of_which_no_schema_can_be_made():
    unsayable = attrs.make_class("Unsayable", {"x": attrs.field(default=float("nan"), type=float)})
    with pytest.raises(ValueError, match="JSON"):
        config_schema(unsayable)


def test_docstrings_are_read_through_bases_and_never_fail():
    assert meanings(PROTOCOLS["finetuned"])["checkpoint"].startswith("A world model's checkpoint")
    assert meanings(CellConfig)["experiment"] == "Its file, relative to the study's."
    assert meanings(attrs.make_class("Made", ["x"])) == {}


# -- plugins of others --------------------------------------------------------------------------


def test_installed_plugins_are_in_the_schema(capsys):
    assert main(["config", "schema"]) == 0
    out = capsys.readouterr()
    assert "toy-wm" not in out.err
    validator = Draft202012Validator(json.loads(out.out))
    assert not refused("[world_model]\nplugin = 'toy-wm'\ntau = 0.5", validator)
    assert refused("[world_model]\nplugin = 'toy-wm'\nlatent_dim = 0", validator)
    assert refused("[world_model]\nplugin = 'mlp'\ntau = 0.5", validator)
    assert refused("[policy]\nplugin = 'toy-wm'", validator)
    assert out.out == schema_text()


def test_plugins_that_cannot_be_loaded_are_left_out_and_named():
    said = []
    good = [item for item in list_plugins() if item.name in ("mlp", "flow")]
    broken = Listing("policy", "gone", "1", "gone-dist", "gone")
    schema = file_schema([*good, broken, broken], said.append)
    assert len(said) == 1
    assert "'gone'" in said[0]
    assert schema == file_schema(good)


def test_with_no_plugin_no_table_is_right():
    validator = Draft202012Validator(file_schema([]))
    Draft202012Validator.check_schema(validator.schema)
    assert refused("[policy]", validator)
    assert not refused("[grid]", validator)


# -- config show --------------------------------------------------------------------------------


def show(capsys, *arguments):
    assert main(["config", "show", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def without_none(value):
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return value


@pytest.mark.parametrize("file", WHOLE, ids=lambda file: file.stem)
@pytest.mark.parametrize("origin", [[], ["--origin"]], ids=["plain", "origin"])
def test_what_is_shown_is_what_the_file_resolves_to(file, origin, capsys):
    for scale in ("paper", "laptop"):
        options = ["--scale", scale, "--data", "embedded"]
        found = tomllib.loads(show(capsys, file, *options, *origin))
        if is_study(file):
            study = load_study(file, scale=scale, data="embedded")
            wanted = {name: resolved(cell) for name, cell in study.cells.items()}
            assert found.pop("cells") == wanted
            assert list(found) == ["kind", "name", "description", "factors"]
        else:
            assert found == resolved(load_experiment(file, scale=scale, data="embedded"))


def test_values_that_toml_writes_in_its_own_way(policy, capsys):
    text = 'quote " back \\ tab \t del \x7f newline \n γ 🙂'
    quoted = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    override = f"description={quoted}"
    out = show(capsys, policy, "--origin", "-o", override)
    experiment = load_experiment(policy, overrides=[override])
    assert experiment.description == text
    assert tomllib.loads(out) == without_none(resolved(experiment))
    assert re.search("^# tau is not set +# default$", out, re.MULTILINE)


def comments(text):
    """Comment behind each value of TOML, by key path."""
    found, table = {}, ""
    for line in text.splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif line:
            key, _, rest = line.partition(" = ")
            found[table + key] = rest.rpartition("  # ")[2]
    return found


def test_each_value_is_shown_with_its_origin(write, policy, capsys):
    write("base/low.toml", "[critic]\ncount = 2\nunits = [4]\n[scale.laptop.grid]\nseeds = [1]\n")
    path = write("x.toml", 'extends = ["base/low.toml"]\n' + policy.read_text())
    options = ["-o", "critic.units=[5]", "--data", ".", "--scale", "laptop"]
    found = comments(show(capsys, path, "--origin", *options))
    assert found["kind"] == "x.toml"
    assert found["critic.count"] == "base/low.toml"
    assert found["critic.units"] == "override"
    assert found["grid.seeds"] == "scale laptop (base/low.toml)"
    assert found["pretrain.batch"] == "default"
    assert found["data.path"] == "--data"
    assert found["scale"] == "--scale"
    assert comments(show(capsys, path, *options))["critic.count"] == "2"


def test_overrides_of_a_cell_are_told_from_those_of_the_command_line(write, capsys):
    write("part.toml", PART)
    path = write("study.toml", STUDY)
    found = comments(show(capsys, path, "--origin", "-o", "critic.count=2"))
    assert found["factors"] == "study.toml"
    assert found["cells.high.policy_learning.lam"] == "part.toml"
    assert found["cells.low.policy_learning.lam"] == "override (cells.low of study.toml)"
    assert found["cells.low.critic.count"] == "override"


def test_shown_as_json(policy, capsys):
    values = resolved(load_experiment(policy))
    assert json.loads(show(capsys, policy, "--json")) == values
    both = json.loads(show(capsys, policy, "--json", "--origin"))
    assert both["values"] == values
    assert both["origins"]["pretrain.iterations"] == "scale laptop (toy_policy.toml)"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nowhere.toml", ["no such file: nowhere.toml"]),
        (
            "x.toml --scale paper --data embedded",
            ["x.toml: kind: missing", "x.toml: pretrain.batch: 0"],
        ),
        ("toy_policy.toml -o grid.seeds=[]", ["override: grid.seeds"]),
        ("toy_policy.toml -o grid", ["not an override"]),
        ("toy_policy.toml --scale huge", ["has no scale 'huge'"]),
        ("toy_policy.toml --data nowhere", ["the data set 'nowhere' does not exist"]),
    ],
)
def test_bad_input_is_one_message(arguments, words, write, policy, capsys):
    write("x.toml", "[pretrain]\nbatch = 0\n")
    for option in ([], ["--origin"], ["--json"]):
        assert main(["config", "show", *shlex.split(arguments), *option]) == 2
        out = capsys.readouterr()
        assert out.out == ""
        assert out.err.startswith("error: ")
        assert all(word in out.err for word in words)
