"""The optimiser of a world model, whichever table of an experiment it stands in."""

from __future__ import annotations

from collections.abc import Sequence

import attrs


@attrs.frozen(kw_only=True)
class ModelOptimiser:
    """Adam's settings for a world model. The learning rate decays linearly over the run."""

    learning_rate: float
    final_learning_rate: float
    betas: Sequence[float]
    grad_clip: float
    """Largest norm of the gradient of all parameters."""
    encoder_scale: float
    """The encoder's learning rate, as a multiple of ``learning_rate``."""
