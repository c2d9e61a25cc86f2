"""From an entry point to one checked, resolved ``Component``.

Listing reads only metadata, so a broken plugin breaks neither ``fmbpo plugins`` nor ``fmbpo
--help``. Loading imports only the chosen plugin and checks it against the contract in
``fmbpo.hookspecs``: pluggy would let the plugin registered last win, and would silently never pass
an argument that has a default. The results are plain functions.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import attrs
import pluggy

from fmbpo.base.structure import takes
from fmbpo.base.text import said, text_of
from fmbpo.errors import UserError, did_you_mean

Kind: TypeAlias = Literal["world_model", "policy"]

GROUPS: dict[Kind, str] = {"world_model": "fmbpo.world_models", "policy": "fmbpo.policies"}
"""Entry-point group of each kind of plugin."""

FIELD_TYPES = (
    "let Config's fields be int, finite float, bool, str, Literal, list[X], tuple[X, ...], "
    "dict[str, X], X | Y, or attrs classes of them"
)
"""The remedy for settings that no file can hold."""
_SINCE_1: dict[Kind, str] = {
    "world_model": "call the argument `z` of `predict` and `rollout` `state`, add `done` to "
    "loss(module, batch, noise, done), rename `Prediction.z_BD` to `state`, `reward_logits_BR` to "
    "`reward_BR` and `reward_logits_HBR` to `reward_HBR`, and set spec_version = 2",
    "policy": "add `context` to loss(module, imagined, context), rename `Prediction.z_BD` to "
    "`state` and `reward_logits_HBR` to `reward_HBR`, and set spec_version = 2",
}
"""What a plugin that follows version 1 of the contract has to change."""
_WORDS: dict[Kind, str] = {"world_model": "world model", "policy": "policy"}


@attrs.frozen
class Listing:
    """A plugin according to a distribution's metadata, of which ``version`` is the version;
    ``value`` is the entry point's ``module:attribute``."""

    kind: Kind
    name: str
    version: str
    distribution: str
    value: str


@attrs.frozen(eq=False, kw_only=True)
class Component(Listing):
    """A checked plugin: its settings class, ``build(config, dims)``, which returns its module, and
    the hooks of ``fmbpo.hookspecs`` as plain functions, not called through pluggy."""

    Config: type[Any]
    build: Callable[..., Any]
    predict: Callable[..., Any]
    rollout: Callable[..., Any]
    loss: Callable[..., Any]
    freeze: Callable[..., Any]
    small: Mapping[str, Any] = attrs.field(factory=dict)
    """Settings of a small instance, for the contract checks."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the plugin itself: its functions need not be picklable."""
        return load_plugin, (self.kind, self.name)


def list_plugins() -> list[Listing]:
    """Every plugin in the metadata of installed distributions, also broken ones, which are not
    imported; sorted by kind (world models first), then name."""
    return _scan()[0]


def load_plugin(kind: Kind, name: str) -> Component:
    """Import the plugin, check it against the contract and resolve its hooks.

    The plugin's output goes to stderr, since stdout is for results. Raises ``UserError`` if no
    distribution or more than one offers the name, if the import fails, or if the plugin breaks the
    contract.
    """
    listing = _find(kind, name)
    with contextlib.redirect_stdout(sys.stderr):
        entry = importlib.metadata.EntryPoint(listing.name, listing.value, GROUPS[kind])
        with _importing(listing):
            plugin = entry.load()
        _check_version(listing, plugin)
        config = _config(listing, plugin)
        build = _attribute(listing, plugin, "build")
        if not callable(build):
            remedy = "define `build(config, dims) -> nn.Module`"
            raise _broken(listing, "it has no callable `build`", remedy)
        small = _attribute(listing, plugin, "small")
        remedy = "let `small` be a dictionary of settings, or omit it"
        with _blaming(listing, "`small` does not fit its `Config`", remedy):
            if small is not None:
                config(**small)
        return Component(
            **attrs.asdict(listing),
            Config=config,
            build=build,
            small=dict(small or {}),
            **_resolve(listing, plugin),
        )


