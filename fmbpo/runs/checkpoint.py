"""Checkpoints: one safetensors file each, never half-written.

A checkpoint ``NAME`` is the file ``NAME.safetensors``. Its tensors are ``weights/...``, the
networks' parameters, and ``state/...``, the training state's (optimisers, generators). Its metadata
are texts:

================== ================================================================================
``fmbpo_format``   2
``manifest``       JSON: kind, step, versions, resolved configuration, data-set id, protocol
``state``          JSON: the rest of the training state (``fmbpo.runs.tree``), null if there is none
``weights_sha256`` of the weights: their names, types, shapes and bytes
``state_sha256``   the same of the training state's tensors
``sha256``         of all other metadata
================== ================================================================================

Saving writes the file aside, fsyncs it and renames it, so that a kill leaves the old one or the
new one. One process at a time may write it (a run's lock ensures this); any number may read.
Reading checks every byte that it uses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from fmbpo.base.files import CHECK_FILE, asides, disk_errors, replace_file
from fmbpo.errors import UserError
from fmbpo.runs.tree import flatten, unflatten

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 2
"""Number of the layout above; readers reject all others."""

_SUFFIX = ".safetensors"
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "complex64": "C64",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""torch's type names -> the file format's."""


@attrs.frozen
class Checkpoint:
    """A loaded checkpoint: weights on the requested device, the state's tensors on the CPU, where
    generator states must be. ``state`` is None if none was saved or requested."""

    manifest: dict[str, Any]
    weights: dict[str, Tensor]
    state: Any


def checkpoint_file(path: Path) -> Path:
    """The file of a checkpoint; ``path`` may lack the extension."""
    return path if path.name.endswith(_SUFFIX) else path.with_name(path.name + _SUFFIX)


def checkpoint_exists(path: Path) -> bool:
    """Whether there is a checkpoint, even a damaged one or one of an older format."""
    return checkpoint_file(path).exists() or _is_old(path)


def list_checkpoints(parent: Path) -> list[Path]:
    """The checkpoint files in a folder, sorted by name."""
    return sorted(parent.glob(f"[!.]*{_SUFFIX}"))


