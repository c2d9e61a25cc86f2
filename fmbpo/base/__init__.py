"""The lowest layer: strict structuring, text, files, locks, memory. It imports errors only."""
