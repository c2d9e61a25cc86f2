"""Data of others into a store: the published MT30 files, and ``.npz`` files of one's own.

`files` opens and fingerprints what is given, `tdmpc2` and `npz` read it piece by piece, `rows`
checks the pieces, `into_store` writes them.
"""
