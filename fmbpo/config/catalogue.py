"""The catalogue: the experiment files that come with fmbpo, which every folder knows by name."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import attrs

from fmbpo.base.files import disk_errors, path_of, write_text
from fmbpo.config import toml
from fmbpo.errors import UserError, did_you_mean

_PACKAGE = Path(__file__).parent.parent
FOLDER = _PACKAGE / "catalogue"
"""In a wheel; an editable install has the repository's ``experiments/``."""
if not FOLDER.exists():
    FOLDER = _PACKAGE.parent / "experiments"


@attrs.frozen
class Entry:
    """An experiment or a study; ``aliases`` are its older names."""

    name: str
    kind: str
    phase: str
    description: str
    aliases: list[str]


def entries() -> list[Entry]:
    """The whole catalogue, by name."""
    trees = {file.stem: toml.read(file).tree for file in sorted(FOLDER.glob("*.toml"))}
    return [
        Entry(name, t["kind"], t.get("phase", ""), t.get("description", ""), t.get("aliases", []))
        for name, t in trees.items()
    ]


def find(named: str | Path) -> Path:
    """The file that a person names: by its path, or by a name or alias in the catalogue.

    A name is one word that does not end in ``.toml``; a file that is there wins. If a path leads to
    no file, the one beside it that has the name as an alias counts, else the path itself.

    Raises:
        UserError: the catalogue has no such name, or a TOML file of that name lies here, or the
            path leads nowhere and ends in a name of the catalogue.
    """
    path = path_of(named)
    if os.path.isfile(path):  # False, and no error, for a name that no file can have
        return path
    if path.suffix == ".toml" or path.name != str(named):
        beside = _in(path.parent, path.stem)
        if beside is None and not os.path.exists(path) and _in(FOLDER, path.stem):
            remedy = f"give the name alone, {path.stem}: this experiment comes with fmbpo"
            raise UserError(f"no such file: {path}", remedy=remedy)
        return beside or path
    found, mine = _in(FOLDER, path.name), Path(f"{named}.toml")
    if os.path.isfile(mine) and not (found and mine.samefile(found)):
        what = "a name alone means one that comes with fmbpo; a file here has this name"
        remedy = f"give {mine} for the file here{f', or {found}' if found else ''}"
        raise UserError(what, where=str(named), remedy=remedy)
    return by_name(path.name)


def by_name(name: str) -> Path:
    """The file of the catalogue with this name or alias. Raises ``UserError`` if it has none."""
    found = _in(FOLDER, name)
    if found is None:
        known = [word for entry in entries() for word in (entry.name, *entry.aliases)]
        what = f"no such path, and no experiment of this name: {name[:100]!r}"
        remedy = f"{did_you_mean(name, known)} (`fmbpo experiments` lists all)"
        raise UserError(what, remedy=remedy)
    return found


def copy(name: str, out: Path) -> Path:
    """Copy an experiment, or a study with its cells, and all that they extend; its new file.

    Raises:
        UserError: the catalogue has no such name, ``out`` has other files of these names (nothing
            is written then), or it cannot be written.
    """
    named = by_name(name)
    files = [FOLDER / "schema.json", *_needed(named)]
    texts = {out / os.path.relpath(file, FOLDER): file.read_text("utf-8") for file in files}
    with disk_errors(out):
        others = [str(p) for p, text in texts.items() if p.exists() and p.read_text() != text]
        if others:
            what = f"other files are there: {', '.join(others)}"
            remedy = "move them away, or name another folder with --out"
            raise UserError(what, where=str(out), remedy=remedy)
        for place in [place for place in texts if not place.exists()]:  # the named one comes last
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, texts[place])
    return out / named.name


def _needed(file: Path) -> list[Path]:
    """The files that a file extends or has as cells, and itself."""
    document = toml.read(file)
    cells = document.tree.get("cells", {}).values()
    inner = [one for cell in cells for one in _needed(file.parent / cell["experiment"])]
    return [*inner, *document.files]


def _in(folder: Path, name: str) -> Path | None:
    """The folder's file with this name or alias; unreadable files are skipped."""
    there = sorted(folder.glob("*.toml")) if os.path.isdir(folder) else []
    files = {file.stem: file for file in there}
    if name in files:
        return files[name]
    for file in files.values():
        with contextlib.suppress(UserError):
            aliases = toml.read(file).tree.get("aliases")
            if isinstance(aliases, list) and name in aliases:
                return file
    return None
