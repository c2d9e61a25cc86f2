"""Checks of the plugin object: what it declares, its settings, its parameters as a file."""

from __future__ import annotations

import copy
import json
import pickle
import tempfile
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import tomli
import torch
from torch.func import vmap

from fmbpo.base.structure import Problems, plain, structure
from fmbpo.config.json_schema import plain_default
from fmbpo.config.show import toml_text
from fmbpo.hookspecs import PolicyDims, Task, WorldModelDims
from fmbpo.testing.contract.subject import Subject, broken

_DECLARED = {
    "world_model": ("latent_dim", "task_dim", "noise_dim", "loss_noise_dim", "evaluations"),
    "policy": ("noise_dim", "evaluations"),
}


def declares_its_sizes(subject: Subject) -> None:
    """The engine allocates noise and latents by what the module says of itself."""
    built = subject.module(fresh=True)
    if not isinstance(built, torch.nn.Module):
        broken("`build` gives an nn.Module", f"a {type(built).__name__}", "return the module")
    module: Any = built
    for name in _DECLARED[subject.kind]:
        value = getattr(module, name, None)
        if type(value) is not int or value < (name not in ("noise_dim", "loss_noise_dim")):
            broken(
                f"`module.{name}` is a number of at least {int('noise' not in name)}",
                f"{value!r}",
                f"set self.{name} in __init__, or as a class attribute",
            )
    size = getattr(module, "simplex_dim", 0)
    if size and module.latent_dim % size:
        broken(
            f"module.latent_dim = {module.latent_dim} is a multiple of simplex_dim = {size}",
            "it is not",
            "declare the size of the groups that sum to 1, or none",
        )
    if not any(True for _ in module.parameters()):
        broken("the module has parameters", "none", "register what learns as nn.Parameter")
    for name, parameter in module.named_parameters():
        if parameter.dtype != torch.float32 or not torch.isfinite(parameter).all():
            broken(
                f"parameter {name} begins as finite float32",
                f"{parameter.dtype}, finite: {bool(torch.isfinite(parameter).all())}",
                "initialise it; the engine chooses precision and device",
            )


def has_no_buffers(subject: Subject) -> None:
    """Checkpoints and stacked cells hold parameters alone: a buffer would be lost."""
    names = [name for name, _ in subject.module().named_buffers()]
    if names:
        broken(
            "no buffers: checkpoints hold parameters alone",
            f"buffers {', '.join(names)}",
            "make constants where they are used, or keep them as Python numbers",
        )


def is_built_from_the_global_generator(subject: Subject) -> None:
    """A seed decides the initial parameters: equal seeds equal, other seeds other."""
    one, same, other = (
        [p.detach() for p in subject.module(seed, fresh=True).parameters()] for seed in (1, 1, 2)
    )
    remedy = "draw initial values from torch's global generator, and from nothing else"
    if not all(map(torch.equal, one, same)):
        broken("one seed gives one initialisation", "two different ones", remedy)
    if all(map(torch.equal, one, other)):
        broken("another seed gives another initialisation", "the same one", remedy)


def settings_survive_a_file(subject: Subject) -> None:
    """Settings read from TOML and JSON equal the originals: a record reproduces its run."""
    config, cls = subject.config, type(subject.config)
    values = {key: value for key, value in plain(config).items() if value is not None}
    toml = toml_text(values)
    read: dict[str, Callable[[], Any]] = {
        "TOML": lambda: tomli.loads(toml),
        "JSON": lambda: json.loads(json.dumps(values)),
    }
    remedy = (
        "let Config's fields be int, finite float, bool, str, Literal, or lists or tables of these"
    )
    for form, reader in read.items():
        try:
            again = structure(reader(), cls)
        except Problems as error:
            broken(f"the settings can be read from {form}", str(error), remedy)
        except (ValueError, TypeError) as error:
            broken(f"the settings can be written as {form}", f"{error} of {toml!r}", remedy)
        if again != config or plain(again) != plain(config):
            broken(f"{form} gives equal settings back", f"{again} for {config}", remedy)
    hints = typing.get_type_hints(cls)
    for field in attrs.fields(cls):  # the settings at hand may hide a default
        default = plain_default(field)
        try:
            if default is not None:
                structure(default, hints.get(field.name, Any))
        except Problems as error:
            broken(f"the default of {field.name} has the field's type", f"{error}", remedy)


