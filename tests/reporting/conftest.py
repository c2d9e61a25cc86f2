import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def video(tmp_path):
    """A small moving picture."""
    from PIL import Image

    frames = [Image.new("RGB", (96, 72), (40 * i, 90, 160)) for i in range(4)]
    path = tmp_path / "episode.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=120, loop=0)
    return path
