import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """``offer(source)``: a distribution that offers the policy ``plugin`` as ``throw-away``."""

    def offer(source):
        home = tmp_path / "site"
        info = home / "throw_away_dist-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: throw-away-dist\nVersion: 1.2\n"
        )
        entry = "[fmbpo.policies]\nthrow-away = throw_away_policy:plugin\n"
        (info / "entry_points.txt").write_text(entry)
        (home / "throw_away_policy.py").write_text(source)
        monkeypatch.syspath_prepend(str(home))
        monkeypatch.delitem(sys.modules, "throw_away_policy", raising=False)
        importlib.invalidate_caches()

    return offer
