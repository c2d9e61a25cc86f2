"""Updates that are recorded once and then replayed, without the cost of autograd, vmap and Python.

``Replayed`` decides; ``recorder`` sees the operations of a call; ``kernels`` replays them on a CPU,
``cuda`` as a CUDA graph.
"""

from fmbpo.replay.replayed import GRAPHS, Replayed

__all__ = ["GRAPHS", "Replayed"]
