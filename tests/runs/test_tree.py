import json
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from fmbpo.runs.tree import flatten, unflatten

DTYPES = [
    torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32,
    torch.uint8, torch.bool, torch.complex64,
]  # fmt: skip


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = math.prod(shape)
    values = draw(st.lists(st.integers(0, 250), min_size=count, max_size=count))
    return torch.tensor(values).reshape(shape).to(draw(st.sampled_from(DTYPES)))


keys = st.one_of(st.text(max_size=4), st.integers())
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(),
    tensors(),
)
states = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=12,
)


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert len(a) == len(b)
        for (ka, va), (kb, vb) in zip(a.items(), b.items(), strict=True):
            same(ka, kb)
            same(va, vb)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, float):
        assert struct.pack("d", a) == struct.pack("d", b)
    else:
        assert a == b


def through_files(state):
    content, held = flatten(state)
    # clones: hypothesis likes to use one tensor twice, which the checkpoint's writer undoes
    return unflatten(
        json.loads(json.dumps(content)), load(save({k: v.clone() for k, v in held.items()}))
    )


@settings(deadline=None, max_examples=300)
@given(states)
def test_exact_round_trip(state):
    same(state, through_files(state))


def test_what_training_really_saves():
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    generator = torch.Generator().manual_seed(3)
    state = {
        "optimiser": optimiser.state_dict(),
        "torch": generator.get_state(),
        "numpy": np.random.default_rng(5).bit_generator.state,
        "payload": struct.unpack(">d", bytes.fromhex("7ff80000deadbeef"))[0],
        "zero": -0.0,
    }
    back = through_files(state)
    same(state, back)
    optimiser.load_state_dict(back["optimiser"])
    fresh = torch.Generator()
    fresh.set_state(back["torch"])
    assert torch.equal(torch.rand(3, generator=fresh), torch.rand(3, generator=generator))


def test_like_paths_stay_apart():
    state = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    same(state, through_files(state))


@pytest.mark.parametrize("bad", [object(), {1}, b"x", np.ones(1), np.float64(1), {None: 1}, 1j])
def test_unknown_values_are_named(bad):
    with pytest.raises(TypeError, match="state/deep/0"):
        flatten({"deep": [bad]})


@pytest.mark.parametrize("bad", [{}, {"what": 1}, {"tensor": "absent"}])
def test_foreign_content(bad):
    with pytest.raises((ValueError, KeyError)):
        unflatten(bad, {})
