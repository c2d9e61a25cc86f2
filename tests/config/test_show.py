"""``config show``: what a file resolves to, and where each value comes from."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from fmbpo.cli import main
from fmbpo.config import load_experiment, resolved
from fmbpo.config.study_file import is_study, load_study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


PART = """
kind = "policy"
[world_model]
plugin = "toy-wm"
[protocol]
kind = "frozen"
world_model = "toy_pretrain"
[policy]
plugin = "toy-policy"
[policy_learning]
lam = 0.9
[grid]
seeds = [1, 2]
[scale.laptop]
"""
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


def show(capsys, *arguments):
    assert main(["config", "show", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def without_none(value):
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return value


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda file: file.stem)
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
