"""``[registration]`` of a study file: what is expected, fixed before the first run.

::

    [registration]
    margin = 0.03
    replicates = 5
    development_tasks = ["cartpole-swingup"]
    spread = { world_model = 0.05, policy = 0.02 }  # of three pilot runs

    [registration.hypotheses]
    "flow matching helps" = { contrast = "flow matching", expected = "above" }
    "policies do not differ" = { contrast = "policy: flow - mlp", expected = "equivalent" }
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs
from attrs import field
from attrs.validators import optional

from fmbpo.config.schema import study_names
from fmbpo.config.validators import filled, positive, unique

Expected: TypeAlias = Literal["above", "below", "equivalent"]
"""A difference above 0, below 0, or within the margin."""


@attrs.frozen(kw_only=True)
class HypothesisConfig:
    """``[registration.hypotheses]``: one expectation, by its name."""

    contrast: str = field(validator=filled)
    """A contrast of the study: its name in ``contrasts``, its title in the report (such as
    ``"policy: flow - mlp"``), or ``"interaction"`` if there is only one."""
    expected: Expected
    """The difference: ``"above"`` 0, ``"below"`` 0, or ``"equivalent"`` to none (within the
    margin)."""


@attrs.frozen(kw_only=True)
class SpreadConfig:
    """``[registration.spread]``: standard deviations of the endpoint, from which ``fmbpo check``
    calculates the power."""

    world_model: float | None = field(default=None, validator=optional(positive))
    """Between replicates of a kind of world model, each the mean over its policies."""
    policy: float | None = field(default=None, validator=optional(positive))
    """Between replicates, of the difference between two policies in the same world model."""


@attrs.frozen(kw_only=True)
class RegistrationConfig:
    """``[registration]``: hypotheses that are fixed before the first run."""

    endpoint: Literal["mean"] = "mean"
    """The primary endpoint: the mean over tasks of the final return divided by 1000."""
    margin: float = field(validator=positive)
    """The largest difference of the endpoint that does not matter, in either direction."""
    replicates: int = field(validator=positive)
    """Planned replicates of each kind of world model."""
    development_tasks: list[str] = field(factory=list, converter=study_names, validator=unique)
    """Tasks on which settings were chosen: no part of the endpoint, and reported apart."""
    spread: SpreadConfig = field()
    """Standard deviations between replicates that the power is calculated with."""
    hypotheses: dict[str, HypothesisConfig] = field(validator=filled)
    """The hypotheses, by name: ``{ contrast = "NAME", expected = "above" }``."""

    @hypotheses.validator
    def _named(self, _: object, value: dict[str, HypothesisConfig]) -> None:
        for name in value:
            if not (name.strip() and name.isprintable()):
                raise ValueError(f"{name!r} does not name a hypothesis in one line")

    @replicates.validator
    def _several(self, _: object, value: int) -> None:
        if value < 2:
            raise ValueError("a test needs at least two replicates")
