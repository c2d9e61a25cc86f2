"""From an entry point to one checked, resolved ``Component``.

Listing reads metadata and imports nothing, so that a broken plugin breaks neither ``fmbpo plugins``
nor ``fmbpo --help``. Loading imports the chosen plugin alone and checks it against the contract in
``fmbpo.hookspecs``: pluggy alone would let the plugin registered last win, and would silently never
pass an argument that has a default. The results are plain functions.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import attrs
import pluggy

from fmbpo.errors import UserError, did_you_mean

Kind: TypeAlias = Literal["world_model", "policy"]

GROUPS: dict[Kind, str] = {"world_model": "fmbpo.world_models", "policy": "fmbpo.policies"}
"""Entry-point group of each kind of plugin."""

_WORDS: dict[Kind, str] = {"world_model": "world model", "policy": "policy"}


@attrs.frozen
class Listing:
    """One claim of an installed distribution to offer a plugin, from its metadata alone.

    ``version`` is the distribution's; ``value`` is the entry point's ``module:attribute``.
    """

    kind: Kind
    name: str
    version: str
    distribution: str
    value: str


@attrs.frozen(eq=False)
class Component:
    """A checked plugin: its settings class, its builder, and the four hooks as plain functions.

    ``build(config, dims)`` returns the module; ``fmbpo.hookspecs`` describes the hooks. ``version``
    is the distribution's. No call passes through pluggy.
    """

    kind: Kind
    name: str
    version: str
    distribution: str
    Config: type[Any]
    build: Callable[..., Any]
    predict: Callable[..., Any]
    rollout: Callable[..., Any]
    loss: Callable[..., Any]
    freeze: Callable[..., Any]
    small: Mapping[str, Any] = attrs.field(factory=dict)
    """Settings of a small instance, for the contract checks."""


def list_plugins() -> list[Listing]:
    """Every plugin that an installed distribution claims to offer, broken ones included.

    Reads metadata only and imports nothing. Sorted by kind (world models first), then name.
    """
    return _scan()[0]


def load_plugin(kind: Kind, name: str) -> Component:
    """Import the plugin, check it against the contract and resolve its hooks.

    The plugin's own output meanwhile goes to stderr, since stdout is for results.

    Raises ``UserError``, naming plugin, distribution and remedy, if no distribution or more than
    one offers the name, if the import fails, or if the plugin breaks the contract.
    """
    listing = _find(kind, name)
    with contextlib.redirect_stdout(sys.stderr):
        plugin = _import(listing)
        _check_version(listing, plugin)
        config = _config(listing, plugin)
        build = _attribute(listing, plugin, "build")
        if not callable(build):
            what, remedy = "it has no callable `build`", "define `build(config, dims) -> nn.Module`"
            raise _broken(listing, what, remedy)
        return Component(
            kind=kind,
            name=name,
            version=listing.version,
            distribution=listing.distribution,
            Config=config,
            build=build,
            small=_small(listing, plugin, config),
            **_resolve(listing, plugin),
        )


def not_offered(name: str, kind: Kind | None = None) -> UserError:
    """No distribution offers the name as this kind (None: as any); names the installed plugins."""
    found, unreadable = _scan()
    kinds = list(GROUPS) if kind is None else [kind]
    installed = {k: sorted({item.name for item in found if item.kind == k}) for k in kinds}
    hint = did_you_mean(name, {each for names in installed.values() for each in names})
    others = [item.kind for item in found if item.kind not in kinds and item.name == name]
    if "did you mean" not in hint:
        hint = f"{name!r} is installed as a {_WORDS[others[0]]} plugin only" if others else ""
    lines = [
        hint,
        *(f"installed {_WORDS[k]} plugins: {', '.join(installed[k]) or 'none'}" for k in kinds),
        "install the distribution that offers it; for one in this repository, "
        "`pip install -e plugins/FOLDER`",
    ]
    if unreadable:
        lines.append(f"the entry points of {', '.join(unreadable)} cannot be read: reinstall")
    words = " or ".join(_WORDS[k] for k in kinds)
    return UserError(
        f"no installed distribution offers a {words} plugin {name!r}",
        remedy="; ".join(line for line in lines if line),
    )


def _scan() -> tuple[list[Listing], list[str]]:
    """The plugins on offer, and the distributions whose entry points cannot be read.

    Distribution by distribution, since ``importlib.metadata.entry_points`` fails altogether if one
    installed file is malformed. The first of a name on the path counts, as for imports.
    """
    found: list[Listing] = []
    unreadable: list[str] = []
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if not any(group in text for group in GROUPS.values()):
                continue
            name = distribution.metadata["Name"] or "unnamed"
            version = distribution.metadata["Version"] or "unknown"
        except Exception:  # metadata of other people, of which nothing is certain
            continue
        if name.lower().replace("_", "-") in seen:
            continue
        seen.add(name.lower().replace("_", "-"))
        try:
            for kind, group in GROUPS.items():
                for entry in distribution.entry_points.select(group=group):
                    found.append(Listing(kind, entry.name, version, name, entry.value))
        except Exception:
            unreadable.append(name)
    order = list(GROUPS)
    found.sort(key=lambda item: (order.index(item.kind), item.name, item.distribution))
    return found, unreadable


def _find(kind: Kind, name: str) -> Listing:
    claims = [item for item in list_plugins() if item.kind == kind and item.name == name]
    if not claims:
        raise not_offered(name, kind)
    if len(claims) > 1:
        owners = ", ".join(f"{c.distribution} {c.version} ({c.value})" for c in claims)
        raise UserError(
            f"{len(claims)} distributions claim the {_WORDS[kind]} plugin {name!r}: {owners}",
            remedy="uninstall all but one of them; none is chosen for you",
        )
    return claims[0]


def _broken(listing: Listing, what: str, remedy: str) -> UserError:
    owner = f"{listing.distribution} {listing.version}, {listing.value}"
    return UserError(
        f"{_WORDS[listing.kind]} plugin {listing.name!r} ({owner}): {what}", remedy=remedy
    )


def _import(listing: Listing) -> Any:
    entry = importlib.metadata.EntryPoint(listing.name, listing.value, GROUPS[listing.kind])
    reinstall = f"repair or reinstall {listing.distribution}"
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        missing = error.name or "?"
        if entry.value and missing.split(".")[0] == entry.module.split(".")[0]:
            raise _broken(listing, f"its own module {missing!r} is not found", reinstall) from error
        what = f"it needs the module {missing!r}, which is not installed"
        remedy = f"install what offers {missing!r}, or reinstall {listing.distribution}"
        raise _broken(listing, what, remedy) from error
    except (Exception, SystemExit) as error:
        what = f"its import fails: {type(error).__name__}: {error}"
        raise _broken(listing, what, reinstall) from error


def _attribute(listing: Listing, plugin: object, name: str) -> Any:
    """The plugin's attribute; None if it has none of this name."""
    try:
        return getattr(plugin, name)
    except (Exception, SystemExit) as error:
        there = inspect.getattr_static(plugin, name, None) is not None
        if isinstance(error, AttributeError) and not there:
            return None
        what = f"its `{name}` cannot be read: {type(error).__name__}: {error}"
        raise _broken(listing, what, f"let `{name}` be a plain attribute") from error


