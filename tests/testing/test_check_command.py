"""``fmbpo plugins check``: its table, its JSON, its exit status."""

import json
import re

import pytest
import torch
from throw_away import BROKEN, DOUBTFUL, GOOD

from fmbpo.cli import main
from fmbpo.plugins import load_plugin
from fmbpo.testing.contract import CHECKS, NEEDS_GPU, configured, run_check, subject_of

GPU = torch.cuda.is_available()


def statuses(plugin):
    return {check["check"]: check["status"] for check in plugin["checks"]}


def test_a_whole_plugin_passes_in_a_table(capsys):
    assert main(["plugins", "check", "mlp", "--kind", "policy"]) == 0
    out, err = capsys.readouterr()
    title, *rows, summary = out.splitlines()
    assert title.startswith("policy mlp ")
    assert title.endswith(" (fmbpo-policy-mlp)")
    found = {row.split()[0]: row.split()[1] for row in rows}
    skipped = set() if GPU else NEEDS_GPU
    assert found == {c: "skipped" if c in skipped else "ok" for c in CHECKS["policy"]}
    passed = len(found) - len(skipped)
    assert summary.strip() == f"{passed} ok" + (", 1 skipped" if skipped else "")
    assert "error" not in err


FEW = ["--check", "shapes_fit", "--check", "settings_can_be_copied"]
"""Two quick checks."""


def test_a_name_of_both_kinds_is_checked_in_both(capsys):
    assert main(["plugins", "check", "mlp", "--json", *FEW]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(p["kind"], p["name"]) for p in found] == [("world_model", "mlp"), ("policy", "mlp")]
    for plugin in found:
        assert statuses(plugin) == {"settings_can_be_copied": "ok", "shapes_fit": "ok"}


def test_a_check_of_one_kind_is_run_on_this_kind_alone(capsys):
    assert main(["plugins", "check", "mlp", "--check", "policys_input_is_cut"]) == 0
    title, row, summary = capsys.readouterr().out.splitlines()
    assert title.startswith("policy mlp ")
    assert row.split() == ["policys_input_is_cut", "ok"]
    assert summary == "  1 ok"


def test_a_check_says_what_it_measured(capsys):
    both = ["--check", "loss_falls", "--check", "return_rises"]
    assert main(["plugins", "check", "mlp", *both]) == 0
    of_model, of_policy = capsys.readouterr().out.split("policy mlp")
    assert re.search(r"loss_falls +ok +[\d.]+ -> [\d.]+\n", of_model)
    assert re.search(r"return_rises +ok +-?[\d.]+ -> [\d.]+\n", of_policy)


def test_a_broken_plugin_fails_the_checks_that_it_breaks(offer, capsys):
    offer(BROKEN)
    assert main(["plugins", "check", "throw-away", "--json"]) == 2
    out, err = capsys.readouterr()
    (plugin,) = json.loads(out)
    assert (plugin["version"], plugin["distribution"]) == ("1.2", "throw-away-dist")
    failed = {c["check"]: c["message"] for c in plugin["checks"] if c["status"] == "failed"}
    assert "expected: actions are in [-1, 1]" in failed["actions_are_bounded_and_masked"]
    (raised,) = [message for message in failed.values() if "my mistake" in message]
    assert "found: the plugin fails: KeyError: 'my mistake'" in raised
    assert "remedy: see " in raised
    assert raised.endswith(", in loss")
    assert statuses(plugin)["settings_can_be_copied"] == "ok"
    assert f"{len(failed)} check(s) failed" in err
    only = ["--check", "shapes_fit", "--check", "actions_are_bounded_and_masked"]
    assert main(["plugins", "check", "throw-away", *only]) == 2
    out, _ = capsys.readouterr()
    rows = out.splitlines()
    place = next(i for i, row in enumerate(rows) if row.split()[:1] == ["shapes_fit"])
    assert rows[place].split() == ["shapes_fit", "ok"]
    place = next(i for i, row in enumerate(rows) if "actions_are_bounded" in row)
    assert rows[place].endswith("failed")
    assert [row.split()[0] for row in rows[place + 1 : place + 4]] == [
        "expected:",
        "found:",
        "remedy:",
    ]
    assert rows[-1] == "  1 ok, 1 failed"


