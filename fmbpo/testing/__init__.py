"""Checks of the product against recorded numbers, for anyone to run."""
