"""Measures the speed of training batches, and the reading speed of layouts of the store.

    python benchmarks/data.py                           a million rows, both measurements
    python benchmarks/data.py --rows 1 10 100 --only sampling --json benchmarks/results/FILE.json

Rows are those of the embedded data set, repeated. *Sampling*: batches from each residence, beside
one world-model update and beside torchrl's SliceSampler if it is installed (it is not a dependency:
``pip install torchrl``). *Layouts*: chunk length, compression and sharding, by size, by whole
chunks read in random order, and by slices read at random places; files are dropped from the page
cache first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from zarr.codecs import BloscCodec

sys.path.insert(0, str(Path(__file__).parent))
from update import SIZES, machine, model_jobs, timed

from fmbpo.base.free_memory import host_free
from fmbpo.config.schema import DataConfig
from fmbpo.data.embedded import store_path
from fmbpo.data.residence import Kind, Stored
from fmbpo.data.sampler import Sampler
from fmbpo.data.store import Store, open_store
from fmbpo.data.store_format import DATA_ARRAYS, layout_of, starts
from fmbpo.data.store_writer import StoreWriter
from fmbpo.data.stream import slice_sampler
from fmbpo.runs.summary import versions
from fmbpo.tasks.mt30 import SUITE
from fmbpo.training.dataset import load_dataset

HORIZON = 16
LENGTH = 500
"""Rows of an episode."""
KINDS: tuple[Kind, ...] = ("device", "host", "stream")
CHUNKS = (8_192, 65_536, 262_144)
CODECS = (("none", 0), ("lz4", 5), ("zstd", 1), ("zstd", 5), ("zstd", 9))
SHARD = 262_144


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON if asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=float, nargs="+", default=[1.0], help="millions")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", choices=list(SIZES), default="5M", help="of the world model")
    parser.add_argument("--world-model", default="mlp", metavar="PLUGIN")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each repeat")
    parser.add_argument("--only", choices=["sampling", "layouts"])
    parser.add_argument("--folder", type=Path, help="for the stores, which are removed again")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    console, load_average = Console(), os.getloadavg()
    console.width = max(console.width, 110)
    source, content = open_store(store_path("embedded")), dict[str, Any]()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.only != "sampling":
            content["layouts"] = layouts(source, int(options.rows[0] * 1e6), Path(folder), options)
            console.print(table("layouts of the store", content["layouts"]))
        if options.only != "layouts":
            content["update_milliseconds"] = update_time(options)
            content["sampling"] = []
            for millions in options.rows:
                rows = int(millions * 1e6)
                found = sampling(source, rows, Path(folder), options)
                for row in found:
                    if "milliseconds" in row:
                        share = row["milliseconds"] / content["update_milliseconds"]
                        row["share_of_update"] = share
                content["sampling"] += found
            title = f"batches of {options.batch} x {HORIZON + 1} rows; an update of a world model "
            title += f"of size {options.size}: {content['update_milliseconds']:,.0f} ms"
            console.print(table(title, content["sampling"]))
    if options.json:
        names = ("rows", "batch", "size", "world_model", "device", "repeats", "seconds")
        about = {
            "settings": {name: getattr(options, name) for name in names},
            "machine": machine(options.device),
            "load_average": load_average,
            "versions": {**versions(), "zarr": version("zarr"), "torchrl": torchrl_version()},
        }
        options.json.write_text(json.dumps({**about, **content}, indent=2) + "\n")
    return 0


# -- sampling --------------------------------------------------------------------------------


def sampling(source: Store, rows: int, folder: Path, options: Namespace) -> list[dict[str, Any]]:
    """Batches per second from every residence that fits, and from torchrl."""
    path = write(source, rows, folder / "sampled.zarr")
    device, found = torch.device(options.device), []
    for kind in KINDS:
        if not fits(rows if kind != "stream" else 0):
            found.append(skipped(kind, rows))
            continue
        forget(path)
        began = time.perf_counter()
        data = load_dataset(DataConfig(path=str(path), residence=kind), device)
        sampler = slice_sampler(data.train, HORIZON, options.batch, 0)
        sampler.batch(sampler.next().sent(device))
        ready = time.perf_counter() - began
        found.append(
            {"from": kind, "rows": rows, **rates(sampler, options), "ready_seconds": ready}
        )
        del data, sampler
    if torchrl_version() and device.type == "cpu":
        found.append(torchrl_rates(path, rows, options) if fits(2 * rows)
                     else skipped("torchrl", rows))  # fmt: skip
    shutil.rmtree(path)
    return found


def rates(sampler: Sampler, options: Namespace) -> dict[str, float]:
    """Milliseconds per batch without other work, median and worst of the repeats."""
    times = []
    for _ in range(options.repeats):
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < options.seconds:
            sampler.batch(sampler.next().sent(sampler.rows.device))
            count += 1
        times.append((time.perf_counter() - began) / count)
    median = statistics.median(times)
    return {
        "milliseconds": 1000 * median,
        "worst_milliseconds": 1000 * max(times),
        "rows_per_second": options.batch * (HORIZON + 1) / median,
    }


def torchrl_rates(path: Path, rows: int, options: Namespace) -> dict[str, Any]:
    """The same rows in torchrl's replay buffer, slices of the same length."""
    import tensordict
    from torchrl.data import LazyTensorStorage, ReplayBuffer, SliceSampler

    began, store = time.perf_counter(), open_store(path)
    storage = LazyTensorStorage(rows)
    ends = store.episode_ends
    episode = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    buffer = ReplayBuffer(
        storage=storage,
        sampler=SliceSampler(slice_len=HORIZON + 1, traj_key="episode", cache_values=True),
        batch_size=options.batch * (HORIZON + 1),
    )
    parts = {**data_arrays(store), "episode": episode}
    tensors = {name: torch.from_numpy(part) for name, part in parts.items()}
    buffer.extend(tensordict.TensorDict(tensors, batch_size=[rows]))
    buffer.sample()
    ready = time.perf_counter() - began
    found = {"from": "torchrl", "rows": rows, **rates(buffer, options), "ready_seconds": ready}
    return found


