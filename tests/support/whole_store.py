"""A store with all its rows in memory, checked as `fmbpo.data.residence` checks what it reads."""

from attrs import astuple, frozen
from numpy.typing import NDArray

from fmbpo.data.store import Store, open_store
from fmbpo.data.store_format import DATA_ARRAYS, check_values, read, starts


@frozen(eq=False)
class Episodes(Store):
    """[N, 24], [N, 6] and [N]."""

    obs: NDArray
    action: NDArray
    reward: NDArray

    @property
    def episode_starts(self):
        return starts(self.episode_ends)


def load(path):
    """UserError as `open_store`, and for values that are not finite."""
    store = open_store(path)
    rows = []
    for name in DATA_ARRAYS:
        rows.append(read(store.arrays[name], name, store.path))
        check_values(rows[-1], 0, name, store.episode_ends, store.path)
    return Episodes(*astuple(store, recurse=False), *rows)
