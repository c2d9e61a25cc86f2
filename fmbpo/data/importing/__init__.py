"""Import into a store: the published MT30 files, and your own ``.npz`` files.

`files` finds the files and reads them once, `tdmpc2` (with `torch_file`) and `npz` read them piece
by piece, `rows` checks the pieces, and `into_store` writes them.
"""
