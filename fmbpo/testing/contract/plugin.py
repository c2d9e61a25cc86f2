"""Checks of the plugin object: its module's attributes, its settings, its parameters as a file."""

from __future__ import annotations

import contextlib
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
from torch import Tensor
from torch.func import vmap

from fmbpo import hookspecs as spec
from fmbpo import protocols
from fmbpo.base.structure import plain, structure
from fmbpo.config.json_schema import plain_default
from fmbpo.config.show import toml_text
from fmbpo.nn.state import latent
from fmbpo.plugins import FIELD_TYPES, Kind
from fmbpo.pwm.pair import HookCall
from fmbpo.testing.contract.subject import (
    ModelInputs,
    Subject,
    close,
    reached,
)
from fmbpo.testing.outcomes import ContractError, expect, expecting

_REQUIRED: dict[Kind, type[object]] = {"world_model": spec.WorldModel, "policy": spec.Policy}
_OPTIONAL: tuple[type[object], ...] = (
    spec.Encodes, protocols.Remembers, protocols.DecodesRewards, protocols.BinsRewards,
    protocols.OnSimplex, protocols.Adopts, protocols.Curved, protocols.Grows, protocols.Projects,
    protocols.SeesData, protocols.DrawsNoise, protocols.HasCritic, protocols.SetsTargets,
)  # fmt: skip


def keeps_its_protocol(subject: Subject) -> None:
    """The module has the attributes and methods that the engine uses."""
    module = attrs.evolve(subject, fresh=True).module
    _keeps(module, _REQUIRED[subject.component.kind])
    for optional in _OPTIONAL:
        if isinstance(module, optional):
            _keeps(module, optional)
    if isinstance(module, protocols.OnSimplex):
        width, size = getattr(module, "latent_dim", 0), module.simplex_dim
        expected = f"module.latent_dim = {width} is a multiple of simplex_dim = {size}"
        expect(width % size == 0, expected, "declare the size of the groups whose entries sum to 1")


def _keeps(module: object, protocol: type[object]) -> None:
    """The module has each number and each method of the protocol."""
    for name, kind in get_type_hints(protocol).items():
        value, whole = getattr(module, name, None), kind is int
        least = int(not name.endswith("noise_dim"))
        wanted = f"an int of at least {least}" if whole else "a float above 0"
        enough = isinstance(value, kind) and (value >= least if whole else value > 0)
        remedy = f"set self.{name} in __init__, or as a class attribute"
        expected = f"`module.{name}` is {wanted}"
        expect(enough and type(value) is kind, expected, remedy, f"{value!r}")
    for name, method in inspect.getmembers(protocol, inspect.isfunction):
        if not name.startswith("_"):
            taken = list(inspect.signature(method).parameters)[1:]
            wanted = f"`module.{name}({', '.join(taken)})` can be called"
            with expecting(wanted, f"define it as {protocol.__module__}.{protocol.__name__} does"):
                inspect.signature(getattr(module, name)).bind(*taken)


def parameters_begin_finite(subject: Subject) -> None:
    """The engine chooses precision and device, and trains from these values."""
    named = list(attrs.evolve(subject, fresh=True).module.named_parameters())
    expect(bool(named), "the module has parameters", "register them as nn.Parameter")
    for name, parameter in named:
        finite, expected = bool(torch.isfinite(parameter).all()), f"{name} is finite float32"
        remedy = "initialise it in float32; the engine chooses precision and device"
        found = f"{parameter.dtype}, finite: {finite}"
        expect(finite and parameter.dtype == torch.float32, expected, remedy, found)


def buffers_are_set_by_the_loss(subject: Subject) -> None:
    """A buffer is state that does not learn: it is saved, and the loss returns its new value."""
    buffers = dict(subject.module.named_buffers())
    if not buffers:
        return
    kept, constant = subject.module.state_dict(), "keep constants as Python numbers"
    _, metrics = subject.loss()
    for name, buffer in buffers.items():
        fits = buffer.is_floating_point() and name in kept
        expected = f"the buffer {name} is floating-point, and part of the state_dict"
        expect(fits, expected, f"register it as persistent, or {constant}")
        new = metrics.get(name)
        same = isinstance(new, Tensor) and new.shape == buffer.shape and not new.requires_grad
        found = "none" if new is None else f"shape {list(new.shape)}"
        expected = f"the loss returns a new value of the buffer {name} among its metrics, detached"
        expect(same, expected, f"return it by this name, or {constant}", found)
    leaves = {name: buffer.clone().requires_grad_() for name, buffer in buffers.items()}
    call = HookCall(subject.module, subject.component.loss)
    loss, _ = call.with_params(leaves, *subject.of_loss(subject.example()))
    still = not any(reached(loss, leaves.values()))
    expect(still, "the loss has no gradient with respect to buffers", "use them detached")


