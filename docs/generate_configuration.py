"""Write the generated files: parts of the documentation, and the schema of experiment files.

``docs/configuration.md``: every key of an experiment file, from the attrs classes in
``fmbpo.config.schema`` and the ``Config`` of each plugin of this repository; a key's meaning is
the string literal behind its field. ``docs/data.md``: the contents of the data set in the package.
``experiments/schema.json``: the output of ``fmbpo config schema`` if only the plugins of this
repository are installed. The scaffold's examples and the tables of checks in ``docs/tasks.md`` and
``docs/write-a-plugin.md``. Run it after changing one of them; ``tests/test_docs.py`` and
``tests/config/test_json_schema.py`` hold them current.
"""

from __future__ import annotations

import inspect
import json
import sys
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from fmbpo.config import conventions, load_experiment, registration, resolved, schema
from fmbpo.config import study_file as study
from fmbpo.config.identity import leaves
from fmbpo.config.json_schema import meanings, schema_text, summary
from fmbpo.config.protocols import PROTOCOLS
from fmbpo.data.embedded import store_path
from fmbpo.data.store import info
from fmbpo.plugins import Listing, list_plugins, load_plugin
from fmbpo.scaffold import Template, template
from fmbpo.tasks.table import GymnasiumTable
from fmbpo.testing import task_contract
from fmbpo.testing.contract import CHECKS
from fmbpo.testing.outcomes import Check

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "experiments" / "schema.json"
EXAMPLES: tuple[Template, ...] = ("policy", "world_model", "tasks")
BEGIN, END = "<!-- generated:begin -->\n", "<!-- generated:end -->\n"

# Fields whose class or own section suffices have no docstring of their own.
MEANINGS = {
    "kind": "Whether the file trains a world model or policies; it determines the file's tables.",
    "study.kind": "Makes the file a study.",
    "protocol.kind": "The protocol; it determines the table's other keys.",
}
WHOLE = "phase8_flowwm_flowpolicy"
"""The experiment whose scales are compared: it has every table."""


def page(path: Path) -> str:
    """The page as it should be: the hand-written text with the generated part in its place."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    text = before + BEGIN + "\n" + "\n".join(PAGES[path]()) + "\n" + END + after
    for name in EXAMPLES:
        text = _with_example(text, name)
    return text


def _with_example(text: str, name: Template) -> str:
    """The scaffold's code where the page shows it."""
    begin, end = (f"<!-- {name}:{which} -->\n" for which in ("begin", "end"))
    if begin not in text:
        return text
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n```python\n{template(name)}```\n\n{end}{after}"


def schema_file() -> str:
    """``experiments/schema.json`` as it should be."""
    return schema_text(_ours(), fail)


def fail(message: str) -> None:
    """A plugin of this repository cannot be loaded."""
    raise SystemExit(message)


def _configuration() -> Iterator[str]:
    yield "## Keys outside tables\n"
    yield _table(schema.Experiment, "", _top_level())
    for name, cls in _tables():
        which = f' with `kind = "{attrs.fields(cls).kind.default}"`' if name == "protocol" else ""
        yield f"## `[{name}]`{which}\n"
        yield _first_line(cls, name)
        if name in ("world_model", "policy"):
            yield from _plugins(typing.cast(Any, name))
        else:
            yield _table(cls, name)
    yield "## `[tasks.NAME]`\n"
    yield _first_line(GymnasiumTable, "tasks.NAME")
    yield _table(GymnasiumTable, "tasks")
    yield "## Study files\n"
    yield "A file of kind `study` names experiments that are run together and compared.\n"
    keys = [field.name for field in attrs.fields(study.StudyConfig) if field.name != "cells"]
    yield _table(study.StudyConfig, "study", keys)
    yield "## `[cells.NAME]`\n"
    yield _first_line(study.CellConfig, "cells.NAME")
    yield _table(study.CellConfig, "cells")
    for name, cls in (
        ("registration", registration.RegistrationConfig),
        ("registration.spread", registration.SpreadConfig),
        ("registration.hypotheses", registration.HypothesisConfig),
    ):
        yield f"## `[{name}]`\n"
        yield _first_line(cls, name)
        key = f"{name}.NAME" if cls is registration.HypothesisConfig else name
        yield _table(cls, key)
    yield "## Differences between the scales\n"
    yield "A policy experiment with the flow world model and the flow policy, at each scale:\n"
    yield _scales()


def _tables() -> Iterator[tuple[str, type[Any]]]:
    for name, cls in schema.tables().items():
        if cls is schema.Protocol:
            yield from ((name, protocol) for protocol in PROTOCOLS.values())
        else:
            yield name, cls


def _top_level() -> list[str]:
    tables = {name for name, _ in _tables()}
    # Chosen on the command line, the engine's own, or with a section of their own.
    hidden = {"scale", "scale_reason", "origin", "tasks"}
    names = [field.name for field in attrs.fields(schema.Experiment)]
    return [name for name in names if name not in tables | hidden]


def _plugins(kind: Literal["world_model", "policy"]) -> Iterator[str]:
    yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
    yield "| `plugin` | string | required | The plugin's entry-point name. |"
    level = meanings(schema.PluginTable)["level"]
    yield f"| `level` | string | the plugin's name | {level} |\n"
    shown: set[tuple[type[Any], str]] = set()
    for listing in sorted(_ours(), key=lambda item: item.name != "mlp"):
        if listing.kind != kind:
            continue
        config = load_plugin(kind, listing.name).Config
        yield f'### `[{kind}]` with `plugin = "{listing.name}"`\n'
        names = [f.name for f in attrs.fields(config)]
        new = [name for name in names if (_owner(config, name), name) not in shown]
        if len(new) < len(names):
            yield "The keys of `mlp`, and:\n"
        yield _table(config, kind, new)
        shown |= {(_owner(config, name), name) for name in names}


