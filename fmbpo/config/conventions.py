"""The departures of PWM's released code from its paper or from good practice, as options.

The bundle ``pwm`` reproduces the released code, for comparisons with published numbers;
``corrected`` corrects it. The bundle determines the default of every option.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs


def _by_bundle(corrected: Any, pwm: Any) -> Any:
    def default(self: ConventionsConfig) -> Any:
        return pwm if self.bundle == "pwm" else corrected

    return attrs.field(default=attrs.Factory(default, takes_self=True))


@attrs.frozen(kw_only=True)
class ConventionsConfig:
    """``[conventions]``: departures of PWM's released code, each with its correction."""

    bundle: Literal["corrected", "pwm"] = "corrected"
    """The default of every key below."""
    critic_targets: Literal["td_lambda", "one_step"] = _by_bundle("td_lambda", "one_step")
    """TD(λ) over the imagined rollout, or ``r + γ V`` (PWM sets its done mask at every step)."""
    bootstrap: Literal["horizon", "horizon_plus_one"] = _by_bundle("horizon", "horizon_plus_one")
    """Discount of V(z_H) in the actor's loss: γ^H, or γ^(H+1)."""
    imagined_reward: Literal["real", "symlog"] = _by_bundle("real", "symlog")
    """Scale of rewards in imagination: the environment's units, or symlog (no symexp)."""
    model_loss: Literal["two_hot", "logit_mse"] = _by_bundle("two_hot", "logit_mse")
    """Reward loss of the model's updates during policy learning: two-hot cross-entropy, or the
    squared error between each of the 101 logits and the reward (with PWM's coefficients)."""
    action_mask: bool = _by_bundle(True, False)
    """Whether a task's padded action dimensions are set to 0 in imagination."""
    task_embedding: Literal["trained", "stale"] = _by_bundle("trained", "stale")
    """The task embedding in the model's updates during policy learning: trained, or without an
    optimiser and with a gradient that is never cleared and counts in the clipped norm."""
    episodes: Literal["all", "with_replacement"] = _by_bundle("all", "with_replacement")
    """Episodes that policies learn from: each once, or as many drawn with replacement (63 %)."""

    def recorded(self) -> str | dict[str, Any]:
        """The bundle's name if every option has its default, else all options."""
        whole = ConventionsConfig(bundle=self.bundle)
        return self.bundle if self == whole else attrs.asdict(self)