def not_offered(name: str, kind: Kind | None = None) -> UserError:
    """The error that no distribution offers this plugin (``kind`` None: of either kind)."""
    found, unreadable = _scan()
    kinds = list(GROUPS) if kind is None else [kind]
    installed = {k: sorted({item.name for item in found if item.kind == k}) for k in GROUPS}
    hint = did_you_mean(name, {each for k in kinds for each in installed[k]})
    others = [k for k in GROUPS if k not in kinds and name in installed[k]]
    lines = [
        *([hint] if "did you mean" in hint else []),
        *(f"{name!r} is installed as a {_WORDS[k]} plugin only" for k in others),
        *(f"installed {_WORDS[k]} plugins: {', '.join(installed[k]) or 'none'}" for k in kinds),
        "install the distribution that offers it; for one in this repository, "
        "`pip install -e plugins/FOLDER`",
        *(f"the entry points of {one} cannot be read: reinstall it" for one in unreadable),
    ]
    words = " or ".join(_WORDS[k] for k in kinds)
    what = f"no installed distribution offers a {words} plugin {name!r}"
    return UserError(what, remedy="; ".join(lines))


def _scan() -> tuple[list[Listing], list[str]]:
    """The offered plugins, and the distributions whose entry points cannot be read."""
    kinds = {group: kind for kind, group in GROUPS.items()}
    entries, unreadable = entry_points(GROUPS.values())
    found = [
        Listing(kinds[entry.group], entry.name, version, name, entry.value)
        for entry, name, version in entries
    ]
    order = list(GROUPS)
    found.sort(key=lambda item: (order.index(item.kind), item.name, item.distribution))
    return found, unreadable


def entry_points(
    groups: Collection[str],
) -> tuple[list[tuple[importlib.metadata.EntryPoint, str, str]], list[str]]:
    """The entry points in these groups, each with its distribution's name and version, and the
    distributions whose entry points cannot be read.

    One distribution at a time, since ``importlib.metadata.entry_points`` fails if any installed
    file is malformed. The first distribution of a name on the path counts, as for imports.
    """
    found: list[tuple[importlib.metadata.EntryPoint, str, str]] = []
    unreadable: list[str] = []
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if not any(group in text for group in groups):
                continue
            name = distribution.metadata["Name"] or "unnamed"
            version = distribution.metadata["Version"] or "unknown"
        except Exception:  # foreign metadata may raise anything
            continue
        if name.lower().replace("_", "-") in seen:
            continue
        seen.add(name.lower().replace("_", "-"))
        try:
            for group in groups:
                for entry in distribution.entry_points.select(group=group):
                    found.append((entry, name, version))
        except Exception:
            unreadable.append(name)
    return found, unreadable


def _find(kind: Kind, name: str) -> Listing:
    claims = [item for item in list_plugins() if item.kind == kind and item.name == name]
    if not claims:
        raise not_offered(name, kind)
    if len(claims) > 1:
        owners = ", ".join(f"{c.distribution} {c.version} ({c.value})" for c in claims)
        raise UserError(
            f"{len(claims)} distributions claim the {_WORDS[kind]} plugin {name!r}: {owners}",
            remedy="uninstall all but one of them",
        )
    return claims[0]


def _broken(listing: Listing, what: str, remedy: str) -> UserError:
    owner = f"{listing.distribution} {listing.version}, {listing.value}"
    plugin = f"{_WORDS[listing.kind]} plugin {listing.name!r} ({owner})"
    return UserError(f"{plugin}: {what}", remedy=remedy)


@contextlib.contextmanager
def _blaming(listing: Listing, what: str, remedy: str) -> Iterator[None]:
    """Any exception of the plugin's code inside becomes a ``UserError``."""
    try:
        yield
    except (Exception, SystemExit) as error:
        reason = " ".join(text_of(error).split())  # pluggy's messages have several lines
        raise _broken(listing, f"{what}: {type(error).__name__}: {reason}", remedy) from error