def save_checkpoint(
    path: Path,
    *,
    manifest: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    state: object | None,
) -> None:
    """Write a checkpoint, replacing an older one of the same name in one step.

    ``manifest`` is JSON with at least ``kind`` and ``step``; ``state`` is anything that
    ``fmbpo.runs.tree.flatten`` takes. Raises ``UserError`` if the disk is full or the folder is not
    writable, and keeps the older checkpoint; ``TypeError`` for a state that cannot be saved.
    """
    if missing := {"kind", "step"} - set(manifest):
        raise ValueError(f"the manifest of a checkpoint lacks {sorted(missing)}")
    content, held = flatten(state)
    groups = {
        group: {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        for group, tensors in (("weights", weights), ("state", held))
    }
    metadata = {
        "fmbpo_format": str(FORMAT),
        "manifest": json.dumps(manifest),
        "state": json.dumps(content),
        **{f"{group}_sha256": _tensors_sha256(tensors) for group, tensors in groups.items()},
    }
    metadata["sha256"] = _metadata_sha256(metadata)
    tensors = {f"{group}/{name}": t for group in groups for name, t in groups[group].items()}
    file, intact = checkpoint_file(path), "the last checkpoint is intact"
    with disk_errors(file, intact=intact):
        file.parent.mkdir(parents=True, exist_ok=True)
        for aside in asides(file.parent):
            if aside.name.startswith(f".{file.stem}."):  # a killed process left it
                aside.unlink(missing_ok=True)
    replace_file(file, lambda aside: _write(aside, tensors, metadata), intact=intact)


def load_checkpoint(
    path: Path,
    *,
    device: str | torch.device = "cpu",
    with_state: bool = True,
    expect_kind: str | None = None,
) -> Checkpoint:
    """Read a checkpoint; ``with_state``: its training state too.

    Raises ``UserError`` if it is missing, truncated, corrupt, of another format, or of another
    kind than ``expect_kind``.
    """
    with _opened(path) as (file, metadata):
        manifest = json.loads(metadata["manifest"])
        if expect_kind not in (None, manifest["kind"]):
            raise UserError(
                f"a checkpoint of kind {manifest['kind']!r}; {expect_kind!r} is needed",
                where=str(checkpoint_file(path)),
                remedy=f"name a checkpoint of kind {expect_kind!r}",
            )
        weights = _read(file, "weights", metadata, device)
        state = None
        if with_state:
            state = unflatten(json.loads(metadata["state"]), _read(file, "state", metadata, "cpu"))
    return Checkpoint(manifest, weights, state)


def read_manifest(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest alone. Raises ``UserError`` as ``load_checkpoint``."""
    with _opened(path) as (_, metadata):
        return dict(json.loads(metadata["manifest"]))


def weights_sha256(path: Path) -> str:
    """The SHA-256 of a checkpoint's weights, from its metadata, without reading them."""
    with _opened(path) as (_, metadata):
        return metadata["weights_sha256"]


# -- the file ------------------------------------------------------------------------------------


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Stream the safetensors format; the library's writer leaves further files if killed."""
    header: dict[str, Any] = {"__metadata__": metadata}
    # Larger element types first, so that each tensor begins at a multiple of its element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        header[name] = {**_described(tensors[name]), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(_bytes(tensors[name]))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """The open file and its checked metadata; an error inside becomes a ``UserError``.

    The library opens a file twice, for its header and for its tensors. In between, a run may have
    replaced it; the descriptor's own path stays the first file's.
    """
    from safetensors import SafetensorError, safe_open

    where = str(checkpoint_file(path))
    try:
        with (
            open(where, "rb") as held,
            safe_open(f"/proc/self/fd/{held.fileno()}", framework="pt") as file,
        ):
            metadata = file.metadata() or {}
            number = metadata.get("fmbpo_format")
            if number is None:
                raise ValueError("fmbpo did not write it")
            if number != str(FORMAT):
                raise UserError(
                    f"written in checkpoint format {number}; this fmbpo knows format {FORMAT}",
                    where=where,
                    remedy="use the fmbpo version that wrote it, or a newer one",
                )
            if metadata.get("sha256") != _metadata_sha256(metadata):
                raise ValueError("its metadata do not match their SHA-256")
            yield file, metadata
    except FileNotFoundError as error:
        if _is_old(path):
            raise UserError(
                "a checkpoint of an older format, a folder, which this fmbpo does not read",
                where=str(path),
                remedy="train again in another folder, or use the fmbpo version that wrote it",
            ) from error
        remedy = "name a checkpoint that is there, such as RUN/checkpoints/best"
        raise UserError("there is no checkpoint here", where=where, remedy=remedy) from error
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise UserError(what, where=where, remedy=CHECK_FILE) from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"corrupt file: {error}", where=where, remedy="use another checkpoint, or train again"
        ) from error


def _read(
    file: Any, group: str, metadata: Mapping[str, str], device: str | torch.device
) -> dict[str, Tensor]:
    """Checked copies of the tensors of one group."""
    prefix = f"{group}/"
    mapped = {name.removeprefix(prefix): file.get_tensor(name)
              for name in sorted(file.keys()) if name.startswith(prefix)}  # fmt: skip
    if _tensors_sha256(mapped) != metadata[f"{group}_sha256"]:
        raise ValueError(f"its {group} do not match their SHA-256")
    return {name: tensor.to(device, copy=True) for name, tensor in mapped.items()}


def _is_old(path: Path) -> bool:
    """Whether this is a checkpoint of format 1, a folder."""
    return (path / "manifest.json").exists()


def _metadata_sha256(metadata: Mapping[str, str]) -> str:
    rest = {key: value for key, value in metadata.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, _described(tensor)]).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _described(tensor: Tensor) -> dict[str, Any]:
    """Type and shape as in the file's header."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise TypeError(f"tensors of type {dtype} cannot be saved in a checkpoint")
    return {"dtype": _DTYPES[dtype], "shape": list(tensor.shape)}


def _bytes(tensor: Tensor) -> Any:
    """A contiguous CPU tensor's memory, as a buffer."""
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy()
