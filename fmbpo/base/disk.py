"""Whether the disk has room for the next files."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from fmbpo.base.files import disk_errors
from fmbpo.base.text import bytes_text
from fmbpo.errors import UserError


def check_disk(needed: int, folder: Path, option: str, words: str = "") -> str:
    """Needed and free space, for people.

    Args:
        needed: bytes.
        folder: where they go; it need not exist yet.
        option: of the command line, that names another place.
        words: added behind the needed space.

    Raises:
        UserError: it is too little, or ``folder`` cannot be a folder that one may write to.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    with disk_errors(folder):
        if not place.is_dir():
            raise OSError(errno.ENOTDIR, "", str(place))
        if not os.access(place, os.W_OK):
            raise OSError(errno.EACCES, str(place))
    free = shutil.disk_usage(place).free
    said = f"{bytes_text(needed)} needed{words}, {bytes_text(free)} free"
    if needed > free:
        remedy = f"free some space, or choose another folder with {option}"
        raise UserError(f"the disk is too full: {said}", where=str(folder), remedy=remedy)
    return said