@contextlib.contextmanager
def _importing(listing: Listing) -> Iterator[None]:
    """``_blaming`` for the import: a missing module is named, with the way to install it."""
    own = listing.value.partition(":")[0].partition(".")[0]
    reinstall = f"repair or reinstall {listing.distribution}"
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or missing == own:
            raise _broken(listing, f"its import fails: {said(error)}", reinstall) from error
        what = f"it imports {error.name}, which is not installed"
        remedy = (
            f"pip install {missing} (if its distribution has this name), and list it under "
            f"`dependencies` in the pyproject.toml of {listing.distribution}"
        )
        raise _broken(listing, what, remedy) from error
    except ImportError as error:
        origin = error.name or "a module"
        remedy = f"install a version of {origin.partition('.')[0]} that has it, or import another"
        if origin.partition(".")[0] == own:
            remedy = reinstall
        raise _broken(listing, f"its import fails: {said(error)}", remedy) from error
    except (Exception, SystemExit) as error:
        remedy = f"mend the code that runs at its import, or reinstall {listing.distribution}"
        raise _broken(listing, f"its import fails: {said(error)}", remedy) from error


def _attribute(listing: Listing, plugin: object, name: str) -> Any:
    """The plugin's attribute; None if it has no such attribute."""
    there = inspect.getattr_static(plugin, name, None) is not None
    with _blaming(listing, f"its `{name}` cannot be read", f"let `{name}` be a plain attribute"):
        return getattr(plugin, name) if there else getattr(plugin, name, None)


def _check_version(listing: Listing, plugin: object) -> None:
    from fmbpo.hookspecs import SPEC_VERSION

    version = _attribute(listing, plugin, "spec_version")
    if type(version) is not int:
        remedy = f"set `spec_version = {SPEC_VERSION}`, the version of the contract that it follows"
        raise _broken(listing, f"`spec_version` is {version!r}, not an integer", remedy)
    if version != SPEC_VERSION:
        age, old = ("older", listing.distribution) if version < SPEC_VERSION else ("newer", "fmbpo")
        what = f"its contract has version {version}, {age} than this fmbpo's {SPEC_VERSION}"
        own = f"; if it is yours: {_SINCE_1[listing.kind]}" if version == 1 else ""
        raise _broken(listing, what, f"update {old}{own}")


def _config(listing: Listing, plugin: object) -> type[Any]:
    config = _attribute(listing, plugin, "Config")
    if not isinstance(config, type) or not attrs.has(config):
        what = "it has no `Config` that is an attrs class"
        remedy = "define `Config` with @attrs.frozen: the plugin's table in an experiment file"
        raise _broken(listing, what, remedy)
    if any(field.name == "plugin" for field in attrs.fields(config)):
        what = "its `Config` has a field `plugin`, which is the key that names the plugin"
        raise _broken(listing, what, "rename the field")
    remedy = "import the names in its annotations, and not under `if TYPE_CHECKING`"
    with _blaming(listing, "the types of its `Config` cannot be resolved", remedy):
        hints = typing.get_type_hints(config)
        fields = [field.name for field in attrs.fields(config) if field.init]
        unknown = [name for name in fields if not takes(hints.get(name, Any))]
    if unknown:
        what = f"no experiment file can hold the type of {', '.join(unknown)} in its `Config`"
        raise _broken(listing, what, FIELD_TYPES)
    return config


def _resolve(listing: Listing, plugin: object) -> dict[str, Any]:
    """The checked implementation of each hook, by name."""
    from fmbpo import hookspecs

    spec = hookspecs.WorldModelSpec if listing.kind == "world_model" else hookspecs.PolicySpec
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(spec)
    remedy = "follow the signatures in fmbpo/hookspecs.py"
    with _blaming(listing, "it cannot be registered", remedy):
        manager.register(plugin, name=listing.name)
        manager.check_pending()
    hooks: dict[str, Any] = {}
    for name in ("predict", "rollout", "loss", "freeze"):
        wanted = list(inspect.signature(getattr(spec, name)).parameters)[1:]
        found = getattr(manager.hook, name).get_hookimpls()
        what, parameters = f"{len(found)} plain implementations marked with @hookimpl", None
        if len(found) == 1 and not found[0].wrapper and not found[0].hookwrapper:
            parameters = inspect.signature(found[0].function).parameters.values()
            what = f"the arguments ({', '.join(map(str, parameters))})"
        plain = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in wanted]
        if parameters is None or [p.replace(annotation=p.empty) for p in parameters] != plain:
            remedy = f"define exactly one `{name}({', '.join(wanted)})`, without defaults"
            raise _broken(listing, f"the hook `{name}` has {what}", remedy)
        hooks[name] = found[0].function
    return hooks
