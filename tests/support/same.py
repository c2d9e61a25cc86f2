"""What must be equal, bit by bit, in runs that were interrupted and runs that were not."""

import filecmp
import json
from pathlib import Path

import torch
from torch.utils._pytree import tree_flatten

from fmbpo.runs.checkpoint import list_checkpoints, load_checkpoint

LIVE = {"run.lock", "heartbeat.json"}


def assert_same_runs(runs, reference):
    """All that counts, bit by bit; only times differ."""
    folders = {path.name for path in reference.iterdir()}
    assert {path.name for path in runs.iterdir()} == folders
    for name in folders:
        assert_same_files(runs / name, reference / name)
        if not (reference / name / "config.json").exists():  # a study
            continue
        assert_same_run(runs / name, reference / name)
        summaries = [json.loads((r / name / "summary.json").read_text()) for r in (runs, reference)]
        seconds = [summary.pop("seconds") for summary in summaries]
        assert summaries[0] == summaries[1]
        for one, wanted in zip(*map(parts, seconds), strict=True):
            assert one > 0 or one == wanted == 0  # 0: that of an imported world model


def parts(seconds):
    return list(seconds.values()) if isinstance(seconds, dict) else [seconds]


def assert_same_files(folder, reference):
    """The files that are there, and those of them that say nothing of times, byte by byte."""
    found, wanted = (
        {p.name: p for p in place.iterdir() if p.is_file() and ".aside" not in p.name}
        for place in (folder, reference)
    )
    assert found.keys() == wanted.keys()
    for name in wanted.keys() - LIVE - {"summary.json"}:
        assert found[name].read_bytes() == wanted[name].read_bytes(), name


def assert_same_run(run, reference):
    assert (run / "metrics.jsonl").read_bytes() == (reference / "metrics.jsonl").read_bytes()
    names = [path.name for path in list_checkpoints(reference / "checkpoints")]
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == names
    assert not [p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")]
    for name in names:
        a, b = (load_checkpoint(folder / "checkpoints" / name) for folder in (run, reference))
        for manifest in (a.manifest, b.manifest):
            manifest.pop("seconds", None)
        assert a.manifest == b.manifest
        assert_same_tree(a.weights, b.weights)
        assert_same_tree(a.state, b.state)


def assert_same_tree(a, b):
    (leaves, shape), (others, other_shape) = tree_flatten(a), tree_flatten(b)
    assert shape == other_shape
    for leaf, other in zip(leaves, others, strict=True):
        if isinstance(leaf, torch.Tensor):
            assert leaf.dtype == other.dtype
            assert leaf.numpy().tobytes() == other.numpy().tobytes()
        else:
            assert leaf == other


def same_files(a: Path, b: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = sorted(str(p.relative_to(a)) for p in a.rglob("*") if p.is_file())
    others = sorted(str(p.relative_to(b)) for p in b.rglob("*") if p.is_file())
    return names == others and not filecmp.cmpfiles(a, b, names, shallow=False)[1]
