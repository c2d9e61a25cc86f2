"""Import the published MT30 files, or your own ``.npz`` files, into a store.

`files` finds the files and reads them once, `tdmpc2` (with `torch_file`) and `npz` read them in
pieces, `rows` checks the pieces, and `into_store` writes them.
"""
