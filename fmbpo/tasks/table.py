"""The table ``[tasks.NAME]`` of an experiment: a task of one's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
from attrs import field, frozen

from fmbpo.errors import UserError

if TYPE_CHECKING:
    from fmbpo.tasks.gymnasium_task import GymnasiumTask


def _filled(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not value.strip():
        raise ValueError(f"{attribute.name} is empty")


def _at_least(low: int) -> Any:
    def check(_: object, attribute: attrs.Attribute[int], value: int) -> None:
        if value < low:
            raise ValueError(f"{attribute.name} must be at least {low}, not {value}")

    return check


@frozen(kw_only=True)
class GymnasiumTable:
    """``[tasks.NAME]``: a task of your own, a Gymnasium environment with Box spaces."""

    gymnasium: str = field(validator=_filled)
    """The environment's registered id, such as ``"InvertedPendulum-v5"``; ``"MODULE:ID"`` imports a
    module first, which registers it."""
    kwargs: dict[str, Any] = field(factory=dict)
    """Keyword arguments of the environment."""
    action_repeat: int = field(default=1, validator=_at_least(1))
    """Steps of the environment per agent step, whose rewards are summed."""
    episode_steps: int = field(default=0, validator=_at_least(0))
    """Agent steps after which an episode is cut off; 0: after the environment's own limit."""

    def task(self, name: str) -> GymnasiumTask:
        """The task, whose sizes are those of the environment's spaces. Raises `UserError` if the
        environment cannot be built, or has other spaces or no limit."""
        from fmbpo.tasks.gymnasium_task import built_task

        kwargs = json.dumps(self.kwargs, sort_keys=True)
        try:
            return built_task(name, self.gymnasium, kwargs, self.action_repeat, self.episode_steps)
        except UserError as error:
            raise UserError(error.what, where=f"tasks.{name}", remedy=error.remedy) from error
