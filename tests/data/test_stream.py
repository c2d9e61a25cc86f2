"""Sampling from the disk: bounded memory, reading ahead, and damage that is named."""

import numpy as np
import pytest
import torch
from batches import sample
from numbered import CPU, write_store

from fmbpo.data import stream
from fmbpo.data.residence import Stored, residence
from fmbpo.data.store import open_store
from fmbpo.data.store_format import layout_of
from fmbpo.data.stream import StreamSampler, window_bytes
from fmbpo.errors import UserError
from fmbpo.tasks.mt30 import SUITE


def made(rows, blocks=4, batch=5, seed=0):
    return StreamSampler(rows, 3, batch, seed, window_rows=blocks * 32)


def test_a_span_is_what_the_arrays_hold(store):
    stored, n = Stored(store, CPU), store.rows
    packed = np.concatenate(
        [
            np.asarray(store.arrays["data/obs"][:]),
            np.asarray(store.arrays["data/action"][:]),
            np.asarray(store.arrays["data/reward"][:])[:, None],
        ],
        1,
    )
    for start, end in [(0, n), (0, 1), (31, 33), (5, 100), (n - 1, n)]:
        assert np.array_equal(stored.span(start, end), packed[start:end])
    assert torch.equal(residence(store, "device", CPU).packed, torch.from_numpy(packed))
    row = torch.tensor([40, 3, 40, n - 4])
    found = stored.gather(row, 3)
    assert torch.equal(found, residence(store, "host", CPU).gather(row, 3))


def test_compressed_chunks_are_seen_to_be_so(store):
    assert Stored(store, CPU).plain == (store.path.name == "plain.zarr")


def test_blocks_are_read_whole_in_another_order_each_epoch(rows, monkeypatch):
    """Each span of an epoch once, one after another within a window; windows hold four blocks."""
    spans, whole = [], Stored.span

    def span(self, start, end, out=None):
        spans.append((start, end))
        return whole(self, start, end, out)

    monkeypatch.setattr(Stored, "span", span)
    mine = rows("stream")
    sampler = made(mine, batch=1)
    windows = []
    for _ in range(2 * len(mine.start_E)):
        sample(sampler)
        if not windows or windows[-1] != sampler.window.tolist():
            windows.append(sampler.window.tolist())
    blocks = len(sampler.episodes)
    assert blocks > 12
    per_epoch = -(-blocks // 4)
    assert len(windows) == 2 * per_epoch
    first, second = (
        [b for window in windows[i : i + per_epoch] for b in window] for i in (0, per_epoch)
    )
    assert sorted(first) == sorted(second) == list(range(blocks))
    assert first != second
    sampler._reader.shutdown()  # what is read ahead has been read
    assert len(set(spans)) == blocks
    for i, window in enumerate(windows):
        at = sum(map(len, windows[:i]))
        assert spans[at : at + len(window)] == sorted(spans[at : at + len(window)])


def test_at_most_two_windows_are_in_memory(rows, monkeypatch):
    mine, held = rows("stream"), []
    read = StreamSampler._read_blocks

    def count(self, blocks):
        window = read(self, blocks)
        others = [f.result() for k, f in self._read.items() if f.done() and k != blocks]
        held.append(sum(w.packed.nbytes for w in (*others, window)))
        return window

    monkeypatch.setattr(StreamSampler, "_read_blocks", count)
    monkeypatch.setattr(stream, "WINDOW_ROWS", 4 * 32)
    sampler = made(mine)
    for _ in range(50):
        sample(sampler)
    sampler._reader.shutdown()
    assert len(held) > 10
    assert (
        max(held)
        <= window_bytes(layout_of(SUITE), 10_000, 32, 12)
        == 2 * 4 * (32 + 12) * layout_of(SUITE).row_bytes
    )
    assert max(held) > window_bytes(layout_of(SUITE), 10_000, 32, 12) / 3
    assert window_bytes(layout_of(SUITE), 70, 32, 12) == 2 * 70 * layout_of(SUITE).row_bytes


def test_a_window_has_at_least_one_block_and_at_most_all(rows):
    mine = rows("stream")
    assert made(mine, blocks=0).blocks_at_once == 1
    sampler = made(mine, blocks=1000)
    drawn = torch.cat([sample(sampler).obs_HBO[0, :, 1] for _ in range(len(mine.start_E) // 5)])
    assert len(torch.unique(drawn)) == len(drawn)


def test_drawn_with_replacement_each_copy_gives_a_slice(rows):
    drawn = rows("stream").redrawn(torch.Generator().manual_seed(0))
    starts = drawn.start_E.tolist()
    sampler = made(drawn, batch=1)
    seen = [float(sample(sampler).obs_HBO[0, 0, 1]) for _ in starts]
    others = made(drawn, batch=len(starts)).rows
    by_start = dict(zip(others.start_E.tolist(), others.residence.gather(
        others.start_E, 0)[0, :, 1].tolist(), strict=True))  # fmt: skip
    assert sorted(seen) == sorted(by_start[s] for s in starts)
    assert len(set(starts)) < len(starts)


def test_damage_is_named_when_it_is_reached(tmp_path):
    path = write_store(tmp_path / "set.zarr")
    chunk = path / "data/obs/c/2/0"
    values = np.fromfile(chunk, "<f4").reshape(-1, 24)
    values[3, 5] = np.nan
    values.tofile(chunk)
    stored = Stored(open_store(path), CPU)
    stored.span(0, 64)
    with pytest.raises(UserError, match=r"not finite \(.*\) in episode 6, row 67"):
        stored.span(50, 80)
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(UserError, match="truncated"):
        stored.span(64, 80)
    chunk.unlink()
    with pytest.raises(UserError, match="unreadable"):
        stored.span(64, 80)
