"""The state of any Gymnasium environment: a copy of all that it and its wrappers hold.

`copy.deepcopy` of an environment would be silently wrong: one that is an ``EzPickle``, as all of
MuJoCo's are, is built anew. Therefore the attributes of each layer are copied, also the random
stream, from which steps may draw. An attribute that refers to a layer, such as a bound method,
then refers to the same layer of the environment that receives the state.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    import gymnasium


@frozen
class Saved:
    """The layers of an environment, outermost first, and a copy of the attributes of each."""

    layers: list[Any]
    attributes: list[dict[str, Any]]


def saved(env: gymnasium.Env[Any, Any]) -> Saved:
    """The present state. Raises whatever `copy.deepcopy` raises for an attribute."""
    layers = _layers(env)
    memo = {id(layer): layer for layer in layers}
    for data in _simulations(map(vars, layers)):
        memo[id(data)] = copy.copy(data)  # without its model, which is copied by itself
    return Saved(layers, copy.deepcopy([vars(layer) for layer in layers], memo))


def restore(env: gymnasium.Env[Any, Any], state: Saved) -> None:
    """Give a state to another environment of the same id and arguments, or to the same."""
    from fmbpo.tasks.simulator import mujoco

    layers = _layers(env)
    memo = {id(theirs): mine for theirs, mine in zip(state.layers, layers, strict=True)}
    own = _simulations(map(vars, layers))
    for data, mine in zip(_simulations(state.attributes), own, strict=True):
        # All of it, not only the state of integration: Ant and Humanoid reward the difference to
        # positions from before the last physics step.
        mujoco.mj_copyData(mine, mine.model, data)
        memo[id(data)] = mine
    attributes = copy.deepcopy(state.attributes, memo)
    for layer, values in zip(layers, attributes, strict=True):
        vars(layer).clear()
        vars(layer).update(values)


def _layers(env: gymnasium.Env[Any, Any]) -> list[Any]:
    from gymnasium import Wrapper

    layers: list[Any] = [env]
    while isinstance(layers[-1], Wrapper):
        layers.append(layers[-1].env)
    return layers


def _simulations(attributes: Any) -> list[Any]:
    """The ``mujoco.MjData`` among the attributes of layers, each once."""
    from fmbpo.tasks.simulator import mujoco

    values = (value for each in attributes for value in each.values())
    found = {id(value): value for value in values if isinstance(value, mujoco.MjData)}
    return list(found.values())
