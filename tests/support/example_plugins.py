"""The plugins in ``examples/plugins``, which need not be installed."""

import importlib
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"


def example(folder):
    """The module of the plugin in this folder."""
    path = str(EXAMPLES / folder)
    if path not in sys.path:
        sys.path.insert(0, path)
    return importlib.import_module(f"fmbpo_example_{folder}")
