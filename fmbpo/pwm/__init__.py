"""The algorithm, PWM (Georgiev et al. 2024, arXiv 2407.02466), for any plugins.

Start with ``policy``, a whole policy update from top to bottom.
"""