def settings_can_be_copied(subject: Subject) -> None:
    """Settings are values: frozen, equal to their copies, and sent to other processes."""
    config = subject.config
    remedy = "define Config with @attrs.frozen at the top level of a module"
    ways: dict[str, Callable[[], Any]] = {
        "deepcopy": lambda: copy.deepcopy(config),
        "pickle": lambda: pickle.loads(pickle.dumps(config)),
    }
    for how, copied in ways.items():
        try:
            equal = copied() == config
        except Exception as error:
            broken(f"{how} of the settings works", f"{type(error).__name__}: {error}", remedy)
        if not equal:
            broken(f"{how} gives equal settings", "different ones", remedy)
    names = [field.name for field in attrs.fields(type(config))]
    if not names:
        return
    try:
        setattr(config, names[0], getattr(config, names[0]))
    except (attrs.exceptions.FrozenInstanceError, AttributeError):
        return
    broken("the settings cannot be changed", f"{names[0]} can be set", remedy)


def parameters_survive_a_file(subject: Subject) -> None:
    """A checkpoint gives the same module back, through safetensors, into a fresh one."""
    from safetensors.torch import load_file, save_file

    module, other = subject.module(1), subject.module(2)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        remedy = "register all that learns under a name of its own (no tied parameters)"
        try:
            save_file({k: v.detach().clone() for k, v in module.named_parameters()}, file)
            other.load_state_dict(load_file(file))
        except Exception as error:
            found = " ".join(str(error).split())
            broken("the parameters load into another module", found, remedy)
    inputs = subject.inputs(module)
    with torch.no_grad():
        pairs = zip(subject.predict(module, inputs), subject.predict(other, inputs), strict=True)
        if not all(torch.equal(a, b) for a, b in pairs):
            broken(
                "the loaded module predicts the same",
                "another prediction",
                "keep nothing that changes predictions outside the parameters and settings",
            )


def projection_is_one(subject: Subject) -> None:
    """``project`` puts parameters into their allowed set once and for all, and invents none."""
    module = subject.module()
    project: Any = getattr(module, "project", None)
    if project is None:
        return
    given = {name: 3.0 * p.detach() for name, p in module.named_parameters()}
    kept = {name: p.clone() for name, p in given.items()}
    once = project(dict(given))
    if {k: v.shape for k, v in once.items()} != {k: v.shape for k, v in given.items()}:
        broken("`project` keeps names and shapes", "others", "return {**params, ...}")
    if not all(torch.equal(given[k], kept[k]) for k in kept):
        broken("`project` is pure", "it changes what it is given", "return new tensors")
    twice = project(dict(once))
    if not all(torch.allclose(once[k], twice[k], rtol=1e-5, atol=1e-6) for k in once):
        broken("projecting twice is projecting once", "it moves further", "make it idempotent")
    other = {name: -0.5 * p for name, p in given.items()}
    stacked = {name: torch.stack([given[name], other[name]]) for name in given}
    try:
        found = vmap(project)(stacked)
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0]
        broken(
            "`project` maps over stacked parameters",
            f"{type(error).__name__}: {text[:160]}",
            "no .item(), no `if` on a value: torch.where, clamp",
        )
    alones = once, project(dict(other))
    if all(torch.equal(*pair) for pair in zip(*(x.values() for x in alones), strict=True)):
        broken(
            "`project` gives other parameters another result",
            "the same",
            "compute from the parameters that it is given, not from the module's",
        )
    for place, alone in enumerate(alones):
        if not all(torch.allclose(found[k][place], alone[k], rtol=1e-5, atol=1e-6) for k in alone):
            broken(
                "`project` gives each of two stacked modules what it gives it alone",
                "another result",
                "compute from the parameters that it is given, not from the module's",
            )


def is_built_for_any_sizes(subject: Subject) -> None:
    """Numbers of tasks and widths are the study's, not the plugin's."""
    rows, generator = 2, torch.Generator().manual_seed(0)
    index, mask = torch.tensor([0, 6]), torch.ones(rows, 2)
    if subject.kind == "world_model":
        module = subject.component.build(subject.config, WorldModelDims(7, 2, 9))
        embedding = module.embed(index)
        z = module.encode(torch.randn(rows, 7, generator=generator), embedding)
        noise = torch.randn(rows, module.noise_dim, generator=generator)
        task = Task(index, mask, embedding)
        found = subject.component.predict(module, z, mask, task, noise)[0]
    else:
        module = subject.component.build(subject.config, PolicyDims(24, 3, 2))
        z = torch.randn(rows, 24, generator=generator)
        noise = torch.randn(rows, module.noise_dim, generator=generator)
        task = Task(index, mask, torch.randn(rows, 3, generator=generator))
        found, z = subject.component.predict(module, z, task, noise), mask
    if found.shape != z.shape:
        broken(
            f"other widths give a result of shape {list(z.shape)}",
            f"{list(found.shape)}",
            "take every width from `dims`",
        )


CHECKS = (
    declares_its_sizes,
    has_no_buffers,
    is_built_from_the_global_generator,
    settings_survive_a_file,
    settings_can_be_copied,
    parameters_survive_a_file,
    projection_is_one,
    is_built_for_any_sizes,
)
