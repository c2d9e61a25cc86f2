"""What plugin authors run (the contract checks), and doubters: parity with PWM, golden tasks."""

from fmbpo.testing.parametrize import parametrize_checks

__all__ = ["parametrize_checks"]
