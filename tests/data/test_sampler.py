"""What batches are made of, wherever the rows are: the same distributions from all residences."""

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from batches import sample, some_starts

from fmbpo.config.schema import DataConfig
from fmbpo.data.sampler import (
    START_ROWS,
    Ahead,
    SliceSampler,
    SliceStarts,
    StartSampler,
    first_rows,
    start_samplers,
    turns,
)
from fmbpo.data.stream import StreamSampler, slice_sampler
from fmbpo.tasks.mt30 import MT30
from fmbpo.training.dataset import load_dataset

KINDS = ["device", "host", "stream"]
CPU = torch.device("cpu")
H = 3


def sampler(rows, batch, seed=0, weights=None):
    """As training makes it, with windows of four blocks."""
    weight_K = None
    if weights:
        weight_K = torch.tensor([weights.get(t, 1.0) for t in MT30], dtype=torch.float64)
    if rows.residence.kind == "stream":
        return StreamSampler(rows, H, batch, seed, weight_K, window_rows=128)
    return slice_sampler(rows, H, batch, seed, weight_K)


def first(batch):
    """The row of the store with which each slice begins."""
    return batch.obs_HBO[0, :, 0].long()


def episodes(rows, row):
    """The numbers among ``rows`` of the episodes that rows of the store are in."""
    return torch.searchsorted(rows.end_E, row, right=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_is_of_one_episode_and_whole(kind, rows):
    mine = rows(kind)
    made = sampler(mine, 7)
    for _ in range(20):
        batch = sample(made)
        row = first(batch)
        e = episodes(mine, row)
        assert (row >= mine.start_E[e]).all()
        assert (row + H < mine.end_E[e]).all()
        steps = torch.arange(H + 1).unsqueeze(1)
        assert torch.equal(batch.obs_HBO[..., 0], (row + steps).float())
        reward = (row + steps[1:] - mine.start_E[e]) / 100
        assert torch.allclose(batch.reward_HB, reward.float())
        assert torch.equal(batch.index_B, mine.task_E[e])
        assert torch.equal(batch.mask_BA, mine.mask_KA[batch.index_B])
        assert torch.equal(batch.terminated_HB, torch.zeros_like(batch.reward_HB))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_terminal_if_it_leads_to_the_last_row_of_an_episode_that_terminated(kind, rows):
    mine, ends = rows(kind), Counter()
    mine.terminated_E = mine.end_E % 2 == 0
    made = sampler(mine, 16)
    for _ in range(40):
        batch = sample(made)
        row = first(batch) + H
        e = episodes(mine, row)
        last, terminated = row == mine.end_E[e] - 1, mine.terminated_E[e]
        assert torch.equal(batch.terminated_HB[-1], (last & terminated).float())
        assert not batch.terminated_HB[:-1].any()
        ends.update(zip(last.tolist(), terminated.tolist(), strict=True))
    assert len(ends) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_has_every_episode_once_and_none_that_is_held_out(kind, rows):
    mine, held = rows(kind), set(rows(kind, held=True).start_E.tolist())
    count = len(mine.start_E)
    made = sampler(mine, 1)
    for _ in range(3):
        drawn = [int(episodes(mine, first(sample(made)))) for _ in range(count)]
        assert sorted(drawn) == list(range(count))
        assert not held & set(mine.start_E[drawn].tolist())
        assert drawn != sorted(drawn)


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_are_uniform(kind, plain_rows):
    """Chi-square of offsets within the episodes of 12 rows, which have nine places for a slice."""
    mine = plain_rows(kind)
    count, made, seen = len(mine.start_E), sampler(mine, len(mine.start_E)), Counter()
    for _ in range(120):
        row = first(sample(made))
        e = episodes(mine, row)
        long = mine.end_E[e] - mine.start_E[e] == 12
        seen.update((row - mine.start_E[e])[long].tolist())
    assert set(seen) == set(range(9))
    expected = 120 * int((mine.end_E - mine.start_E == 12).sum()) / 9
    assert expected > 120 * count / 50
    assert sum((n - expected) ** 2 / expected for n in seen.values()) < 26.1  # 99.9 % of 8


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_slices_per_epoch(kind, plain_rows):
    weights = {"reacher-easy": 2.0, "pendulum-swingup": 0.25}
    mine = plain_rows(kind)
    weight_E = torch.tensor([2.0, 0.25, 1.0])[
        torch.tensor([["reacher-easy", "pendulum-swingup", "walker-walk"].index(
            list(MT30)[int(t)]) for t in mine.task_E])]  # fmt: skip
    made, epochs, seen = sampler(mine, 1, weights=weights), 60, Counter()
    for _ in range(int(epochs * weight_E.sum())):
        seen[int(episodes(mine, first(sample(made))))] += 1
    counts = torch.tensor([seen[e] for e in range(len(weight_E))], dtype=torch.float64)
    assert ((counts - epochs * weight_E)[weight_E >= 1].abs() <= 4).all()  # all but the last epoch
    few = weight_E < 1
    expected = epochs * 0.25
    chi = ((counts[few] - expected) ** 2 / (expected * 0.75)).sum()
    assert chi < int(few.sum()) + 4 * (2 * int(few.sum())) ** 0.5
    shares = torch.tensor([counts[weight_E == w].sum() for w in (2.0, 0.25, 1.0)])
    wanted = torch.tensor([weight_E[weight_E == w].sum() for w in (2.0, 0.25, 1.0)])
    assert torch.allclose(shares / shares.sum(), (wanted / wanted.sum()).double(), atol=0.01)


def test_turns():
    generator = torch.Generator().manual_seed(0)
    some = torch.tensor([4, 7, 9])
    assert sorted(turns(some, None, generator).tolist()) == [4, 7, 9]
    weight_E = torch.zeros(10, dtype=torch.float64)
    weight_E[some] = torch.tensor([2.0, 0.5, 1.5], dtype=torch.float64)
    seen = Counter()
    for _ in range(2000):
        epoch = Counter(turns(some, weight_E, generator).tolist())
        assert epoch[4] == 2
        assert epoch[7] in (0, 1)
        assert epoch[9] in (1, 2)
        seen += epoch
    assert abs(seen[7] / 2000 - 0.5) < 0.05
    assert abs(seen[9] / 2000 - 1.5) < 0.05


def test_weights_of_one_take_nothing_from_the_offsets():
    """Without weights no random number more is drawn: the batches are those of earlier versions."""
    data = load_dataset(DataConfig(path="embedded"), CPU)
    made, content = SliceSampler(data.train, 16, 256, 7), hashlib.sha256()
    for _ in range(5):
        for part in sample(made)._replace(terminated_HB=torch.empty(0)):  # newer than the sum
            content.update(part.contiguous().numpy().tobytes())
    assert content.hexdigest() == GOLDEN_SLICES
    generator, content = torch.Generator().manual_seed(3), hashlib.sha256()
    for task in torch.unique(data.train.task_E):
        for _ in range(3):
            obs = some_starts(StartSampler(data.train, int(task)), 512, generator)
            content.update(obs.contiguous().numpy().tobytes())
    assert content.hexdigest() == GOLDEN_STARTS


# Written by code that gave the digests of the version before residences (commit f69ab58) on the
# data of that time.
GOLDEN_SLICES = "4840ff0ba454eb8509ec681c89c95d6f97b02ebe55433f1e8960c0c63405cdc5"
GOLDEN_STARTS = "1e8e3f694f45951d1f01d8d22213837b8bc2ef12535149369c28d8ac0354062e"


def test_host_and_device_give_the_same_bits(rows):
    one, other = (slice_sampler(rows(kind), H, 5, 1) for kind in ("device", "host"))
    assert isinstance(other, Ahead)
    for _ in range(30):
        for a, b in zip(sample(one), sample(other), strict=True):
            assert torch.equal(a, b)
            assert a.stride() == b.stride()


def test_rows_on_the_disk_are_those_in_memory(rows):
    """Policies' and validation's slices are read where they are."""
    held = rows("device", held=True)
    other = rows("stream", held=True)
    for a, b in zip(sample(SliceSampler(held, H, 9, 1)), sample(SliceSampler(other, H, 9, 1)),
                    strict=True):  # fmt: skip
        assert torch.equal(a, b)
        assert a.stride() == b.stride()


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_is_that_of_the_batches_handed_out(kind, rows):
    made = sampler(rows(kind), 5, seed=4)
    if kind == "stream":
        made = Ahead(made, rows(kind).residence.worker)
    for count in (0, 1, 9, 30):
        for _ in range(count):
            sample(made)
        state = {k: v.clone() for k, v in made.state().items()}
        expected = [sample(made) for _ in range(25)]
        again = sampler(rows(kind), 5, seed=99)
        again.load_state(state)
        for batch in expected:
            for a, b in zip(batch, sample(again), strict=True):
                assert torch.equal(a, b)
        made.load_state(state)  # and the same object goes back to it
        for a, b in zip(expected[0], sample(made), strict=True):
            assert torch.equal(a, b)
        made.load_state(state)


def test_a_failed_batch_is_drawn_anew(plain_rows):
    made = slice_sampler(plain_rows("host"), H, 5, 1)
    made.next()
    state, drawn = made.state(), made.sampler.next
    made.load_state(state)
    made.sampler.next = lambda: (_ for _ in ()).throw(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        made.next()
    made.sampler.next = drawn
    made.load_state(state)
    made.next()


@pytest.mark.parametrize("kind", KINDS)
def test_policies_start_from_every_row_of_their_task_alike(kind, plain_rows):
    """Chi-square over the rows of all training episodes of a task."""
    mine = plain_rows(kind)
    task = MT30["walker-walk"].index
    (made,) = start_samplers(mine, [task]).values()
    generator, draws = torch.Generator().manual_seed(0), 20_000
    seen = Counter(some_starts(made, draws, generator)[:, 0].long().tolist())
    only = mine.of_task(task)
    spans = zip(only.start_E.tolist(), only.end_E.tolist(), strict=True)
    allowed = np.concatenate([np.arange(a, b) for a, b in spans])
    assert set(seen) == set(allowed.tolist())
    expected = draws / len(allowed)
    # The pool is itself a draw: it adds its own share of the variance.
    scale = 1 + (draws / START_ROWS if kind == "stream" else 0)
    chi = sum((n - expected) ** 2 / expected for n in seen.values()) / scale
    assert chi < len(allowed) + 4 * (2 * len(allowed)) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_sub_trajectories_of_starts_begin_at_every_row_that_leaves_room(
    kind, plain_rows, monkeypatch
):
    """They are one pool for rows on the disk."""
    monkeypatch.setattr("fmbpo.data.sampler.START_ROWS", 8192)
    mine, steps = plain_rows(kind), 2
    task = MT30["walker-walk"].index
    made, generator = SliceStarts(mine, task, steps), torch.Generator().manual_seed(0)
    real = made.real(made.draw(20_000, generator).sent(mine.device))
    row_HB = real.obs_HBO[:, :, 0].long()
    assert torch.equal(row_HB, row_HB[0] + torch.arange(steps + 1).unsqueeze(1))
    only = mine.of_task(task)
    spans = zip(only.start_E.tolist(), only.end_E.tolist(), strict=True)
    allowed = np.concatenate([np.arange(a, b - steps) for a, b in spans])
    count = Counter(row_HB[0].tolist())
    assert set(count) == set(allowed.tolist())
    expected = 20_000 / len(allowed)
    scale = 1 + (20_000 / 8192 if kind == "stream" else 0)
    chi = sum((n - expected) ** 2 / expected for n in count.values()) / scale
    assert chi < len(allowed) + 4 * (2 * len(allowed)) ** 0.5
    again = made.real(made.draw(20_000, torch.Generator().manual_seed(0)).sent(mine.device))
    assert torch.equal(again.obs_HBO[:, :, 0].long(), row_HB)


def test_first_rows_reach_both_ends(plain_rows):
    mine = plain_rows("device")
    generator = torch.Generator().manual_seed(0)
    e = torch.zeros(500, dtype=torch.int64)
    row = first_rows(mine, e, H, generator)
    assert int(row.min()) == int(mine.start_E[0])
    assert int(row.max()) == int(mine.end_E[0]) - H - 1
