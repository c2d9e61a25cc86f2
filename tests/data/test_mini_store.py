"""The data of the study in small, in the repository: sound, small, and described by its page."""

import json
from collections import Counter

import pytest

from fmbpo.data.store import held_out, info, open_store, verify
from fmbpo.tasks.mt30 import MT30

LARGEST = 40e6


@pytest.fixture(scope="module")
def path(repository):
    return repository / "examples" / "mt30-mini.zarr"


def test_it_is_the_pages(path, repository):
    about = info(path)
    page = json.loads((repository / "docs" / "mt30_mini.json").read_text())
    for key in ("id", "rows", "bytes", "held_out"):
        assert about[key] == page[key]
    assert about["provenance"]["request"]["seed"] == page["seed"] == 0
    assert about["bytes"] < LARGEST


def test_every_byte_is_sound(path):
    assert verify(path) == info(path)["id"]


def test_it_has_forty_episodes_of_each_task(path):
    store = open_store(path)
    tasks = Counter(store.tasks[t] for t in store.episode_task)
    assert tasks == dict.fromkeys(MT30, 40)
    apart = Counter(store.tasks[t] for t in store.episode_task[held_out(store)])
    assert min(apart[task] for task in MT30) >= 4
