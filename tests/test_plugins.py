"""The registry against throw-away distributions: a dist-info folder and a module on the path."""

import importlib
import itertools
import subprocess
import sys

import pytest

from fmbpo.cli import main
from fmbpo.errors import UserError
from fmbpo.plugins import Component, list_plugins, load_plugin

COUNT = itertools.count()

LOSS = "loss(module, imagined, context)"
POLICY = """
import attrs
from fmbpo.hookspecs import hookimpl

spec_version = 2

@attrs.frozen
class Config:
    width: int = 4

def build(config, dims):
    return ("module", config, dims)

@hookimpl
def predict(module, z, task, noise):
    return "predict"

@hookimpl
def rollout(module, z, partner, task, noise):
    return "rollout"

@hookimpl
def loss(module, imagined, context):
    return "loss"

@hookimpl
def freeze(module):
    return "freeze"
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """``install(source, name=..., kind=...)`` offers a module as a plugin; returns its name."""

    def install(source, *, name="fake-policy", group="fmbpo.policies", distribution=None, raw=None):
        number = next(COUNT)
        distribution = distribution or f"fake-dist-{number}"
        home = tmp_path / f"site{number}"
        info = home / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        module = f"fake_plugin_{number}"
        (info / "entry_points.txt").write_text(raw or f"[{group}]\n{name} = {module}\n")
        if source is not None:
            (home / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(home))
        importlib.invalidate_caches()
        return name

    return install


def reason(name, kind="policy"):
    with pytest.raises(UserError) as caught:
        load_plugin(kind, name)
    assert caught.value.remedy
    return str(caught.value)


def loads(name):
    return load_plugin("policy", name).name == name


def test_a_good_plugin_becomes_plain_functions(install):
    component = load_plugin("policy", install(POLICY, distribution="good-dist"))
    assert isinstance(component, Component)
    assert (component.kind, component.name) == ("policy", "fake-policy")
    assert (component.distribution, component.version) == ("good-dist", "1.2")
    assert component.predict(None, None, None, None) == "predict"
    assert component.rollout(None, None, None, None, None) == "rollout"
    assert component.loss(None, None, None) == "loss"
    assert component.freeze(None) == "freeze"
    assert component.predict.__module__.startswith("fake_plugin_")
    assert component.build(component.Config(width=3), "dims")[1].width == 3


def test_an_instance_serves_as_a_plugin(install):
    source = POLICY.replace('\n@hookimpl\ndef freeze(module):\n    return "freeze"\n', "")
    source = source.replace("spec_version = 2", "")
    body = source[source.index("@attrs.frozen") :].replace("(module", "(self, module")
    body = body.replace("def build(", "def build(self, ")
    cls = "".join(f"    {line}\n" for line in body.splitlines())
    source = (
        "import attrs\nfrom fmbpo.hookspecs import hookimpl\n\nclass P:\n    spec_version = 2\n"
        + cls
        + "    @hookimpl\n    def freeze(self, module):\n        return 'freeze'\n\nplugin = P()\n"
    )
    install(source, raw=f"[fmbpo.policies]\nwhole = fake_plugin_{_peek()}:plugin\n")
    assert load_plugin("policy", "whole").loss(None, None, None) == "loss"


@pytest.mark.parametrize("name", ["spec_version", "Config", "build", "small"])
@pytest.mark.parametrize("error", ["KeyError('mine')", "AttributeError('mine')", "SystemExit(3)"])
def test_an_attribute_that_raises_is_named(name, error, install):
    source = POLICY.replace("class Config", "class Other") + (
        f"\ndef raises(self):\n    raise {error}\n"
        f"class P:\n    {name} = property(raises)\n"
        "    def __init__(self):\n"
        "        theirs = {'spec_version': 2, 'Config': Other, 'build': print}\n"
        f"        self.__dict__ |= {{k: v for k, v in theirs.items() if k != {name!r}}}\n"
        "plugin = P()\n"
    )
    install(source, raw=f"[fmbpo.policies]\nraising = fake_plugin_{_peek()}:plugin\n")
    text = reason("raising")
    assert f"its `{name}` cannot be read: {error.partition('(')[0]}" in text
    assert "fake-dist-" in text


def test_what_a_plugin_prints_is_no_result(install, capsys):
    printing = "    def __attrs_post_init__(self): print('of small')\n    width"
    source = POLICY.replace("    width", printing) + "\nprint('at import')\nsmall = {}\n"
    assert loads(install(source))
    out, err = capsys.readouterr()
    assert out == ""
    assert "at import" in err
    assert "of small" in err


def _peek():
    """The number that the next ``install`` will take."""
    global COUNT
    number = next(COUNT)
    COUNT = itertools.chain([number], COUNT)
    return number


def test_listing_imports_nothing(install, capsys):
    install(POLICY, name="good", distribution="good-dist")
    install("raise RuntimeError('no GPU\\nhere')", name="bad", distribution="bad-dist")
    before = set(sys.modules)
    items = {item.name: item for item in list_plugins()}
    assert main(["plugins"]) == 0
    assert main(["plugins", "--json"]) == 0
    assert "bad-dist" in capsys.readouterr().out
    assert not any(name.startswith("fake_plugin") for name in set(sys.modules) - before)
    assert items["bad"].distribution == "bad-dist"
    assert items["bad"].version == "1.2"
    assert items["bad"].kind == "policy"
    assert loads("good")
    assert "no GPU" in reason("bad")


def test_a_malformed_entry_points_file_does_not_hide_its_neighbours(install):
    install(POLICY, name="good")
    install(None, raw="[fmbpo.policies]\nno equals sign\n", distribution="malformed-dist")
    assert loads("good")
    assert "malformed-dist" in reason("other")


def test_listing_does_not_import_torch():
    code = (
        "import sys, fmbpo.plugins, fmbpo.config; fmbpo.plugins.list_plugins(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_gets_hint_list_and_remedy(install):
    install(POLICY, name="gaussian-mlp")
    text = reason("gausian-mlp")
    assert "did you mean 'gaussian-mlp'?" in text
    assert "installed policy plugins:" in text
    assert "pip install -e plugins/" in text


def test_a_name_of_the_other_kind_is_pointed_out(install):
    install(POLICY, name="only-a-policy")
    assert "installed as a policy plugin only" in reason("only-a-policy", "world_model")


def test_two_claims_to_one_name_are_refused(install, capsys):
    install(POLICY, name="twice", distribution="first-dist")
    install(POLICY, name="twice", distribution="second-dist")
    text = reason("twice")
    assert "first-dist" in text
    assert "second-dist" in text
    assert "uninstall" in text
    assert main(["plugins"]) == 0
    assert "2 distributions provide the policy 'twice'" in capsys.readouterr().err


def test_a_distribution_twice_on_the_path_is_one_claim(install):
    install(POLICY, name="again", distribution="same-dist")
    install(POLICY, name="again", distribution="same_dist")
    assert load_plugin("policy", "again").kind == "policy"


def without(name):
    start = POLICY.index(f"@hookimpl\ndef {name}")
    end = POLICY.find("\n\n", start)
    return POLICY[:start] + (POLICY[end:] if end > 0 else "")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ValueError('boom')", ["import fails", "ValueError: boom", "reinstall"]),
        ("import sys; sys.exit(3)", ["import fails", "SystemExit"]),
        (
            "import no_such_module_x",
            ["imports no_such_module_x, which is not", "pip install no_such"],
        ),
        (None, ["'fake_plugin_", "import fails", "reinstall"]),
        (without("rollout"), ["hook `rollout` has 0 ", "rollout(module, z, partner"]),
        (without("freeze"), ["hook `freeze` has 0 "]),
        (
            POLICY.replace("@hookimpl\ndef loss", "def loss"),
            ["hook `loss` has 0 plain implementations marked with @hookimpl"],
        ),
        (
            POLICY.replace("z, task, noise)", "z, task, noise=None)"),
            ["`predict`", "noise=None", "without defaults"],
        ),
        (
            POLICY.replace(LOSS, "loss(module, batch, context)"),
            ["batch", "signatures"],
        ),
        (
            POLICY.replace(LOSS, "loss(module)"),
            [LOSS],
        ),
        (
            POLICY.replace(LOSS, "loss(imagined, module, context)"),
            ["`loss`"],
        ),
        (
            POLICY.replace(LOSS, "loss(module, *, imagined, context)"),
            ["`loss`"],
        ),
        (POLICY + "\n@hookimpl\ndef train(module):\n    pass\n", ["train"]),
        (
            POLICY + "\n@hookimpl(specname='loss')\ndef other(module, imagined):\n    pass\n",
            ["`loss` has 2 plain", "exactly one"],
        ),
        (POLICY.replace("spec_version = 2", ""), ["`spec_version` is None", "spec_version = 2"]),
        (POLICY.replace("spec_version = 2", "spec_version = '1'"), ["'1', not an integer"]),
        (POLICY.replace("spec_version = 2", "spec_version = 3"), ["newer", "update fmbpo"]),
        (POLICY.replace("spec_version = 2", "spec_version = 0"), ["older", "update fake-dist"]),
        (
            POLICY.replace("spec_version = 2", "spec_version = 1"),
            [
                "version 1, older",
                "loss(module, imagined, context)",
                "spec_version = 2",
                "update fake-dist",
            ],
        ),
        (POLICY.replace("@attrs.frozen\n", ""), ["`Config`", "attrs class"]),
        (POLICY.replace("width: int", "plugin: int"), ["field `plugin`", "rename"]),
        (POLICY.replace("def build", "def make"), ["no callable `build`"]),
        (
            POLICY.replace("width: int", "width: 'Unheard'"),
            ["'Unheard'", "`Config`", "TYPE_CHECKING"],
        ),
        (
            "import enum\nMode = enum.Enum('Mode', ['A', 'B'])\n"
            + POLICY.replace("width: int = 4", "width: int = 4\n    mode: Mode = Mode.A"),
            ["can hold the type of mode in its `Config`", "str, Literal"],
        ),
        (POLICY + "\nsmall = {'depth': 3}\n", ["`small`", "'depth'", "omit it"]),
        (
            POLICY.replace(
                "width: int = 4", "width: int = attrs.field(converter=lambda x: x.keys())"
            )
            + "\nsmall = {'width': 3}\n",
            ["`small`", "AttributeError: 'int' object", "omit it"],
        ),
        (
            POLICY.replace(
                "    width",
                "    def __attrs_post_init__(self): raise RuntimeError('no')\n    width",
            )
            + "\nsmall = {}\n",
            ["`small`", "RuntimeError: no", "omit it"],
        ),
    ],
)
def test_a_broken_plugin_names_itself_its_distribution_and_the_remedy(install, source, words):
    install(source, name="broken-one")
    install(POLICY, name="neighbour")
    text = reason("broken-one")
    for word in ["'broken-one'", "fake-dist-", *words]:
        assert word in text
    assert loads("neighbour")


def test_an_attribute_that_is_not_there(install):
    install(POLICY, raw=f"[fmbpo.policies]\nlost = fake_plugin_{_peek()}:nothing\n")
    assert "nothing" in reason("lost")


def test_a_policy_offered_as_a_world_model_is_refused(install):
    install(POLICY, name="mixed-up", group="fmbpo.world_models")
    text = reason("mixed-up", "world_model")
    assert "world model plugin 'mixed-up'" in text
