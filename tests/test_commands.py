"""Every shell command of README, docs and CONTRIBUTING runs, on small data and tiny networks."""

import itertools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import members
import pytest
import torch
from packaging.specifiers import SpecifierSet
from tdmpc2_files import arrays, save
from torch.distributed.run import parse_args

from fmbpo.cli import main, parser
from fmbpo.config import load_experiment
from fmbpo.config.catalogue import find
from fmbpo.config.study_file import is_study, load_study

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
FIRST = "experiments/quickstart.toml"
BY_CATALOGUE = ("phase3", "phase6", "phase7", "phase8_finetuned")
"""Studies that ``test_catalogue.py`` runs: most need an imported checkpoint, or their own numbers
of iterations."""
TINY_CHECKPOINT = REPOSITORY / "tests/golden/pwm/tiny_checkpoint.pt"
PROJECTS = {"fmbpo": ".", **{f"fmbpo-{n}-{k}": f"plugins/{n}_{k}"
            for n in ("wm", "policy") for k in ("mlp", "flow")}}  # fmt: skip
NEW = {"my_policy": ["plugins", "new", "policy"], "my_tasks": ["tasks", "new"]}
"""How the pages' own projects are made."""


def blocks(text):
    """(language, content) of every fenced block."""
    return re.findall(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)


def commands(text):
    """The commands of the ``sh`` blocks, each once, in order."""
    lines = [
        line
        for language, content in blocks(text)
        if language == "sh"
        for line in content.replace("\\\n", " ").splitlines()
    ]
    return list(dict.fromkeys(line.strip() for line in lines if shlex.split(line, comments=True)))