def update_time(options: Namespace) -> float:
    """Milliseconds of one world-model update: median, after a warm-up."""
    wanted = Namespace(
        size=options.size, device=options.device, batch=options.batch, horizon=HORIZON,
        compile=False, precision="float32",
    )  # fmt: skip
    job = model_jobs(options.world_model, wanted)[-1]
    return statistics.median(timed(job.call, options.device) for _ in range(options.repeats))


# -- layouts ---------------------------------------------------------------------------------


def layouts(source: Store, rows: int, folder: Path, options: Namespace) -> list[dict[str, Any]]:
    """Every layout of the same rows: bytes, writing, and two ways of reading."""
    plain = open_store(write(source, rows, folder / "plain.zarr"))
    values = {name: np.asarray(plain.arrays[name][:]) for name in DATA_ARRAYS}
    found = []
    for chunk in CHUNKS:
        for codec, level in CODECS:
            for shards in (False, True):
                if shards and chunk >= SHARD:
                    continue
                path, began = folder / "layout.zarr", time.perf_counter()
                arrays = write_layout(values, path, chunk, codec, level, shards)
                written = time.perf_counter() - began
                store = attrs.evolve(plain, path=path, arrays=arrays)
                found.append({
                    "chunk": chunk,
                    "compression": f"{codec} {level}" if level else codec,
                    "sharded": shards,
                    "bytes_per_row": folder_bytes(path) / rows,
                    "written_rows_per_second": rows / written,
                    **reading(Stored(store, torch.device("cpu")), path, options),
                })  # fmt: skip
                shutil.rmtree(path)
    shutil.rmtree(plain.path)
    return found


def write_layout(
    values: dict[str, NDArray[Any]], path: Path, chunk: int, codec: str, level: int, shards: bool
) -> dict[str, zarr.Array[Any]]:
    """Only the data arrays, as the writer makes them except for the layout."""
    group, arrays = zarr.open_group(path, mode="w", zarr_format=3), {}
    for name, array in values.items():
        blosc = (
            BloscCodec(cname=codec, clevel=level, shuffle="shuffle", typesize=4) if level else None
        )
        arrays[name] = group.create_array(
            name,
            shape=array.shape,
            chunks=(chunk, *array.shape[1:]),
            shards=(SHARD, *array.shape[1:]) if shards else None,
            dtype=array.dtype,
            compressors=blosc or None,
        )
        arrays[name][:] = array
    return arrays


def reading(stored: Stored, path: Path, options: Namespace) -> dict[str, float]:
    """Rows per second of whole chunks in random order, as a stream reads them; slices per second at
    random places, one after another."""
    rng, rows, chunk = np.random.default_rng(0), stored.store.rows, stored.block_rows
    whole, single = [], []
    for _ in range(options.repeats):
        forget(path)
        order, count, began = rng.permutation(-(-rows // chunk)), 0, time.perf_counter()
        for block in order:
            count += len(stored.span(block * chunk, min((block + 1) * chunk, rows)))
            if time.perf_counter() - began > options.seconds:
                break
        whole.append(count / (time.perf_counter() - began))
        forget(path)
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < options.seconds / 4:
            row = int(rng.integers(rows - HORIZON))
            stored.span(row, row + HORIZON + 1)
            count += 1
        single.append(count / (time.perf_counter() - began))
    return {
        "streamed_rows_per_second": statistics.median(whole),
        "random_slices_per_second": statistics.median(single),
    }


# -- stores ----------------------------------------------------------------------------------


def write(source: Store, rows: int, path: Path) -> Path:
    """Write ``rows`` rows of the source's episodes in the writer's layout, without compression."""
    first = starts(source.episode_ends)
    writer, values = StoreWriter(path, source.tasks, source.behaviours), data_arrays(source)
    for number in range(rows // LENGTH):
        i = number % len(first)
        part = slice(first[i], first[i] + LENGTH)
        writer.append(
            **{name: rows[part] for name, rows in values.items()},
            task=source.tasks[source.episode_task[i]],
            behaviour=source.behaviours[source.episode_behaviour[i]],
        )
    return writer.finish()


def data_arrays(store: Store) -> dict[str, NDArray[Any]]:
    """Observations, actions and rewards in memory, by ``obs``, ``action`` and ``reward``."""
    return {n.removeprefix("data/"): np.asarray(store.arrays[n][:]) for n in DATA_ARRAYS}


def files(path: Path) -> Iterator[Path]:
    return (file for file in path.rglob("*") if file.is_file())


def folder_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in files(path))


def forget(path: Path) -> None:
    """Drop a folder's files from the page cache."""
    for file in files(path):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fits(rows: int) -> bool:
    free = host_free()
    return free is None or rows * layout_of(SUITE).row_bytes < 0.8 * free


def skipped(what: str, rows: int) -> dict[str, Any]:
    return {"from": what, "rows": rows, "skipped": "too little memory is free"}


def torchrl_version() -> str | None:
    try:
        return version("torchrl")
    except PackageNotFoundError:
        return None


def table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    made = Table(title=title)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        made.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        values = [row.get(name, "") for name in names]
        made.add_row(*(f"{v:,.4g}" if isinstance(v, float) else str(v) for v in values))
    return made


if __name__ == "__main__":
    sys.exit(main())