def is_built_from_the_global_generator(subject: Subject) -> None:
    """The seed determines the initial parameters: equal seeds give equal ones, others do not."""
    one, same, other = (
        [*attrs.evolve(subject, seed=seed, fresh=True).module.parameters()] for seed in (1, 1, 2)
    )
    remedy = "draw initial values only from torch's global generator"
    expect(close(one, same), "equal seeds give equal parameters", remedy)
    expect(not close(one, other), "different seeds give different parameters", remedy)


def settings_survive_a_file(subject: Subject) -> None:
    """Settings read from TOML and JSON equal the originals: a record reproduces its run."""
    config, cls = subject.config, subject.component.Config
    values = {key: value for key, value in plain(config).items() if value is not None}
    remedy = FIELD_TYPES
    reads: list[tuple[str, Callable[[str], Any], str]] = [
        ("TOML", tomli.loads, toml_text(values)), ("JSON", json.loads, json.dumps(values))
    ]  # fmt: skip
    for form, read, text in reads:
        with expecting(f"the settings can be read from {form}", remedy):
            again = structure(read(text), cls)
        equal = again == config and plain(again) == plain(config)
        expect(equal, f"{form} gives equal settings back", remedy, f"{again} for {config}")
    hints = get_type_hints(cls)
    for field in attrs.fields(cls):  # a setting may hide its default
        if (default := plain_default(field)) is not None:
            with expecting(f"the default of {field.name} has the field's type", remedy):
                structure(default, hints.get(field.name, Any))


def settings_can_be_copied(subject: Subject) -> None:
    """Settings are frozen, equal to their copies, and can be sent to other processes."""
    config: Any = subject.config
    remedy = "define Config with @attrs.frozen at the top level of a module"
    with expecting("the settings can be deep-copied and pickled", remedy):
        equal = copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    expect(equal, "deepcopy and pickle give equal settings", remedy)
    for field in attrs.fields(type(config))[:1]:
        with contextlib.suppress(attrs.exceptions.FrozenInstanceError, AttributeError):
            setattr(config, field.name, getattr(config, field.name))
            raise ContractError("the settings cannot be changed", remedy)


def parameters_survive_a_file(subject: Subject) -> None:
    """A safetensors checkpoint restores the module's predictions in a new module."""
    from safetensors.torch import load_file, save_file

    one, other = (attrs.evolve(subject, seed=seed) for seed in (1, 2))
    remedy = "register each trainable tensor once, under one name (no tied parameters)"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        with expecting("the parameters load into another module", remedy):
            named = *one.module.named_parameters(), *one.module.named_buffers()
            save_file({k: v.detach().clone() for k, v in named}, file)
            other.module.load_state_dict(load_file(file))
    with torch.no_grad():
        equal = close(one.predict(one.inputs()), other.predict(one.inputs()))
    expect(equal, "the loaded module predicts the same", "use only parameters and settings")


def projection_is_one(subject: Subject) -> None:
    """``project`` moves parameters into their allowed set, is idempotent, and adds none."""
    module, named = subject.module, dict(subject.module.named_parameters())
    if not isinstance(module, protocols.Projects):
        return
    given = {name: 3.0 * p.detach() for name, p in named.items()}
    kept = {name: p.clone() for name, p in given.items()}
    once = module.project(dict(given))
    same = {k: v.shape for k, v in once.items()} == {k: v.shape for k, v in given.items()}
    expect(same, "`project` keeps names and shapes", "return {**params, ...}")
    expect(close(given, kept), "`project` changes no argument", "return new tensors")
    idempotent = _near(once, module.project(dict(once)))
    expect(idempotent, "projecting twice is projecting once", "make it idempotent")
    other = {name: -0.5 * p for name, p in given.items()}
    stacked = {name: torch.stack([given[name], other[name]]) for name in given}
    remedy = "no .item() and no `if` on a value: use torch.where or clamp"
    with expecting("`project` maps over stacked parameters", remedy):
        found = vmap(module.project)(stacked)
    alone = once, module.project(dict(other))
    remedy = "compute from the parameters in the argument, not from the module's"
    expect(not close(*alone), "`project` gives different parameters different results", remedy)
    same = all(_near({k: v[i] for k, v in found.items()}, alone[i]) for i in range(2))
    expect(same, "`project` gives stacked modules the same results as single ones", remedy)


def _near(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return close([a[k] for k in b], list(b.values()), rtol=1e-5, atol=1e-6)


def is_built_for_any_sizes(subject: Subject) -> None:
    """The study, not the plugin, chooses the number of tasks and the widths."""
    dims = spec.WorldModelDims(7, 2, 9), spec.PolicyDims(24, 3, 2)
    of_policy = subject.component.kind == "policy"
    other = attrs.evolve(subject, fresh=True, dims=dims[of_policy])
    inputs = other.inputs(rows=7)
    found = other.predict(inputs)[0]
    of_world, module = isinstance(inputs, ModelInputs), other.module
    wanted = (latent(module, inputs[0]) if of_world else inputs.task.mask_BA).shape
    expected, remedy = f"a result of shape {list(wanted)}", "take every width from `dims`"
    expect(found.shape == wanted, expected, remedy, f"{list(found.shape)}")
