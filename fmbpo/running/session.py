"""Where runs go, and who hears of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class Session:
    """One command's runs.

    Attributes:
        root: the folder of all run folders.
        say: takes lines for people.
        draw: draws the pictures that a complete run's or study's folder does not have yet, and
            names all that it has; called when the results are on the disk.
        expected: seconds that a run folder will take, as far as they are known.
    """

    root: Path
    say: Callable[[str], None] = lambda line: None
    draw: Callable[[Path], Sequence[Path]] = lambda folder: ()
    expected: Mapping[Path, float] = attrs.field(factory=dict)
