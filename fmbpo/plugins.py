"""From an entry point to one checked, resolved ``Component``.

Two entry-point groups, ``fmbpo.world_models`` and ``fmbpo.policies``. Listing reads metadata and
imports nothing, so that a broken plugin spoils neither ``fmbpo plugins`` nor ``fmbpo --help``.
Loading imports exactly the chosen plugin and checks it against the contract in
``fmbpo.hookspecs``: pluggy alone would let the plugin registered last win, and would silently
never pass an argument that has a default. What comes out are plain functions.
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

    ``build(config, dims)`` gives the module; what the hooks take and give is in
    ``fmbpo.hookspecs``. ``version`` is the distribution's. Nothing of pluggy is in a call.
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
    return [listing for listing, _ in _scan()[0]]


def load_plugin(kind: Kind, name: str) -> Component:
    """Import the plugin, check it against the contract and resolve its hooks.

    What the plugin prints meanwhile goes to stderr, since stdout is for results.

    Raises ``UserError``, naming plugin, distribution and remedy, where no distribution or more
    than one offers the name, where the import fails, or where the plugin breaks the contract.
    """
    listing, entry = _find(kind, name)
    with contextlib.redirect_stdout(sys.stderr):
        plugin = _import(listing, entry)
        _check_version(listing, plugin)
        config, build = _config_and_build(listing, plugin)
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
    """That no distribution offers the name, as this kind or as any; says what is installed."""
    found, unreadable = _scan()
    kinds = list(GROUPS) if kind is None else [kind]
    installed = {k: sorted({c.name for c, _ in found if c.kind == k}) for k in kinds}
    hint = did_you_mean(name, {each for names in installed.values() for each in names})
    others = [c for c, _ in found if c.kind not in kinds and c.name == name]
    if others and "did you mean" not in hint:
        hint = f"{name!r} is installed as a {_WORDS[others[0].kind]} plugin only"
    lines = [
        hint if "did you mean" in hint or others else "",
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


_Found: TypeAlias = tuple[Listing, importlib.metadata.EntryPoint]


def _scan() -> tuple[list[_Found], list[str]]:
    """The plugins on offer, and the distributions whose entry points cannot be read.

    Distribution by distribution, since ``importlib.metadata.entry_points`` fails altogether where
    one installed file is malformed. The first of a name on the path counts, as for imports.
    """
    found: list[_Found] = []
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
                    found.append((Listing(kind, entry.name, version, name, entry.value), entry))
        except Exception:
            unreadable.append(name)
    order = list(GROUPS)
    found.sort(key=lambda pair: (order.index(pair[0].kind), pair[0].name, pair[0].distribution))
    return found, unreadable


def _find(kind: Kind, name: str) -> _Found:
    claims = [pair for pair in _scan()[0] if pair[0].kind == kind and pair[0].name == name]
    if not claims:
        raise not_offered(name, kind)
    if len(claims) > 1:
        owners = ", ".join(f"{c.distribution} {c.version} ({c.value})" for c, _ in claims)
        raise UserError(
            f"{_WORDS[kind]} plugin {name!r} is claimed by {len(claims)} distributions: {owners}",
            remedy="uninstall all but one of them; none is chosen for you",
        )
    return claims[0]


def _broken(listing: Listing, what: str, remedy: str) -> UserError:
    owner = f"{listing.distribution} {listing.version}, {listing.value}"
    return UserError(
        f"{_WORDS[listing.kind]} plugin {listing.name!r} ({owner}): {what}", remedy=remedy
    )


def _import(listing: Listing, entry: importlib.metadata.EntryPoint) -> Any:
    reinstall = f"repair or reinstall {listing.distribution}"
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        missing = error.name or "?"
        own = entry.module.split(".")[0] if entry.value else ""
        if missing.split(".")[0] == own:
            raise _broken(listing, f"its own module {missing!r} is not found", reinstall) from error
        what = f"it needs the module {missing!r}, which is not installed"
        remedy = f"install what offers {missing!r}, or reinstall {listing.distribution}"
        raise _broken(listing, what, remedy) from error
    except (Exception, SystemExit) as error:
        what = f"its import fails: {type(error).__name__}: {error}"
        raise _broken(listing, what, reinstall) from error


def _attribute(listing: Listing, plugin: object, name: str) -> Any:
    """What the plugin has under the name, None where it has nothing."""
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
        raise _broken(
            listing,
            "it has no `spec_version`" if version is None else "`spec_version` is no integer",
            f"give it `spec_version = {SPEC_VERSION}`, the contract that it was written for",
        )
    if version > SPEC_VERSION:
        raise _broken(
            listing,
            f"it is written for version {version} of the contract, newer than this fmbpo's "
            f"{SPEC_VERSION}",
            f"update fmbpo, or install an older {listing.distribution}",
        )
    if version < SPEC_VERSION:
        raise _broken(
            listing,
            f"it is written for version {version} of the contract, older than this fmbpo's "
            f"{SPEC_VERSION}",
            f"update {listing.distribution}, or install an older fmbpo",
        )


def _config_and_build(listing: Listing, plugin: object) -> tuple[type[Any], Callable[..., Any]]:
    config = _attribute(listing, plugin, "Config")
    if not isinstance(config, type) or not attrs.has(config):
        raise _broken(
            listing,
            "it has no `Config` that is an attrs class",
            "define `Config` with @attrs.frozen: the plugin's table in an experiment file",
        )
    if any(field.name == "plugin" for field in attrs.fields(config)):
        raise _broken(
            listing,
            "its `Config` has a field `plugin`, the key that names the plugin itself",
            "rename the field",
        )
    try:
        typing.get_type_hints(config)
    except Exception as error:
        raise _broken(
            listing,
            f"the types of its `Config` cannot be resolved: {error}",
            "import what the annotations name into the module of `Config`, "
            "and not under `if TYPE_CHECKING`",
        ) from error
    build = _attribute(listing, plugin, "build")
    if not callable(build):
        raise _broken(
            listing, "it has no callable `build`", "define `build(config, dims) -> nn.Module`"
        )
    return config, build


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
    names = [name for name in ("predict", "rollout", "loss", "freeze") if hasattr(spec, name)]
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
    for name in names:
        wanted = list(inspect.signature(getattr(spec, name)).parameters)[1:]
        signature = f"{name}({', '.join(wanted)})"
        implementations = getattr(manager.hook, name).get_hookimpls()
        if not implementations:
            unmarked = callable(getattr(plugin, name, None))
            what = f"the hook `{name}` is {'not marked with @hookimpl' if unmarked else 'missing'}"
            raise _broken(listing, what, f"define `{signature}`, marked with @hookimpl")
        if len(implementations) > 1 or implementations[0].wrapper or implementations[0].hookwrapper:
            what = f"the hook `{name}` has {len(implementations)} implementations or is a wrapper"
            raise _broken(listing, what, f"define exactly one plain `{signature}`")
        function: Callable[..., Any] = implementations[0].function
        _check_arguments(listing, name, function, wanted)
        hooks[name] = function
    return hooks


def _check_arguments(
    listing: Listing, name: str, function: Callable[..., Any], wanted: list[str]
) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    remedy = f"its signature must be `{name}({', '.join(wanted)})`"
    defaults = [p.name for p in parameters if p.default is not inspect.Parameter.empty]
    if defaults:
        what = f"the hook `{name}` gives the argument {defaults[0]!r} a default"
        raise _broken(listing, what, f"remove the default; {remedy}")
    given = [p.name for p in parameters]
    plain = all(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in parameters)
    if given != wanted or not plain:
        what = f"the hook `{name}` takes ({', '.join(str(p) for p in parameters)})"
        raise _broken(listing, what, remedy)