def _check_version(listing: Listing, plugin: object) -> None:
    from fmbpo.hookspecs import SPEC_VERSION

    version = _attribute(listing, plugin, "spec_version")
    if type(version) is not int:
        what = "it has no `spec_version`" if version is None else "`spec_version` is no integer"
        remedy = f"set `spec_version = {SPEC_VERSION}`, the contract that it was written for"
        raise _broken(listing, what, remedy)
    if version != SPEC_VERSION:
        age, old, new = "newer", "fmbpo", listing.distribution
        if version < SPEC_VERSION:
            age, old, new = "older", new, old
        what = f"it is written for version {version} of the contract, {age} than this fmbpo's"
        raise _broken(listing, f"{what} {SPEC_VERSION}", f"update {old}, or install an older {new}")


def _config(listing: Listing, plugin: object) -> type[Any]:
    config = _attribute(listing, plugin, "Config")
    if not isinstance(config, type) or not attrs.has(config):
        what = "it has no `Config` that is an attrs class"
        remedy = "define `Config` with @attrs.frozen: the plugin's table in an experiment file"
        raise _broken(listing, what, remedy)
    if any(field.name == "plugin" for field in attrs.fields(config)):
        what = "its `Config` has a field `plugin`, the key that names the plugin itself"
        raise _broken(listing, what, "rename the field")
    try:
        typing.get_type_hints(config)
    except Exception as error:
        what = f"the types of its `Config` cannot be resolved: {error}"
        remedy = (
            "import the names in its annotations into the module of `Config`, "
            "and not under `if TYPE_CHECKING`"
        )
        raise _broken(listing, what, remedy) from error
    return config


