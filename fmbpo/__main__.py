"""``python -m fmbpo``."""

import sys

from fmbpo.cli import main

if __name__ == "__main__":
    sys.exit(main())
