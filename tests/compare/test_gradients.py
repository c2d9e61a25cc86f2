"""Effects on measures of the actor's gradients: ratios, judged between replicates."""

import math

import pytest

from fmbpo.compare.gradients import gradient_effects

ESNR, JACOBIAN = "esnr", "jacobian/latent_to_latent"


def measured(record, cell, metric, means):
    """A run whose replicates 1, 2, ... have these means, of two measurements."""
    series = {str(s): [(0, mean - 0.25), (9, mean + 0.25)] for s, mean in enumerate(means, 1)}
    returns = {"t": [1.0] * len(means)}
    return record(cell, returns, models="replicated", gradients={metric: series})


def test_ratios_of_geometric_means(record):
    """A policy's ratio is formed in each world model: it is 2 in all, whatever their level."""
    records = [
        measured(record, "tied mlp", JACOBIAN, [1.0, 2.0, 4.0]),
        measured(record, "tied flow", JACOBIAN, [2.0, 4.0, 8.0]),
        measured(record, "flow mlp", JACOBIAN, [3.0, 6.0, 12.0]),
        measured(record, "flow flow", JACOBIAN, [6.0, 12.0, 24.0]),
    ]
    declared = {"flow matching": ("world_model", "flow", "tied"), "p": ("policy", "flow", "mlp")}
    (models, policies, crossed) = gradient_effects(records, declared)[JACOBIAN]
    assert models.label == "flow matching"
    assert math.exp(models.difference.value) == pytest.approx(3.0)
    # Welch's t of log(1, 2, 4), whose variance is log(2)², in each kind.
    assert models.error == pytest.approx(math.log(2) * math.sqrt(2 / 3))
    assert models.freedom == pytest.approx(4.0)
    assert math.exp(policies.difference.value) == pytest.approx(2.0)
    assert policies.error == pytest.approx(0.0, abs=1e-12)
    assert math.exp(crossed.difference.value) == pytest.approx(1.0)


def test_measures_without_a_ratio_are_left_out(record):
    records = [
        measured(record, "mlp mlp", ESNR, [0.5, 0.7, 0.0]),
        measured(record, "mlp flow", ESNR, [0.5, 0.7, 0.9]),
        record("flow flow", {"t": [1.0]}),
    ]
    assert gradient_effects(records) == {}
    assert gradient_effects(records[1:]) == {}  # nothing to compare with
