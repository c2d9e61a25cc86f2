"""What the imagination of an update starts from."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fmbpo.hookspecs import Batch


class Past(NamedTuple):
    """Real steps up to a state: observations ``[W + 1, B, O]`` and the actions ``[W, B, A]``
    between them. W is ``Pair.warm_up``, or less at an episode's start."""

    obs_HBO: Tensor
    action_HBA: Tensor


class Start(NamedTuple):
    """Real observations that imagination starts from, their task, standard normal noise, and the
    fraction of training that is done (0-d).

    If the critics take actions, the policy's noise has one more row, for the action in the last
    state. ``real``: sub-trajectories of ``Pair.warm_up`` steps to the observations and of
    ``Pair.real_steps`` from there; empty if both are 0. ``loss_noise_BN``: of the policy's loss;
    empty if it takes none.
    """

    obs_BO: Tensor
    index_B: Tensor
    mask_BA: Tensor
    policy_noise_HBN: Tensor
    model_noise_HBN: Tensor
    done: Tensor
    real: Batch | tuple[()] = ()
    loss_noise_BN: Tensor | tuple[()] = ()

    def past(self, warm_up: int) -> Past:
        """The real steps up to the observations, also of stacked cells."""
        if not self.real:
            return Past(self.obs_BO.unsqueeze(-3), self.mask_BA.unsqueeze(-3)[..., :0, :, :])
        steps = self.real.obs_HBO, self.real.action_HBA
        return Past(steps[0][..., : warm_up + 1, :, :], steps[1][..., :warm_up, :, :])

    def of_rows(self, rows: slice) -> Start:
        """Some rows of the batch."""
        wide = self.obs_BO, self.mask_BA, self.policy_noise_HBN, self.model_noise_HBN
        obs, mask, policy_noise, model_noise = (x[..., rows, :] for x in wide)
        index, real, loss_noise = self.index_B[..., rows], self.real, self.loss_noise_BN
        if real:
            obs_HBO, action, own = (
                x[..., rows, :] for x in (real.obs_HBO, real.action_HBA, real.mask_BA)
            )
            reward, ends = (x[..., rows] for x in (real.reward_HB, real.terminated_HB))
            real = Batch(obs_HBO, action, reward, index, own, ends)
        if isinstance(loss_noise, Tensor):
            loss_noise = loss_noise[..., rows, :]
        return Start(obs, index, mask, policy_noise, model_noise, self.done, real, loss_noise)
