"""The benchmark of false alarms: its status says whether the checks of learning are right."""

import importlib.util

import pytest


@pytest.fixture(scope="module")
def benchmark(repository):
    file = repository / "benchmarks" / "false_alarms.py"
    spec = importlib.util.spec_from_file_location("false_alarms", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["mlp latent_dim=8", "ensemble consistency_coef=0.1"])
def test_a_sound_model_passes_all_three(name, benchmark, capsys):
    assert benchmark.main(["--seeds", "1", "--only", name]) == 0
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("| sound")]
    assert [row.split("|")[3:6] for row in rows] == [[" 1 ", " 1 ", " 0 "]] * 3


@pytest.mark.parametrize("name", ["policy fql units", "policy Tempered init_log_std=0.0"])
def test_a_sound_policy_passes_all_four(name, benchmark, capsys):
    assert benchmark.main(["--seeds", "1", "--only", name]) == 0
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("| sound")]
    assert [row.split("|")[3:6] for row in rows] == [[" 1 ", " 1 ", " 0 "]] * 4


def test_a_warning_counts(benchmark, capsys):
    name = "PriorThatLearnsFromLiveActions"
    assert benchmark.main(["--seeds", "1", "--only", name]) == 0
    assert "| broken | `other_parameters_learn_apart` | 1 | 1 | 1 |" in capsys.readouterr().out


def test_a_false_alarm_is_told_by_the_status(benchmark, monkeypatch, capsys):
    """Rewards without weight are not learned: were this a sound model, that would be wrong."""
    monkeypatch.setattr(benchmark, "SOUND", {"mlp": [{"reward_coef": 0.0}]})
    assert benchmark.main(["--seeds", "1", "--only", "reward_coef"]) == 1
    assert "decoded_reward_follows_the_real_one` | 1 | 1 | 1 |" in capsys.readouterr().out
