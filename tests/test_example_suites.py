"""The suites in ``examples/suites``: what outsiders write works, without the simulator too."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sources import code_lines, imported

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(path.parent for path in (ROOT / "examples/suites").glob("*/pyproject.toml"))
MAX_CODE_LINES = 150
every_suite = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def package(folder):
    (path,) = folder.glob("fmbpo_example_*")
    return path


@every_suite
def test_it_is_short_and_knows_the_interface_of_tasks_alone(folder):
    files = list(package(folder).rglob("*.py"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert 0 < sum(map(code_lines, texts)) <= MAX_CODE_LINES
    allowed = ("fmbpo.tasks.suite", "fmbpo.tasks.drawing", "fmbpo.errors", package(folder).name)
    names = [name for file in files for name in imported(file) if name.startswith("fmbpo")]
    assert [n for n in names if not any(f"{n}.".startswith(f"{known}.") for known in allowed)] == []


@every_suite
def test_its_own_tests_pass_outside_of_the_repository(folder, tmp_path, write_dist_info):
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    write_dist_info(folder, tmp_path / "site")
    path = os.pathsep.join(map(str, (tmp_path / "site", copy, ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--import-mode=importlib", str(copy)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^PASSED .*::test_", done.stdout, re.MULTILINE)
