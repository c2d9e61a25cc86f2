"""Reads and writes files of other projects."""
