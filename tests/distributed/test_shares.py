"""Parts of sequences and trees of cells."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves

from fmbpo.distributed.shares import joined, part_of, shares


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_are_consecutive_and_even(count, processes):
    found = shares(count, processes)
    assert [i for share in found for i in range(count)[share]] == list(range(count))
    sizes = [share.stop - share.start for share in found]
    assert len(sizes) == processes
    assert sizes == sorted(sizes, reverse=True) or max(sizes) - min(sizes) <= 1
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 7), st.integers(1, 7))
def test_a_tree_is_its_parts(cells, processes):
    tree = {
        "tensors": (torch.rand(cells, 3), torch.arange(cells)),
        "array": np.arange(2 * cells).reshape(cells, 2),
        "list": [{"any": i} for i in range(cells)],
        "nothing": None,
    }
    parts = [part_of(tree, s) for s in shares(cells, processes) if s.stop > s.start]
    found = joined(parts)
    assert found["list"] == tree["list"]
    assert found["nothing"] is None
    assert np.array_equal(found["array"], tree["array"])
    assert all(map(torch.equal, found["tensors"], tree["tensors"]))
    assert len(tree_leaves(found)) == len(tree_leaves(tree))
