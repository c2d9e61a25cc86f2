"""Gates that a result must pass to be believed; each failure is a sentence in the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def world_model_health(measures: Mapping[str, float]) -> list[str]:
    """Warnings about a world model from its held-out measures (see ``Validator``)."""
    found = []
    if measures["reward_r2"] <= 0:
        found.append(
            f"the decoded reward explains nothing on held-out episodes "
            f"(R² {measures['reward_r2']:.3f})"
        )
    if measures["reward_std"] < 1e-6:
        found.append("the decoded reward is constant")
    if measures["effective_rank"] < 2:
        found.append(f"the latent has collapsed (effective rank {measures['effective_rank']:.2f})")
    if measures["simplex_error"] > 1e-3:
        found.append(f"latents leave the simplex by {measures['simplex_error']:.3g}")
    longest = max(int(k.removeprefix("obs_error_h")) for k in measures if k.startswith("obs_error"))
    error, copy = (measures[f"{k}_error_h{longest}"] for k in ("obs", "copy"))
    if error > copy:
        found.append(
            f"the model predicts observations {longest} steps ahead worse than no change does "
            f"({error:.3f} against {copy:.3f} standard deviations)"
        )
    return found


def learning_health(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """Warnings about a world model that learned beside a policy: it got worse by a half."""
    old, new = before["score"], after["score"]
    if new <= 1.5 * old:
        return []
    return [f"the world model got worse while the policy learned (score {old:.3f} -> {new:.3f})"]


def returns_health(cells: Sequence[str], returns: NDArray[np.float64]) -> list[str]:
    """Warnings about ``[cells, episodes]`` final returns: two policies that behave identically."""
    seen: dict[bytes, str] = {}
    found = []
    for cell, row in zip(cells, returns, strict=True):
        twin = seen.setdefault(row.tobytes(), cell)
        if twin != cell and row.std() > 0:
            found.append(f"{twin} and {cell} have identical returns in every episode")
    return found