def _small(listing: Listing, plugin: object, config: type[Any]) -> Mapping[str, Any]:
    small = _attribute(listing, plugin, "small")
    if small is None:
        return {}
    try:
        config(**small)
        return dict(small)
    except (Exception, SystemExit) as error:  # converters and validators of the plugin's own
        what = f"`small` holds no settings for its `Config`: {type(error).__name__}: {error}"
        remedy = "let `small` be a dictionary of settings, or leave it out"
        raise _broken(listing, what, remedy) from error


def _resolve(listing: Listing, plugin: object) -> dict[str, Callable[..., Any]]:
    """Each hook's one implementation, by name, after the strict checks."""
    from fmbpo import hookspecs

    spec = hookspecs.WorldModelSpec if listing.kind == "world_model" else hookspecs.PolicySpec
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(spec)
    contract = "follow the signatures in fmbpo/hookspecs.py"
    try:
        manager.register(plugin, name=listing.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        # pluggy repeats the plugin's repr on further lines; its last line holds the reason.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        what = " ".join(lines[1:] or lines)
        raise _broken(listing, what, contract) from error
    except (Exception, SystemExit) as error:
        what = f"it cannot be registered: {type(error).__name__}: {error}"
        raise _broken(listing, what, contract) from error
    hooks: dict[str, Callable[..., Any]] = {}
    for name in ("predict", "rollout", "loss", "freeze"):
        wanted = list(inspect.signature(getattr(spec, name)).parameters)[1:]
        signature = f"{name}({', '.join(wanted)})"
        implementations = getattr(manager.hook, name).get_hookimpls()
        if not implementations:
            unmarked = callable(getattr(plugin, name, None))
            what = f"the hook `{name}` is {'not marked with @hookimpl' if unmarked else 'missing'}"
            raise _broken(listing, what, f"define `{signature}`, marked with @hookimpl")
        first = implementations[0]
        if len(implementations) > 1 or first.wrapper or first.hookwrapper:
            what = f"the hook `{name}` has {len(implementations)} implementations or is a wrapper"
            raise _broken(listing, what, f"define exactly one plain `{signature}`")
        parameters = inspect.signature(first.function).parameters.values()
        defaults = [p.name for p in parameters if p.default is not inspect.Parameter.empty]
        if defaults:
            what = f"the hook `{name}` gives the argument {defaults[0]!r} a default"
            remedy = f"remove the default; its signature must be `{signature}`"
            raise _broken(listing, what, remedy)
        plain = all(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in parameters)
        if [p.name for p in parameters] != wanted or not plain:
            what = f"the hook `{name}` takes ({', '.join(map(str, parameters))})"
            raise _broken(listing, what, f"its signature must be `{signature}`")
        hooks[name] = first.function
    return hooks