def _ours() -> list[Listing]:
    """The plugins of this repository."""
    names = {
        tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]
        for file in ROOT.glob("plugins/*/pyproject.toml")
    }
    return [listing for listing in list_plugins() if listing.distribution in names]


def _table(cls: type[Any], table: str, names: list[str] | None = None) -> str:
    hints, texts = typing.get_type_hints(cls), meanings(cls)
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field in attrs.fields(cls):
        if names is not None and field.name not in names:
            continue
        key = f"{table}.{field.name}" if table else field.name
        meaning = texts.get(field.name) or MEANINGS.get(key)
        if not meaning:
            raise SystemExit(f"{cls.__name__}.{field.name} has no docstring")
        cells = [f"`{field.name}`", _type(hints[field.name]), _default(field), meaning]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _owner(cls: type[Any], name: str) -> type[Any]:
    """The class that defines the field."""
    return next(base for base in cls.__mro__ if name in inspect.get_annotations(base))


def _first_line(cls: type[Any], name: str) -> str:
    """What the table is for."""
    if name in ("world_model", "policy"):
        return "The plugin and all its settings.\n"
    return f"{summary(cls)}\n"


def _type(hint: Any) -> str:
    names = {int: "integer", float: "number", bool: "boolean", str: "string"}
    if get_origin(hint) is Literal:
        return " or ".join(f"`{json.dumps(item)}`" for item in get_args(hint))
    if get_origin(hint) is dict:
        value = get_args(hint)[1]
        return "table" if value is Any else f"table of {_type(value)}"
    if get_origin(hint) is list:
        return f"array of {_type(get_args(hint)[0])}s"
    if get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_type(item) for item in get_args(hint) if item is not type(None))
    return "table" if attrs.has(hint) else names[hint]


def _default(field: attrs.Attribute[Any]) -> str:
    default = field.default
    if default is attrs.NOTHING:
        return "the file's name" if field.name == "name" else "required"
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        if default.takes_self:
            ours, pwm = (
                getattr(conventions.ConventionsConfig(bundle=b), field.name)
                for b in ("corrected", "pwm")
            )
            return f"`{json.dumps(ours)}`; pwm: `{json.dumps(pwm)}`"
        default = default.factory()
    return f"`{json.dumps(default)}`"


def _scales() -> str:
    file = ROOT / "experiments" / f"{WHOLE}.toml"
    scales = {
        scale: dict(leaves(resolved(load_experiment(file, scale=scale, data="embedded"))))
        for scale in ("paper", "mini", "laptop")
    }
    rows = [("key", *(f"`{scale}`" for scale in scales)), ("---",) * (1 + len(scales))]
    for key in scales["paper"]:
        values = [json.dumps(values.get(key)) for values in scales.values()]
        if len(set(values)) > 1 and key not in ("scale", "scale_reason"):
            rows.append((f"`{key}`", *(f"`{value}`" for value in values)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _embedded() -> Iterator[str]:
    store = info(store_path("embedded"))
    counts, means = store["episodes"], store["mean_return"]
    episodes = sum(row["all"] for row in counts.values())
    steps = (store["rows"] - episodes) // episodes
    behaviours = list(dict.fromkeys(name for row in means.values() for name in row))
    yield (
        f"{len(counts)} tasks, {episodes} episodes of {steps} agent steps each, "
        f"{store['rows']:,} rows, {store['bytes'] / 1e6:.0f} MB;\n{store['held_out']} episodes are "
        "held out. Mean returns (of at most 1000) by behaviour, with the number of episodes\n"
        "in brackets:\n"
    )
    yield "| task | " + " | ".join(behaviours) + " |"
    yield "| --- |" + " --- |" * len(behaviours)
    for task, row in means.items():
        cells = [f"{row[name]:.0f} ({counts[task][name]})" for name in behaviours]
        yield f"| `{task}` | " + " | ".join(cells) + " |"
    request = store["provenance"]["request"]
    tasks = ",".join(f"{task}={count}" for task, count in request["episodes"].items())
    further = "".join(f" --{key} {request[key]}" for key in ("explore", "recover") if request[key])
    yield "\nThis command made it (its attributes record settings and versions):\n"
    yield "```sh"
    yield f"fmbpo data collect --out mine.zarr --compress --seed {request['seed']}{further} \\"
    yield f"  --tasks {tasks}"
    yield "```"


def _checks() -> Iterator[str]:
    yield "| check | for | why |\n| --- | --- | --- |"
    for name, check in {name: c for found in CHECKS.values() for name, c in found.items()}.items():
        kinds = [kind.replace("_", " ") for kind, found in CHECKS.items() if name in found]
        yield f"| `{name}` | {'both' if len(kinds) == 2 else kinds[0]} | {_why(check)} |"


def _task_checks() -> Iterator[str]:
    yield "| check | why |\n| --- | --- |"
    for name, check in task_contract.CHECKS.items():
        yield f"| `{name}` | {_why(check)} |"


def _why(check: Check) -> str:
    return " ".join((check.__doc__ or "").replace("``", "`").split())


PAGES = {
    ROOT / "docs" / "configuration.md": _configuration,
    ROOT / "docs" / "data.md": _embedded,
    ROOT / "docs" / "tasks.md": _task_checks,
    ROOT / "docs" / "write-a-plugin.md": _checks,
}


def main() -> int:
    """Write the pages and the schema."""
    written = {path: page(path) for path in PAGES} | {SCHEMA: schema_file()}
    for path, new in written.items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(new, encoding="utf-8")
        print(f"{path.relative_to(ROOT)} {'was current' if old == new else 'was rewritten'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
