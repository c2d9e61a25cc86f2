"""The 50 tasks of Meta-World that MT80 has beside MT30's: names, order and sizes.

They are known without the package ``metaworld``, which simulates them (`environment`): MT80's data
can be imported, and world models learn from them.
"""

from __future__ import annotations

from attrs import frozen

from fmbpo.tasks.suite import Environment, Suite, TaskInfo


@frozen(kw_only=True)
class MetaWorldTask(TaskInfo):
    """A task as TD-MPC2 uses it: 100 agent steps, each of which is two of Meta-World's own steps,
    whose rewards are in [0, 10]."""

    obs_dim: int = 39
    action_dim: int = 4
    episode_steps: int = 100
    action_repeat: int = 2
    largest_reward: float | None = 20.0

    def make(self, drawable: bool = False) -> Environment:
        """See `TaskInfo`; it can always be drawn."""
        from fmbpo_example_metaworld.environment import MetaWorldEnv  # imports MuJoCo

        return MetaWorldEnv(self)


_NAMES = """
    assembly basketball button-press-topdown button-press-topdown-wall button-press
    button-press-wall coffee-button coffee-pull coffee-push dial-turn
    disassemble door-open door-close drawer-close drawer-open
    faucet-open faucet-close hammer handle-press-side handle-press
    handle-pull-side handle-pull lever-pull peg-insert-side peg-unplug-side
    pick-out-of-hole pick-place pick-place-wall plate-slide plate-slide-side
    plate-slide-back plate-slide-back-side push-back push push-wall
    reach reach-wall shelf-place soccer stick-push
    stick-pull sweep-into sweep window-open window-close
    bin-picking box-close door-lock door-unlock hand-insert
"""
SUITE = Suite("Meta-World", tuple(MetaWorldTask(name=f"mw-{name}") for name in _NAMES.split()))
"""In MT80's order: its task ids 30 to 79."""
