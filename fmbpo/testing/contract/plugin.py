"""Checks of the plugin object: its module's attributes, its settings, its parameters as a file."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import attrs
import tomli
import torch
from torch import Tensor, nn
from torch.func import vmap

from fmbpo import hookspecs as spec
from fmbpo.base.structure import Problems, plain, structure
from fmbpo.config.json_schema import plain_default
from fmbpo.config.show import toml_text
from fmbpo.plugins import Kind
from fmbpo.testing.contract.subject import (
    ModelInputs,
    Subject,
    broken,
    expect,
    expecting,
)

_REQUIRED: dict[Kind, type[object]] = {"world_model": spec.WorldModel, "policy": spec.Policy}
_OPTIONAL: tuple[type[object], ...] = (
    spec.OnSimplex, spec.Adopts, spec.Curved, spec.Grows, spec.Projects
)  # fmt: skip


def keeps_its_protocol(subject: Subject) -> None:
    """The engine reads these attributes of the module and calls these methods, whatever else the
    plugin does."""
    module = attrs.evolve(subject, fresh=True).module
    _keeps(module, _REQUIRED[subject.component.kind])
    for optional in _OPTIONAL:
        if isinstance(module, optional):
            _keeps(module, optional)
    if isinstance(module, spec.OnSimplex):
        width, size = getattr(module, "latent_dim", 0), module.simplex_dim
        expect(
            width % size == 0,
            f"module.latent_dim = {width} is a multiple of simplex_dim = {size}",
            "it is not",
            "declare the size of the groups that sum to 1, or leave simplex_dim out",
        )


def _keeps(module: object, protocol: type[object]) -> None:
    """The module has each number and each method of the protocol."""
    for name in get_type_hints(protocol):  # every one of them an int
        value, least = getattr(module, name, None), int(not name.endswith("noise_dim"))
        expect(
            type(value) is int and value >= least,
            f"`module.{name}` is an int of at least {least}",
            f"{value!r}",
            f"set self.{name} in __init__, or as a class attribute",
        )
    for name, method in inspect.getmembers(protocol, inspect.isfunction):
        if name.startswith("_"):
            continue
        own, taken = getattr(module, name, None), list(inspect.signature(method).parameters)[1:]
        wanted = f"`module.{name}({', '.join(taken)})` can be called"
        remedy = f"define it as {protocol.__name__} in fmbpo/hookspecs.py does"
        if not callable(own):
            broken(wanted, f"{own!r}", remedy)
        with expecting(wanted, remedy):
            inspect.signature(own).bind(*taken)


def parameters_begin_finite(subject: Subject) -> None:
    """The engine chooses precision and device, and trains from these values."""
    named = list(attrs.evolve(subject, fresh=True).module.named_parameters())
    expect(bool(named), "the module has parameters", "none", "register them as nn.Parameter")
    for name, parameter in named:
        finite = bool(torch.isfinite(parameter).all())
        expect(
            finite and parameter.dtype == torch.float32,
            f"parameter {name} begins as finite float32",
            f"{parameter.dtype}, finite: {finite}",
            "initialise it; the engine chooses precision and device",
        )


def has_no_buffers(subject: Subject) -> None:
    """Checkpoints and stacked cells hold parameters alone: a buffer would be lost."""
    assert isinstance(subject.module, nn.Module)
    names = [name for name, _ in subject.module.named_buffers()]
    expect(
        not names,
        "no buffers: checkpoints hold parameters alone",
        f"buffers {', '.join(names)}",
        "make constants in the hooks, or keep them as Python numbers",
    )


def is_built_from_the_global_generator(subject: Subject) -> None:
    """A seed decides the initial parameters: the same seed, the same; another seed, others."""
    one, same, other = (
        [*attrs.evolve(subject, seed=seed, fresh=True).module.parameters()] for seed in (1, 1, 2)
    )
    remedy = "draw initial values from torch's global generator alone"
    equal = all(map(torch.equal, one, same))
    expect(equal, "one seed gives one initialisation", "two different ones", remedy)
    equal = all(map(torch.equal, one, other))
    expect(not equal, "another seed gives another initialisation", "the same one", remedy)


def settings_survive_a_file(subject: Subject) -> None:
    """Settings read from TOML and JSON equal the originals: a record reproduces its run."""
    config, cls = subject.config, subject.component.Config
    values = {key: value for key, value in plain(config).items() if value is not None}
    toml = toml_text(values)
    read: dict[str, Callable[[], object]] = {
        "TOML": lambda: tomli.loads(toml),
        "JSON": lambda: json.loads(json.dumps(values)),
    }
    remedy = "let Config's fields be int, finite float, bool, str, Literal, lists or tables of them"
    for form, reader in read.items():
        try:
            again = structure(reader(), cls)
        except Problems as error:
            broken(f"the settings can be read from {form}", str(error), remedy)
        except (ValueError, TypeError) as error:
            broken(f"the settings can be written as {form}", f"{error} of {toml!r}", remedy)
        equal = again == config and plain(again) == plain(config)
        expect(equal, f"{form} gives equal settings back", f"{again} for {config}", remedy)
    hints = get_type_hints(cls)
    for field in attrs.fields(cls):  # the settings at hand may hide a default
        default = plain_default(field)
        try:
            if default is not None:
                structure(default, hints.get(field.name, Any))
        except Problems as error:
            broken(f"the default of {field.name} has the field's type", f"{error}", remedy)


def settings_can_be_copied(subject: Subject) -> None:
    """Settings are values: frozen, equal to their copies, and sent to other processes."""
    config: Any = subject.config
    remedy = "define Config with @attrs.frozen at the top level of a module"
    ways: dict[str, Callable[[], object]] = {
        "deepcopy": lambda: copy.deepcopy(config),
        "pickle": lambda: pickle.loads(pickle.dumps(config)),
    }
    for how, copied in ways.items():
        with expecting(f"{how} of the settings works", remedy):
            expect(copied() == config, f"{how} gives equal settings", "different ones", remedy)
    for field in attrs.fields(type(config))[:1]:
        try:
            setattr(config, field.name, getattr(config, field.name))
        except (attrs.exceptions.FrozenInstanceError, AttributeError):
            return
        broken("the settings cannot be changed", f"{field.name} can be set", remedy)


def parameters_survive_a_file(subject: Subject) -> None:
    """A checkpoint gives the same module back, through safetensors, into a fresh one."""
    from safetensors.torch import load_file, save_file

    one, other = (attrs.evolve(subject, seed=seed) for seed in (1, 2))
    remedy = "register each learning tensor once, under one name (no tied parameters)"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        with expecting("the parameters load into another module", remedy):
            save_file({k: v.detach().clone() for k, v in one.module.named_parameters()}, file)
            other.module.load_state_dict(load_file(file))
    with torch.no_grad():
        equal = all(map(torch.equal, *(x.predict(one.inputs()) for x in (one, other))))
    expect(
        equal,
        "the loaded module predicts the same",
        "another prediction",
        "predict from the parameters and settings alone",
    )


def projection_is_one(subject: Subject) -> None:
    """``project`` puts parameters into their allowed set once and for all, and invents none."""
    module = subject.module
    if not isinstance(module, spec.Projects):
        return
    given = {name: 3.0 * p.detach() for name, p in module.named_parameters()}
    kept = {name: p.clone() for name, p in given.items()}
    once = module.project(dict(given))
    expect(
        {k: v.shape for k, v in once.items()} == {k: v.shape for k, v in given.items()},
        "`project` keeps names and shapes",
        "others",
        "return {**params, ...}",
    )
    pure = all(torch.equal(given[k], kept[k]) for k in kept)
    expect(pure, "`project` is pure", "it changes its argument", "return new tensors")
    expect(
        _close(once, module.project(dict(once))),
        "projecting twice is projecting once",
        "it moves further",
        "make it idempotent",
    )
    other = {name: -0.5 * p for name, p in given.items()}
    stacked = {name: torch.stack([given[name], other[name]]) for name in given}
    remedy = "no .item(), no `if` on a value: torch.where, clamp"
    with expecting("`project` maps over stacked parameters", remedy):
        found = vmap(module.project)(stacked)
    alone = once, module.project(dict(other))
    remedy = "compute from the parameters in the argument, not from the module's"
    same = all(torch.equal(alone[0][k], alone[1][k]) for k in once)
    expect(not same, "`project` gives other parameters another result", "the same", remedy)
    expect(
        all(_close({k: v[i] for k, v in found.items()}, alone[i]) for i in range(2)),
        "`project` gives each of two stacked modules the same as it gives it alone",
        "another result",
        remedy,
    )


def _close(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.allclose(a[k], b[k], rtol=1e-5, atol=1e-6) for k in a)


def is_built_for_any_sizes(subject: Subject) -> None:
    """The study chooses the number of tasks and the widths, not the plugin."""
    dims = spec.WorldModelDims(7, 2, 9), spec.PolicyDims(24, 3, 2)
    of_policy = subject.component.kind == "policy"
    other = attrs.evolve(subject, fresh=True, dims=dims[of_policy])
    inputs = other.inputs(rows=7)
    found = other.predict(inputs)[0]
    wanted = (inputs.z if isinstance(inputs, ModelInputs) else inputs.task.mask_BA).shape
    expect(
        found.shape == wanted,
        f"other widths give a result of shape {list(wanted)}",
        f"{list(found.shape)}",
        "take every width from `dims`",
    )
