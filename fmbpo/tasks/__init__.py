"""The MT30 tasks: their table, their environments, and parallel evaluation episodes."""
