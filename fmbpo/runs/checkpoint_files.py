"""The files inside a checkpoint's folder: written with hashes, read with every byte checked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmbpo.base.files import fsync_path
from fmbpo.errors import UserError
from fmbpo.runs.tree import flatten, unflatten

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Number of the layout that ``fmbpo.runs.checkpoint`` describes; readers refuse a greater one."""

_MANIFEST, _WEIGHTS = "manifest.json", "weights.safetensors"
_STATE, _STATE_JSON = "state.safetensors", "state.json"


def write_files(
    folder: Path, manifest: Mapping[str, Any], weights: Mapping[str, Tensor], state: object | None
) -> None:
    """Fill an empty folder with a checkpoint's files and fsync each; the manifest comes last.

    Raises ``OSError`` as the system does, ``TypeError`` for a state that cannot be saved.
    """
    _write_tensors(folder / _WEIGHTS, weights)
    names = [_WEIGHTS]
    if state is not None:
        content, tensors = flatten(state)
        _write_tensors(folder / _STATE, tensors)
        (folder / _STATE_JSON).write_bytes(json.dumps(content).encode())
        names += [_STATE, _STATE_JSON]
    files = {}
    for name in names:
        fsync_path(folder / name)
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[name] = {"bytes": (folder / name).stat().st_size, "sha256": digest}
    full = {"format": FORMAT, **manifest, "files": files}
    full["sha256"] = _manifest_hash(full)
    (folder / _MANIFEST).write_bytes((json.dumps(full, indent=2) + "\n").encode())
    fsync_path(folder / _MANIFEST)


def _manifest_hash(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    # Through JSON once, since it turns tuples into lists and number keys into text.
    rest = json.loads(json.dumps(rest))
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(_unshared(tensors), path)
    except SafetensorError as error:
        # The library reports the system's error number in its message only.
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from error


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, each with memory of its own, which the file format asks for."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        own = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        storage = own.untyped_storage()
        partly = storage.nbytes() != own.numel() * own.element_size()
        if storage.data_ptr() in seen or partly:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        result[name] = own
    return result


class Vanished(UserError):
    """A file was not there; final only if it is still missing a moment later."""


class Reader:
    """Reads one checkpoint folder, and keeps to that one even if a save renames it meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Vanished("there is no checkpoint here", where=str(folder)) from error
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", where=str(folder)) from error

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def manifest(self, expect_kind: str | None = None) -> dict[str, Any]:
        """The checked manifest; ``UserError`` where it is of another kind than expected."""
        path = self.folder / _MANIFEST
        try:
            manifest = json.loads(self._read(_MANIFEST))
            number = manifest["format"]
            if not isinstance(number, int):
                raise TypeError("format is no number")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _corrupt(path, "not a checkpoint's manifest") from error
        if number > FORMAT:
            raise UserError(
                f"written in checkpoint format {number}; this fmbpo knows up to {FORMAT}",
                where=str(self.folder),
                remedy="use the fmbpo version that wrote it, or a newer one",
            )
        if manifest.get("sha256") != _manifest_hash(manifest):
            raise _corrupt(path, "its content does not match its SHA-256")
        kind = manifest["kind"]
        if expect_kind is not None and kind != expect_kind:
            raise UserError(
                f"a checkpoint of kind {kind!r} where {expect_kind!r} is needed",
                where=str(self.folder),
                remedy=f"name a checkpoint of kind {expect_kind!r}",
            )
        return dict(manifest)

    def weights(self, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
        """The networks' tensors, on the CPU."""
        from safetensors.torch import load

        return dict(load(self._checked(_WEIGHTS, manifest)))

    def state(self, manifest: Mapping[str, Any]) -> Any:
        """The training state, or None where none was saved."""
        from safetensors.torch import load

        if _STATE not in manifest["files"]:
            return None
        tensors = load(self._checked(_STATE, manifest))
        content = self._checked(_STATE_JSON, manifest)
        try:
            return unflatten(json.loads(content), tensors)
        except (ValueError, KeyError, TypeError) as error:
            what = f"not a training state ({error})"
            raise _corrupt(self.folder / _STATE_JSON, what) from error

    def _read(self, name: str) -> bytes:
        try:
            descriptor = os.open(name, os.O_RDONLY, dir_fd=self._descriptor)
            with os.fdopen(descriptor, "rb") as file:
                return file.read()
        except FileNotFoundError as error:
            what = f"not a complete checkpoint: {name} is missing"
            raise Vanished(what, where=str(self.folder)) from error
        except OSError as error:
            if error.errno == errno.ESTALE:  # a network disk's way to say that it was removed
                raise Vanished("it was replaced meanwhile", where=str(self.folder)) from error
            where = str(self.folder / name)
            raise UserError(f"cannot be read ({error.strerror})", where=where) from error

    def _checked(self, name: str, manifest: Mapping[str, Any]) -> bytes:
        entry = manifest["files"][name]
        content = self._read(name)
        if len(content) != entry["bytes"]:
            what = f"{len(content)} bytes where the manifest says {entry['bytes']}"
            raise _corrupt(self.folder / name, what)
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise _corrupt(self.folder / name, "its content does not match its SHA-256")
        return content


def _corrupt(path: Path, what: str) -> UserError:
    remedy = "use another checkpoint, or train again"
    return UserError(f"corrupt file: {what}", where=str(path), remedy=remedy)
