import importlib

import pytest

HOOKS = {
    "world_models": {
        "predict": "module, state, action, task, noise",
        "rollout": "module, state, partner, task, noise",
        "loss": "module, batch, noise, done",
        "freeze": "module",
    },
    "policies": {
        "predict": "module, z, task, noise",
        "rollout": "module, z, partner, task, noise",
        "loss": "module, imagined, context",
        "freeze": "module",
    },
}

CONFIGS = {
    "toy-wm": """
    units: list[int] = attrs.field(factory=lambda: [8, 8])
    latent_dim: int = attrs.field(default=16, validator=attrs.validators.gt(0))
    solver: Literal["euler", "heun"] = "euler"
    tau: float | None = None
""",
    "other-wm": "    depth: int\n",
    "toy-policy": "    gate: bool = False\n    std: float = 0.5\n",
}


@pytest.fixture(scope="session")
def plugins(tmp_path_factory):
    """A folder that offers the world models toy-wm and other-wm and the policy toy-policy."""
    home = tmp_path_factory.mktemp("site")
    info = home / "toys-3.4.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 3.4\n")
    for name, config in CONFIGS.items():
        group = "policies" if "policy" in name else "world_models"
        module = "toys_" + name.replace("-", "_")
        text = (
            "from __future__ import annotations\nfrom typing import Literal\nimport attrs\n"
            "from fmbpo.hookspecs import hookimpl\nspec_version = 2\n\n"
            f"@attrs.frozen(kw_only=True)\nclass Config:\n{config}\n"
            "def build(config, dims):\n    return None\n"
        )
        for hook, arguments in HOOKS[group].items():
            text += f"\n@hookimpl\ndef {hook}({arguments}):\n    return None\n"
        (home / f"{module}.py").write_text(text)
    (info / "entry_points.txt").write_text(
        "[fmbpo.world_models]\ntoy-wm = toys_toy_wm\nother-wm = toys_other_wm\n"
        "[fmbpo.policies]\ntoy-policy = toys_toy_policy\n"
    )
    return home


@pytest.fixture(autouse=True)
def _surroundings(plugins, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(plugins))
    monkeypatch.delenv("FMBPO_DATA", raising=False)
    importlib.invalidate_caches()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path):
    """``write("a/b.toml", text)`` below the working directory; returns the path."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


PRETRAIN = """
kind = "pretrain"
[world_model]
plugin = "toy-wm"
[scale.laptop.pretrain]
iterations = 30
"""

POLICY = """
kind = "policy"
[world_model]
plugin = "toy-wm"
[protocol]
kind = "frozen"
world_model = "toy_pretrain"
[policy]
plugin = "toy-policy"
[grid]
tasks = ["walker-walk"]
[scale.laptop.pretrain]
iterations = 30
"""


@pytest.fixture
def pretrain(write):
    return write("toy_pretrain.toml", PRETRAIN)


@pytest.fixture
def policy(write):
    return write("toy_policy.toml", POLICY)
