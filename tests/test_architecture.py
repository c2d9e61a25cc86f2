"""The shape of the code, read from its source: who may import whom, sizes, docstrings.

The checks are functions from source text to a list of offences, so that each can be shown to
find one (at the end of this file).
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if path.is_dir())
MAX_LINES = 400
ON_THE_DEVICE = [
    *(f"fmbpo/engine/{name}.py" for name in ("adam", "critic", "gradient", "imagination")),
    *(f"fmbpo/engine/{name}_update.py" for name in ("policy", "world_model")),
    *("fmbpo/nn", *(f"plugins/{name}/fmbpo_{name}" for name in PLUGINS)),
]
"""What is compiled into an update: a value read back would stall the device."""


def sources(*places):
    """Source text by path relative to the repository."""
    found = {}
    for place in places:
        path = ROOT / place
        assert path.exists(), f"{place} is gone: mend this test"
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found[file.relative_to(ROOT).as_posix()] = file.read_text(encoding="utf-8")
    return found


def module_name(path):
    """``plugins/wm_mlp/fmbpo_wm_mlp/__init__.py`` -> ``fmbpo_wm_mlp``."""
    parts = list(Path(path).with_suffix("").parts)
    if parts[0] == "plugins":
        parts = parts[2:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(name, packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


def imports(path, text):
    """Dotted names that a file imports, wherever in it; of ``from a import b``: ``a.b``."""
    name = module_name(path)
    package = name if path.endswith("__init__.py") else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and re.search("import_(module|_)$", ast.unparse(node.func)):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant))


def own(name):
    """Whether a dotted name belongs to this repository."""
    return re.match(r"fmbpo(\.|_|$)", name)


def beyond(files, allowed):
    """Imports of this repository's code outside the allowed packages."""
    pairs = [(path, name) for path, text in files.items() for name in imports(path, text)]
    return [f"{path}: {name}" for path, name in pairs if own(name) and not within(name, allowed)]


def reaching(files, core, forbidden):
    """Files whose imports, followed through the core, arrive at a forbidden package."""
    graph = {module_name(path): set(imports(path, text)) for path, text in core.items()}
    offences = []
    for path in files:
        seen, todo = set(), [module_name(path)]
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            # A name's parents are imported with it; of `a.b`, b may be no module but a name in a.
            todo += [name.rpartition(".")[0], *graph.get(name, ())]
        offences += [f"{path}: {name}" for name in sorted(seen) if within(name, forbidden)]
    return offences


def named_plugins(files):
    """Mentions of a plugin's package, comparisons with its name, tests for its classes."""
    offences = []
    for path, text in files.items():
        offences += [f"{path}: {name}" for name in re.findall(r"fmbpo_(?:wm|policy)_\w*", text)]
        for node in ast.walk(ast.parse(text)):
            bad = False
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                bad = re.search(r"\b(Flow|MLP|Gaussian)", ast.unparse(node.args[1]))
            elif isinstance(node, ast.Compare | ast.MatchValue):
                constants = [c for c in ast.walk(node) if isinstance(c, ast.Constant)]
                bad = any(c.value in ("flow", "mlp") for c in constants)
            offences += [f"{path}:{node.lineno}: {ast.unparse(node)}"] if bad else []
    return offences


def too_long(files, limit=MAX_LINES):
    return [path for path, text in files.items() if len(text.splitlines()) > limit]


def undocumented(files):
    """Public modules, and public classes and functions outside functions, without docstring."""

    def visit(path, node):
        if not ast.get_docstring(node):
            yield f"{path}: {getattr(node, 'name', 'module')}"
        if isinstance(node, ast.Module | ast.ClassDef):
            for child in node.body:
                named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                if named and not child.name.startswith("_"):
                    yield from visit(path, child)

    public = {p: t for p, t in files.items() if not re.search(r"(^|[./])_(?!_)", p)}
    return [offence for path, text in public.items() for offence in visit(path, ast.parse(text))]


def items(files):
    """Uses of ``.item``, which waits for the device."""
    return [
        f"{path}:{node.lineno}"
        for path, text in files.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr == "item"
    ]


@pytest.mark.parametrize("place", ["fmbpo/hookspecs.py", "fmbpo/errors.py"])
def test_the_foundation_knows_nobody(place):
    assert beyond(sources(place), []) == []


