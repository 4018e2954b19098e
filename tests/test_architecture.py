"""The house stays livable: layers, no cycles, light imports, small rooms and functions, a true map."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from builders import ROOT

SOURCE = ROOT / "src"
ROOMS = sorted(path.parent.name for path in (SOURCE / "gammastar").glob("*/__init__.py"))
HEAVY = ("torch", "zuko", "pyhf", "matplotlib", "mplhep", "coffea", "uproot", "awkward", "vector", "sklearn")


def _loaded(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def test_import_is_light():
    assert not _loaded("import gammastar") & {*HEAVY, "numpy", "scipy"}


def test_help_is_light():
    code = "from gammastar import cli; cli.app(['--help'], standalone_mode=False)"
    assert not _loaded(code) & {*HEAVY, "numpy", "scipy", "rich", "jinja2"}


@pytest.mark.long
def test_check_of_a_whole_analysis_loads_no_fit_and_no_figure():
    steering = ROOT / "analysis" / "na60_dimuon" / "steering.toml"
    code = f"from gammastar import cli; cli.app(['check', {str(steering)!r}], standalone_mode=False)"
    assert not _loaded(code) & {"torch", "zuko", "pyhf", "matplotlib", "mplhep", "sklearn"}


def test_layers():
    lint = Path(sys.executable).parent / "lint-imports"
    run = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_the_environment_is_not_in_the_repository():
    """A link of that name, once merged, would replace the environment of the main tree by itself."""
    run = subprocess.run(["git", "ls-files", ".venv"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not run.stdout


FILES_ON_A_LEVEL, NAMES_OF_A_FACE = 14, 25
STATEMENTS, PARAMETERS = 60, 6
LONGER_LISTS = 70  # functions with seven or eight parameters
LAZY_CYCLES = 1  # groups of files that import each other inside functions


def _face(room):
    for node in _trees()[f"gammastar.{room}"][1].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


@pytest.mark.long
@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_small_enough_to_find_ones_way(room):
    """So many files on one level, so many names in the face, none of which hides a file."""
    folder = SOURCE / "gammastar" / room
    for level in {path.parent for path in folder.rglob("*.py")}:
        name = level.relative_to(SOURCE / "gammastar").as_posix()
        assert len(list(level.glob("*.py"))) <= FILES_ON_A_LEVEL, name
    face = _face(room)
    assert len(face) <= NAMES_OF_A_FACE
    files = {path.stem for path in folder.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not files & set(face)


def _statements(node):
    """Yield all statements inside one, or inside a module; no expression holds any."""
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        for inner in getattr(node, name, ()):
            if isinstance(inner, ast.stmt):
                yield inner
            yield from _statements(inner)


@pytest.mark.long
def test_all_statements_are_found():
    for _, tree in list(_trees().values())[::30]:
        assert set(_statements(tree)) == {node for node in ast.walk(tree) if isinstance(node, ast.stmt)}


def _parameters(function):
    known = function.args
    names = [arg.arg for arg in (*known.posonlyargs, *known.args, *known.kwonlyargs)]
    return len([name for name in names if name not in {"self", "cls"}])


@pytest.mark.long
def test_functions_are_small():
    longest, widest = [], []
    for path, tree in _trees().values():
        for node in _statements(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            place = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            if sum(1 for _ in _statements(node)) > STATEMENTS:
                longest.append(place)
            if _parameters(node) > PARAMETERS:
                widest.append(place)
                assert _parameters(node) <= PARAMETERS + 2, place
    assert not longest
    assert len(widest) <= LONGER_LISTS, "\n".join(widest)


@cache
def _trees():
    """Return path and syntax tree of every module of the package, by its name."""
    found = {}
    for path in sorted((SOURCE / "gammastar").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = (path, ast.parse(path.read_text()))
    return found


def _imported(node):
    """Return the modules of the package that an import statement reads."""
    known = _trees()
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names if alias.name in known}
    names = {f"{node.module}.{alias.name}" for alias in node.names}
    return {name if name in known else node.module for name in names if node.module in known}


def _at_the_top(body):
    """Yield the imports that run when a module is read; those for the type checker do not."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _at_the_top(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            inner = [*node.body, *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]
            yield from _at_the_top(inner + [line for x in getattr(node, "handlers", []) for line in x.body])


def _graph(*, lazy):
    """Return what each module imports; `lazy` adds what it imports inside functions."""
    graph = {}
    for name, (_, tree) in _trees().items():
        imports = _statements(tree) if lazy else _at_the_top(tree.body)
        found = [_imported(x) for x in imports if isinstance(x, ast.Import | ast.ImportFrom)]
        graph[name] = set().union(*found) - {name}
    return graph


def _cycles(graph):
    """Return the groups of modules that reach each other."""

    @cache
    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
        return frozenset(seen)

    inside = [name for name in graph if name in reached(name)]
    return {frozenset(x for x in inside if x in reached(name) and name in reached(x)) for name in inside}


def test_a_cycle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set()}
    assert _cycles(graph) == {frozenset("abc")}


def test_files_do_not_import_each_other_in_a_circle():
    assert not [sorted(group) for group in _cycles(_graph(lazy=False))]
    lazy = [sorted(group) for group in _cycles(_graph(lazy=True))]
    assert len(lazy) <= LAZY_CYCLES, "\n".join(map(str, lazy))


PAGE = ROOT / "docs" / "architecture.md"


def test_every_path_of_the_map_exists():
    """What stands in code style and ends as a file or folder, below the package or the root."""
    named = set(re.findall(r"`([\w./]+(?:\.py|\.toml|\.csv|\.md|/))`", PAGE.read_text()))
    places = (ROOT / "src" / "gammastar", ROOT)
    assert len(named) > 40
    assert not sorted(name for name in named if not any((place / name).exists() for place in places))


def test_a_signal_yield_crosses_a_dozen_files_at_most():
    text = PAGE.read_text()
    walk = text[text.index("**A signal yield") : text.index("**A source of uncertainty")]
    assert 6 <= len(set(re.findall(r"`([\w./]+\.py)`", walk))) <= 12


def test_the_map_names_every_room():
    page = PAGE.read_text()
    assert not [room for room in ROOMS if f"`{room}/`" not in page]


def test_folders_that_the_contracts_name_exist():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = {
        name.strip(" ()")
        for contract in contracts
        for entry in contract.get("layers", contract.get("source_modules"))
        for name in entry.split("|")
    }
    places = [ROOT / "src" / Path(*name.split(".")) for name in named]
    assert len(places) >= 18
    assert not [place for place in places if not (place.is_dir() or place.with_suffix(".py").is_file())]


def _names(path: Path) -> set[str]:
    """Return what a module of validation or benchmarks defines or imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


@pytest.mark.long
def test_names_that_scripts_import_exist():
    """Rows of the validation and benchmarks are made seldom: a moved name would break them unseen."""
    missing = []
    for script in sorted([*(ROOT / "analysis").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]):
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            for alias in node.names:
                if node.module.partition(".")[0] == "gammastar":
                    module = importlib.import_module(node.module)
                    known = hasattr(module, alias.name)
                    known = known or importlib.util.find_spec(f"{node.module}.{alias.name}") is not None
                else:
                    place = node.module.replace(".", "/")
                    other = next(
                        (p for base in script.parents if (p := base / f"{place}.py").is_file()), None
                    )
                    known = other is None or alias.name in _names(other)
                if not known:
                    missing.append(f"{script.relative_to(ROOT)}:{node.lineno}: {node.module} {alias.name}")
    assert not missing, "\n".join(missing)