COMMANDS = commands(README)
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(REPOSITORY.glob("docs/*.md")),
    *sorted(REPOSITORY.glob("plugins/*/README.md")),
]
EVERYWHERE = list(dict.fromkeys(c for page in PAGES for c in commands(page.read_text("utf-8"))))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The commands' runs: a run that several of them name is trained once."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def clone(tmp_path, runs, monkeypatch):
    """A folder with the files of a clone, in which the commands may write."""
    (tmp_path / "runs").symlink_to(runs)
    names = ("examples", "experiments", "plugins", "fmbpo", "tests", "Makefile", "pyproject.toml")
    for name in (*names, "README.md", "CHANGELOG.md", ".pre-commit-config.yaml"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(clone, small_store, tiny, tiny_policy, offer_project):
    """Runs one command; fails for a command that it does not know."""

    def run(words):
        match words:
            case ["fmbpo", "run" | "check", file, *_] if Path(file).stem.startswith(BY_CATALOGUE):
                assert is_study(find(file))  # test_catalogue.py runs it to its end
            case ["fmbpo", "run", "my_policy/experiment.toml"]:  # test_scaffold.py runs it
                assert main(["plugins", "new", "policy", "another_policy"]) == 0
                assert Path("another_policy/experiment.toml").is_file()
            case ["fmbpo", "tasks", "check", name]:
                if name in NEW:
                    assert main([*NEW[name], name]) == 0
                    offer_project(clone / name)
                assert main([*words[1:], "--check", "seed_determines_the_episode"]) == 0
            case ["fmbpo", "run" | "check", "experiments/phase8_mini.toml" as file, *_]:
                given = parser().parse_args(words[1:])  # the study runs before its report
                assert load_study(file, scale=given.scale).registration
            case ["fmbpo", "report", "experiments/phase8_mini.toml", *_]:
                run_mini_study(tiny_policy)
                assert main(words[1:]) == 0
            case ["fmbpo", "run" | "check" as command, file, *options]:
                check_experiment(command, file, options, small_store, tiny, tiny_policy)
            case ["python", "benchmarks/gpu.py", *_]:  # test_benchmark.py runs it
                path = str(REPOSITORY / words[1])
                status = program(path, "--seconds", "1")
                assert status == (0 if torch.cuda.is_available() else 2)
            case ["torchrun", *options]:
                more = ["--scale", "laptop", "--data", str(small_store)]
                more += [word for override in tiny for word in ("-o", override)]
                given = parse_args([*options, *more])
                assert (given.module, given.training_script) == (True, "fmbpo")
                size = int(given.nproc_per_node)
                assert members.command(size, clone, given.training_script_args).wait() == [0] * size
            case ["fmbpo", "data", "import-tdmpc2", "mt80", *_]:
                suite = REPOSITORY / "examples/suites/metaworld"
                offer_project(Path(shutil.copytree(suite, clone / "suite")))
                run_other(words)
            case ["fmbpo", "data", "info" | "verify", path]:
                where = path if path == "embedded" else str(small_store)
                assert main([*words[1:3], where]) == 0
            case ["fmbpo", "report", study, "--out", out]:
                run_tiny_study(study, small_store, tiny_policy)
                assert main(words[1:]) == 0
                assert "</html>" in Path(out, "report.html").read_text(encoding="utf-8")
            case ["fmbpo", "runs", "import", file]:
                shutil.copy(REPOSITORY / "tests/golden/known_results.csv", file)
                assert main(words[1:]) == 0
            case ["fmbpo", "export-checkpoint", source, *options]:
                shutil.copy(TINY_CHECKPOINT, "theirs.pt")
                assert main(["import-checkpoint", "theirs.pt", "--out", source]) == 0
                assert main([*words[1:3], *options]) == 0
            case ["fmbpo", "plugins", "check", name, *_]:
                if name not in ("mlp", "flow"):
                    assert main(["plugins", "new", "policy", name]) == 0
                    offer_project(clone / name)
                assert main([*words[1:], "--check", "shapes_fit"]) == 0
            case _:
                run_other(words)

    return run


def run_mini_study(tiny_policy):
    """The study in small on its own data, in one process, with tiny networks on two tasks: one is
    in its endpoint."""
    changes = [*tiny_policy, 'grid.tasks=["cup-catch", "cup-spin"]', "grid.policies_per_model=1"]
    words = ["run", "experiments/phase8_mini.toml", "--scale", "mini", "--runs", "runs/mini"]
    assert main([*words, *(word for override in changes for word in ("-o", override))]) == 0


def run_tiny_study(file, store, tiny_policy):
    words = ["run", file, "--scale", "laptop", "--data", str(store)]
    assert main([*words, *(word for override in tiny_policy for word in ("-o", override))]) == 0


@pytest.mark.parametrize("command", EVERYWHERE)
def test_command(command, run, capsys):
    run(shlex.split(command, comments=True))


def run_other(words):
    """Those that need neither data nor networks."""
    match words:
        case ["make", target]:
            check_make(target)
        case ["make", "run", experiment]:
            name, _, value = experiment.partition("=")
            assert name == "EXPERIMENT"
            assert f"/bin/fmbpo run {value} --processes " in make(experiment, "run")
            file, *options = shlex.split(value)
            given = parser().parse_args(["run", file, *options])
            assert load_study(file, scale=given.scale).registration
        case ["source", path]:
            assert path == f"{make_variable('VENV')}/bin/activate"
        case ["pip", "install", *options]:
            check_pip(options)
        case ["uv", "sync", "--all-packages"]:
            check_workspace()
        case ["fmbpo", "data", "collect", *_]:
            fewer = ["--episodes", "1", "--recipe", "random", "--workers", "1"]
            fewer += ["--explore", "0", "--recover", "0"]
            fewer += [] if "--tasks" in words else ["--tasks", "reacher-easy"]
            assert main([*(re.sub(r"=\d+", "=1", word) for word in words[1:]), *fewer]) == 0
            assert Path(words[words.index("--out") + 1]).is_dir()
        case ["fmbpo", "data", "import-tdmpc2", folder, *_]:
            Path(folder).mkdir()
            save(Path(folder, "chunk_0.pt"), arrays())
            assert main(words[1:]) == 0
        case ["fmbpo", "data", "import-npz", file, *_]:
            page = (REPOSITORY / "docs/data.md").read_text("utf-8")
            exec(next(text for language, text in blocks(page) if language == "python"), {})
            assert main(words[1:]) == 0
        case ["fmbpo", "import-checkpoint", file]:
            shutil.copy(TINY_CHECKPOINT, file)
            assert main(words[1:]) == 0
        case ["fmbpo", "submit" | "cancel", *_]:  # tests/test_cluster.py does it
            parser().parse_args(words[1:])
        case ["fmbpo", "status" | "runs", *_]:
            assert main(words[1:]) == 0
        case ["fmbpo", "tasks", "render", *_]:
            if main([*words[1:], "--steps", "2", "--size", "32x32"]):
                pytest.skip("no OpenGL library: apt-get install libegl1 or libosmesa6")
            assert list(Path().glob("*.mp4"))
        case ["fmbpo", "plugins" | "config" | "compare" | "tasks" | "experiments", *_]:
            assert main(words[1:]) == 0
        case ["pytest", *rest]:
            assert forked(["--collect-only", "-p", "no:cacheprovider", *rest]) == 0
        case ["ruff", *rest]:
            call(sys.executable, "-m", "ruff", *rest, "--check", "--no-cache")
        case ["python", "-m", module, *rest]:
            assert program(find_spec(module).origin, *rest) == 0
        case ["python", script, *rest]:
            assert program(script, *rest) == 0
        case ["pre-commit", "install"]:
            call(sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml")
        case _:
            pytest.fail(f"no test knows how to run this command: {words}")


def program(name, *words):
    """The exit status of a program in this process, which has imported torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *words])
        patch.setattr(sys, "path", [str(Path(name).parent), *sys.path])
        try:
            runpy.run_path(name, run_name="__main__")
        except SystemExit as ended:
            return ended.code or 0
    return 0


def forked(words):
    """The exit status of pytest in a fork of this process, which has imported its modules."""
    child = os.fork()
    if not child:
        os._exit(pytest.main(words))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def call(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def check_experiment(command, file, options, store, tiny, tiny_policy):
    """As written the file composes; made small, it runs to its end."""
    overrides = [value for key, value in itertools.pairwise(options) if key == "-o"]
    load = load_study if is_study(find(file)) else load_experiment
    found = load(file, scale="laptop", overrides=overrides, data="embedded")
    small = tiny if getattr(found, "kind", "") == "pretrain" else tiny_policy
    changes = [word for override in small for word in ("-o", override)]
    extra = [*changes, "--data", str(store), "--scale", "laptop"]
    assert main([command, file, *options, *extra]) == 0
    if command == "run":
        runs = Path(options[options.index("--runs") + 1] if "--runs" in options else "runs")
        results = "study.json" if is_study(find(file)) else "summary.json"
        assert list(runs.glob(f"{found.name}__*/{results}"))


def make(*arguments):
    """What ``make -n`` would do, in the working directory."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "-n", *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.replace("\\\n", " ")


def make_variable(name):
    return re.search(rf"^{name} +\?= *(.*)$", Path("Makefile").read_text(), re.MULTILINE)[1]


def check_make(target):
    """Without an environment the target makes one; with a fresh one it goes straight to work."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    environment = Path("environment")
    work = {
        "run": f"{environment}/bin/fmbpo run {FIRST}",
        "test": "-m pytest -n 2 --dist worksteal tests plugins",
        "endurance": "tests/endurance.py 2",
        "lint": f"{environment}/bin/mypy",
    }[target]
    plan = make(f"VENV={environment}", target)
    install = next(line for line in plan.splitlines() if "pip install" in line)
    assert f"-m venv {environment}" in plan
    assert set(re.findall(r"-e (\S+)", install)) == {'".[dev]"', *list(PROJECTS.values())[1:]}
    assert plan.index("pip install") < plan.index(work)
    core = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
    assert re.search(r'"(torch[^"]*)"', install)[1] in core

    environment.mkdir()
    (environment / ".installed").touch()
    again = make(f"VENV={environment}", target)
    assert work in again
    assert "pip" not in again


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12), (3, 13)])
def test_make_takes_the_pythons_that_the_project_does(version, tmp_path):
    """By a program that says that it is Python of this version, and cannot make environments."""
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.version_info = {version}\n"
        "if sys.argv[1] == '-c':\n    exec(sys.argv[2])\n"
        f"print('Python', *sys.version_info)\nsys.exit(sys.argv[1] == '-m')\n"
    )
    program.chmod(0o755)
    words = ["make", "-s", f"PYTHON={program}", f"VENV={tmp_path / 'env'}", "test"]
    ended = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    admitted = ".".join(map(str, version)) in SpecifierSet(project["requires-python"])
    assert ended.returncode == 2
    said = "venv failed" if admitted else f"needs Python 3.11 or 3.12 .*: {program}\n"
    assert re.search(said, ended.stderr), ended.stderr
    assert admitted == (version in ((3, 11), (3, 12)))


def project_name(folder):
    return tomllib.loads((Path(folder) / "pyproject.toml").read_text())["project"]["name"]


def check_pip(options):
    """Editable installs of projects that exist, the core or plugins of this repository."""
    assert options[::2] == ["-e"] * (len(options) // 2)
    for folder in options[1::2]:
        if folder in NEW:
            assert main([*NEW[folder], folder]) == 0
            assert project_name(folder) == f"fmbpo-{folder.replace('_', '-')}"
            continue
        assert PROJECTS[project_name(folder)] == folder
    if "." in options:
        assert sorted(options[1::2]) == sorted(PROJECTS.values())


def check_workspace():
    """Every plugin is a member of the uv workspace, and takes the core from it."""
    core = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["uv"]
    members = {
        str(path) for pattern in core["workspace"]["members"] for path in Path().glob(pattern)
    }
    assert members == set(PROJECTS.values()) - {"."}
    for folder in members:
        plugin = tomllib.loads((Path(folder) / "pyproject.toml").read_text())
        assert plugin["tool"]["uv"]["sources"]["fmbpo"] == {"workspace": True}
        assert any(need.startswith("fmbpo") for need in plugin["project"]["dependencies"])


def test_the_two_commands_and_the_usual_ones_are_in_the_readme():
    assert COMMANDS[:2] == ["make run", "make test"]
    for start in (
        "pip install -e . ",
        "fmbpo run",
        "fmbpo check",
        "fmbpo plugins",
        "fmbpo data info",
    ):
        assert any(command.startswith(start) for command in COMMANDS)


def test_no_command_hides_in_a_block_of_another_kind():
    for page in PAGES:
        languages = {language for language, _ in blocks(page.read_text("utf-8"))}
        assert languages <= {"sh", "text", "toml", "python", "json", ""}, page
        hidden = [c for name, c in blocks(page.read_text("utf-8")) if name != "sh" and "$ " in c]
        assert hidden == []


@pytest.mark.parametrize(
    "words", [["fmbpo", "fly"], ["make", "coffee"], ["pip", "install", "fmbpo"], ["rm", "x"]]
)
def test_an_unknown_command_fails(words, run, capsys):
    with pytest.raises((pytest.fail.Exception, KeyError, AssertionError, SystemExit)):
        run(words)


def test_commands_are_read_whole():
    text = "a\n```sh\n# why\nx 1 \\\n  2  # how\n\ny\ny\n```\n```text\nz\n```\n"
    assert [shlex.split(c, comments=True) for c in commands(text)] == [["x", "1", "2"], ["y"]]
