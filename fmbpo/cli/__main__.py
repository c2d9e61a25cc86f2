"""``python -m fmbpo.cli``."""

import sys

from fmbpo.cli import main

if __name__ == "__main__":
    sys.exit(main())
