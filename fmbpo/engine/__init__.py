"""The generic PWM engine: it knows the hooks, never a plugin.

``world_model_update`` and ``policy_update`` are the two hot loops, pure functions over tensors;
``pretrain`` and ``policy_training`` feed them; ``run`` composes a whole experiment.
"""