def test_network_blocks_know_the_contract_alone():
    assert beyond(sources("fmbpo/nn"), ["fmbpo.hookspecs", "fmbpo.nn"]) == []


@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugins_know_the_contract_and_the_blocks(plugin):
    allowed = ["fmbpo.hookspecs", "fmbpo.nn", f"fmbpo_{plugin}"]
    assert beyond(sources(f"plugins/{plugin}/fmbpo_{plugin}"), allowed) == []
    allowed += ["fmbpo.registry", "fmbpo.testing"]
    assert beyond(sources(f"plugins/{plugin}/tests"), allowed) == []


def test_nobody_in_the_core_knows_a_plugin():
    core = sources("fmbpo")
    assert beyond(core, ["fmbpo"]) == []
    assert named_plugins(core) == []


def test_nobody_knows_the_command_line():
    core = sources("fmbpo")
    others = {path: text for path, text in core.items() if not path.startswith("fmbpo/cli/")}
    assert reaching(others, core, ["fmbpo.cli"]) == []


@pytest.mark.parametrize("part", ["data", "tasks", "runs", "report", "comparison"])
def test_the_engine_is_known_from_above_alone(part):
    assert reaching(sources(f"fmbpo/{part}"), sources("fmbpo"), ["fmbpo.engine"]) == []


def test_files_are_short():
    assert too_long(sources("fmbpo")) == []


def test_public_names_are_documented():
    assert undocumented(sources("fmbpo")) == []


def test_updates_never_wait_for_the_device():
    assert items(sources(*ON_THE_DEVICE)) == []


SPELLINGS = [
    "import fmbpo.cli",
    "from fmbpo import cli",
    "from fmbpo.cli import main as m",
    "from .. import cli",
    "from ..cli import main",
    "def f():\n    from fmbpo import cli",
    "if TYPE_CHECKING:\n    import fmbpo.cli",
    "importlib.import_module('fmbpo.cli')",
    "__import__('fmbpo.cli')",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_an_import_is_seen_in_every_spelling(text):
    file = {"fmbpo/data/store.py": text}
    assert reaching(file, file, ["fmbpo.cli"])
    assert beyond(file, ["fmbpo.data"])


def test_paths_through_the_core_are_followed():
    core = {
        "fmbpo/data/a.py": "from fmbpo.b import name",
        "fmbpo/b.py": "import fmbpo.c",
        "fmbpo/c/__init__.py": "from . import d",
        "fmbpo/c/d.py": "from fmbpo import engine",
    }
    start = "fmbpo/data/a.py"
    assert reaching([start], core, ["fmbpo.engine"]) == [f"{start}: fmbpo.engine"]
    assert reaching([start], core, ["fmbpo.cli"]) == []


@pytest.mark.parametrize(
    ("check", "bad", "good"),
    [
        (lambda f: beyond(f, ["fmbpo"]), "import fmbpo_wm_mlp", "import fmbpo.nn, fmbposlike"),
        (named_plugins, "name = 'fmbpo_policy_flow'", "name = 'fmbpo.policies'"),
        (named_plugins, "isinstance(x, a.FlowModel)", "isinstance(x, Model)"),
        (named_plugins, "if name in ('flow', 'x'): pass", "name = 'overflow'"),
        (named_plugins, "match name:\n    case 'mlp': pass", "match name:\n    case 'x': pass"),
        (lambda f: too_long(f, 2), "a\nb\nc", "a\nb"),
        (undocumented, "x = 1", "'''.'''\ndef _f(): pass\nclass _A: pass"),
        (undocumented, "'''.'''\nclass A: pass", "'''.'''\nclass A: '''.'''"),
        (undocumented, "'''.'''\nclass A:\n '''.'''\n def f(self): pass", "'''.'''"),
        (undocumented, "'''.'''\nasync def f(): pass", "'''.'''\ndef f():\n '''.'''\n def g(): 1"),
        (items, "float(x.sum().item())", "d.items()"),
        (items, "map(Tensor.item, xs)", "item(x)"),
    ],
)
def test_each_check_can_fail(check, bad, good):
    assert check({"fmbpo/part.py": bad})
    assert check({"fmbpo/part.py": good}) == []
