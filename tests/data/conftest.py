"""The numbered store, and its rows in every residence."""

import numpy as np
import pytest
import torch
from numbered import CPU, write_store

from fmbpo.data.residence import residence
from fmbpo.data.sampler import Rows
from fmbpo.data.store import held_out, open_store
from fmbpo.tasks.mt30 import MT30, SUITE


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """The numbered store in both layouts."""
    folder = tmp_path_factory.mktemp("numbered")
    return {
        name: open_store(write_store(folder / f"{name}.zarr", compress=name == "compressed"))
        for name in ("plain", "compressed")
    }


@pytest.fixture(scope="session", params=["plain", "compressed"])
def store(request, stores):
    return stores[request.param]


@pytest.fixture(scope="session")
def rows(store):
    """``rows(kind)``: all rows of the store that are not held out, in a residence."""
    return in_residence(store)


@pytest.fixture(scope="session")
def plain_rows(stores):
    """As ``rows``, of the store without compression: for distributions, which take many draws."""
    return in_residence(stores["plain"])


def in_residence(store):
    def rows(kind, held=False):
        index = torch.tensor([MT30[t].index for t in store.tasks])
        task_E = index[torch.from_numpy(store.episode_task.astype(np.int64))]
        kept = torch.from_numpy(held_out(store))
        return Rows(store.episode_ends, residence(store, kind, CPU), task_E, SUITE).select(
            kept if held else ~kept
        )

    return rows