def test_a_check_that_warns_is_told_and_fails_nothing(offer, capsys):
    offer(DOUBTFUL)
    only = ["--check", "only_the_return_moves_latents", "--check", "shapes_fit"]
    assert main(["plugins", "check", "throw-away", *only]) == 0
    _, fits, warned, *message, summary = capsys.readouterr().out.splitlines()
    assert fits.split() == ["shapes_fit", "ok"]
    assert warned.split() == ["only_the_return_moves_latents", "warned"]
    assert [line.split(": ")[0].strip() for line in message] == ["found", "a fault if", "remedy"]
    assert summary == "  1 ok, 1 warned"
    assert main(["plugins", "check", "throw-away", "--json", *only]) == 0
    (plugin,) = json.loads(capsys.readouterr().out)
    assert statuses(plugin)["only_the_return_moves_latents"] == "warned"
    assert "a fault if: the term is to change the actions" in plugin["checks"][1]["message"]


def test_settings_are_overridden(capsys):
    assert main(["plugins", "check", "mlp", "--kind", "policy", "-o", "detach=false", *FEW]) == 0
    assert "detach=False" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["no-such"],
            [
                "no installed distribution offers a world model or policy plugin 'no-such'",
                "installed world model plugins: flow, mlp; installed policy plugins: flow, mlp",
            ],
        ),
        (["flwo"], ["did you mean 'flow'?"]),
        (["no-such", "--kind", "policy"], ["offers a policy plugin 'no-such'"]),
        (["mlp", "--check", "shape_fits"], ["no check 'shape_fits'", "did you mean 'shapes_fit'?"]),
        (
            ["mlp", "--kind", "policy", "--check", "masked_actions_are_inert"],
            ["no check 'masked_actions_are_inert'"],
        ),
        (["mlp", "--kind", "policy", "-o", "unit=[8]"], ["unit: unknown key", "'units'"]),
        (["mlp", "--kind", "policy", "-o", "units=8"], ["units: 8 (an integer)"]),
        (["mlp", "--kind", "policy", "-o", "policy.units=[8]"], ["policy: unknown key", "units"]),
    ],
)
def test_a_mistake_of_the_users(arguments, words, capsys):
    assert main(["plugins", "check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(word in err for word in ["error: ", *words])


def test_without_a_name_every_plugin_is_checked_whatever_the_others_are(offer, capsys):
    offer("raise RuntimeError('no GPU here')")
    assert main(["plugins", "check", "--kind", "policy", "--json", *FEW]) == 2
    out, err = capsys.readouterr()
    found = {plugin["name"]: plugin for plugin in json.loads(out)}
    assert "failed" not in statuses(found["mlp"]).values()
    (loads,) = found["throw-away"]["checks"]
    assert (loads["check"], loads["status"]) == ("loads", "failed")
    assert all(word in loads["message"] for word in ("no GPU here", "throw-away-dist", "reinstall"))
    assert "1 check(s) failed" in err


NOISY = """
    print("at import")
    def build(self, config, dims):
        print("in build")
        return super().build(config, dims)

    @hookimpl
    def freeze(self, module):
        import sys
        print("leaving")
        sys.exit()
"""


def test_a_plugin_that_prints_and_leaves_spoils_neither_results_nor_checks(offer, capsys):
    offer(GOOD.replace("    pass", NOISY))
    only = ["--check", "frozen_is_frozen", "--check", "modes_are_equal"]
    assert main(["plugins", "check", "throw-away", "--json", *only]) == 2
    out, err = capsys.readouterr()
    (plugin,) = json.loads(out)
    assert all(line in err for line in ("at import", "in build", "leaving"))
    assert statuses(plugin) == {"frozen_is_frozen": "failed", "modes_are_equal": "ok"}
    assert "SystemExit" in plugin["checks"][0]["message"]


PREDICT = """
    @hookimpl
    def predict(self, module, z, task, noise):
        {line}
        return super().predict(module, z, task, noise)
"""


def test_one_error_is_told_once(offer, capsys):
    """The text names shapes, which differ from check to check; the error is the same."""
    offer(GOOD.replace("    pass", PREDICT.format(line="z @ noise")))
    assert main(["plugins", "check", "throw-away"]) == 2
    rows = capsys.readouterr().out.splitlines()
    (failed,) = [row.split()[0] for row in rows if row.endswith(" failed")]
    assert sum("cannot be multiplied" in row for row in rows) == 1
    (stopped,) = [row for row in rows if row.startswith("  stopped by")]
    assert stopped.startswith(f"  stopped by the same error as {failed}: ")
    names = stopped.partition(": ")[2].split(", ")
    assert {"shapes_fit", "gradients_are_exact", "stacked_equals_a_loop"} - {failed} <= set(names)
    assert rows[-1].split(", ")[1:3] == ["1 failed", f"{len(names)} stopped"]


@pytest.mark.parametrize(
    ("source", "check", "words"),
    [
        (
            PREDICT.format(line='print("here", z.mean())'),
            "compiles_as_one_graph",
            ["a hook calls `print`", "remove `print`"],
        ),
        (
            PREDICT.format(line="import torch; z = z + 0.1 * torch.randn_like(z)"),
            "has_no_randomness_of_its_own",
            ["`predict` draws no random number", "`noise` argument", "module.noise_dim"],
        ),
        (
            """
    @hookimpl
    def loss(self, module, imagined, context):
        import torch
        loss, metrics = super().loss(module, imagined, context)
        return loss + torch.randn(()), metrics
""",
            "has_no_randomness_of_its_own",
            ["`loss` draws no random number", "context.loss_noise_BN", "module.loss_noise_dim"],
        ),
    ],
)
def test_a_remedy_is_of_the_fault(source, check, words, offer, capsys):
    offer(GOOD.replace("    pass", source))
    assert main(["plugins", "check", "throw-away", "--check", check]) == 2
    out = capsys.readouterr().out
    assert all(word in out for word in words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import no_such_module.part", ["imports no_such_module, which is not installed",
                                        "pip install no_such_module", "`dependencies`"]),
        ("from torch import no_such_name", ["no_such_name", "a version of torch that has it"]),
        ("import throw_away_policy.part", ["throw_away_policy", "repair or reinstall"]),
    ],
)  # fmt: skip
def test_what_an_import_misses_is_named(line, words, offer, capsys):
    offer(line)
    assert main(["plugins", "check", "throw-away"]) == 2
    out = capsys.readouterr().out
    assert all(word in out for word in words)


