"""The contract checks for authors of plugins; comparisons with records of PWM and of the tasks."""

from fmbpo.testing.parametrize import parametrize_checks

__all__ = ["parametrize_checks"]
