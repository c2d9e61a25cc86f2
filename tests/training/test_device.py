"""The device of one of several processes. No GPU is needed: torch's answers are replaced."""

import pytest
import torch

from fmbpo.errors import UserError
from fmbpo.training.device import resolve_device


@pytest.fixture
def second_of_two(monkeypatch):
    """This process is the second one that torchrun started on a machine with two GPUs."""
    chosen = []
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: torch.ones(()))
    return chosen


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_has_a_gpu_of_its_own(name, second_of_two):
    assert resolve_device(name) == torch.device("cuda:1")
    assert second_of_two == ["cuda:1"]


def test_there_must_be_enough_and_none_may_be_named(second_of_two, monkeypatch):
    with pytest.raises(UserError, match="2 processes cannot share cuda:0"):
        resolve_device("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match="3 processes need a GPU each, and this machine has 2"):
        resolve_device("auto")
    assert second_of_two == []
    assert resolve_device("cpu") == torch.device("cpu")
