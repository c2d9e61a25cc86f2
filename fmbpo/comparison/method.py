"""How the numbers of a comparison are made: the sentences that every report repeats."""

METHOD: list[str] = []