def with_settings(*fields):
    """A good policy with further settings."""
    lines = [
        "import attrs",
        "from typing import Any",
        "from fmbpo_policy_mlp import GaussianPlugin",
    ]
    lines += ["@attrs.frozen(kw_only=True)", "class Config(GaussianPlugin.Config):", *fields]
    lines += ["class Plugin(GaussianPlugin):", "    Config = Config", "plugin = Plugin()"]
    return "\n".join(lines)


def of_settings(source, offer):
    """The message of ``settings_survive_a_file``, empty if it passes."""
    offer(source)
    component = load_plugin("policy", "throw-away")
    subject = subject_of(component, configured(component, {}))
    return run_check(subject, "settings_survive_a_file").message


def test_whatever_toml_can_hold_survives_a_file(offer):
    source = with_settings(
        "    words: str = 'a \\U0001F600 \\x7f \\\\ \"'",
        "    table: dict[str, int] = attrs.field(factory=lambda: {'a b': 1})",
        "    pairs: list[tuple[float, ...]] = attrs.field(factory=lambda: [(1.0, 2e-7)])",
        "    unset: int | None = None",
        "    whole: float = 1",
    )
    assert of_settings(source, offer) == ""


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("depth: int = 0.5", ["expected: the settings can be read from TOML", "depth: 0.5"]),
        ("depth: Any = attrs.field(factory=lambda: {1: 1})", ["equal settings"]),
        ("depth: int = attrs.field(default=3, eq=False, converter=lambda x: x + 1)", ["equal"]),
        ("depth: Any = attrs.field(default=float('nan'), repr=False, eq=False)", ["found: "]),
    ],
)
def test_settings_that_do_not_survive_are_named(field, words, offer):
    message = of_settings(with_settings(f"    {field}"), offer)
    assert all(word in message for word in [*words, "remedy: let Config's fields be"])


def test_a_default_that_small_settings_hide_is_checked(offer):
    """``fmbpo check`` of an experiment that leaves the key out would be the first to tell."""
    source = with_settings("    depth: int = 0.5")
    source = source.replace("    Config = Config", "    Config = Config\n    small = {'depth': 1}")
    message = of_settings(source, offer)
    assert "expected: the default of depth has the field's type" in message
    assert "0.5 (a float) instead of an integer" in message


def test_small_settings_of_a_wrong_type_are_the_plugins_mistake(offer, capsys):
    source = with_settings("    depth: int = 3")
    source = source.replace(
        "    Config = Config", "    Config = Config\n    small = {'depth': 0.5}"
    )
    offer(source)
    assert main(["plugins", "check", "--kind", "policy", "--json", *FEW]) == 2
    found = {plugin["name"]: plugin for plugin in json.loads(capsys.readouterr().out)}
    assert "failed" not in statuses(found["mlp"]).values()
    (loads,) = found["throw-away"]["checks"]
    assert (loads["check"], loads["status"]) == ("loads", "failed")
    assert "depth: 0.5 (a float)" in loads["message"]


def test_a_good_plugin_beside_passes(offer, capsys):
    offer(GOOD)
    assert main(["plugins", "check", "throw-away", *FEW]) == 0
    assert "policy throw-away 1.2 (throw-away-dist)" in capsys.readouterr().out
