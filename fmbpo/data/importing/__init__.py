"""Import into a store: the published MT30 files, and your own ``.npz`` files.

`files` finds and fingerprints the files, `tdmpc2` and `npz` read them piece by piece, `rows`
checks the pieces, and `into_store` writes them.
"""
