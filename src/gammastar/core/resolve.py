"""User code: read once, executed from memory, named when it fails.

``file.py:attribute`` is the one way in for functions, schemas, models and channels of a user. Their files and
what these import from beside themselves, are read once (`freeze`). The run and its workers execute that text,
whatever happens to the files later. No bytecode is read or written.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.util
import os
import re
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, TypeAlias

from gammastar.core.errors import GammastarError, SteeringError
from gammastar.core.files import bytes_of

Modules: TypeAlias = dict[str, tuple[str, bytes, bool]]  # by full name: path, source, whether it is a package
_frozen: dict[str, Modules] = {}  # packages named by their content: never changed, only added to
Files: TypeAlias = dict[str, bytes]  # by their paths below the folder
PREFIX = "gammastar_user_"
MOST_FILES = 500  # of a package beside the user's file
NAME = re.compile(r"(?P<file>.+\.py):\w+")


@dataclass(frozen=True)
class UserCode:
    """Python files of a user as they were when they were read."""

    folder: Path  # Folder of the steering file
    # `root` is the folder of a file that the steering names, `path` that of the file below it. Imported
    # siblings have the same root
    files: tuple[tuple[str, str, bytes], ...] = ()

    def _root(self, root: str) -> Files:
        return {path: source for at, path, source in self.files if at == root}

    def _place(self, name: str) -> tuple[str, str]:
        path = (self.folder / name.partition(":")[0]).resolve()
        return str(path.parent), path.name

    def shas(self, names: Iterable[str]) -> dict[str, str]:
        """Return SHA-256 of files of names ``file.py:attribute`` and of their imports, by relative path."""
        digests: dict[str, str] = {}
        for name in names:
            root, file = self._place(name)
            files = self._root(root)
            for path in _reached(Path(root), file, files):
                where = Path(os.path.relpath(Path(root) / path, self.folder.resolve())).as_posix()
                digests[where] = hashlib.sha256(files[path]).hexdigest()
        return dict(sorted(digests.items()))

    def resolve(self, name: str) -> Any:
        """Return an attribute of a frozen file."""
        file, _, attribute = name.partition(":")
        if not file.endswith(".py") or not attribute:
            raise SteeringError(f"{name!r} is not of the form 'file.py:attribute'")
        root, path = self._place(name)
        files = self._root(root)
        if path not in files:
            msg = f"{name!r}: there is no file {Path(root) / path}"
            msg += " that was there when the run began" if (Path(root) / path).is_file() else ""
            raise SteeringError(msg)
        package = _package(root, files)
        install({package: _modules(package, Path(root), files)})
        with user_code_errors():
            module = importlib.import_module(f"{package}.{path.removesuffix('.py')}")
        if not hasattr(module, attribute):
            public = sorted(key for key in vars(module) if not key.startswith("_"))
            has = ", ".join(public[:20]) + (f" … and {len(public) - 20} more" if len(public) > 20 else "")
            msg = f"{name!r}: {Path(root) / path} has no {attribute!r}; it has {has or 'nothing'}"
            raise SteeringError(msg)
        return getattr(module, attribute)


def freeze(names: Iterable[str], folder: Path) -> UserCode:
    """Read the Python files of names ``file.py:attribute``, and what they import from beside themselves."""
    roots: dict[Path, Files] = {}
    for name in sorted(set(names)):
        found = NAME.fullmatch(name)
        if found is None:
            continue
        path = (folder / found["file"]).resolve()
        if path.is_file():
            _reached(path.parent, path.name, roots.setdefault(path.parent, {}), look=True)
    every = ((str(root), files) for root, files in sorted(roots.items()))
    return UserCode(folder, tuple((root, *file) for root, files in every for file in sorted(files.items())))


def python_names(content: Any) -> Iterator[str]:
    """Yield the values of nested mappings and lists that have the form ``file.py:attribute``."""
    if isinstance(content, str):
        if NAME.fullmatch(content):
            yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from python_names(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from python_names(value)


def resolve(name: str, where: Path | UserCode) -> Any:
    """Return an attribute of a Python file."""
    code = freeze([name], where) if isinstance(where, Path) else where
    return code.resolve(name)


def _reached(root: Path, file: str, files: Files, *, look: bool = False) -> set[str]:
    """Return the files that a file needs, itself among them; `look` reads those not yet known."""
    seen: set[str] = set()
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        if look and path not in files:
            files[path] = _read(root / path)
        if path not in files:
            continue
        seen.add(path)
        for module in _imported(path, files[path]):
            waiting += _beside(root, module, files, look=look)
    return seen


def _read(path: Path) -> bytes:
    try:
        return bytes_of(path)
    except OSError as error:
        raise SteeringError(f"{path}: cannot be read ({error.strerror})") from error


def _imported(path: str, source: bytes) -> set[str]:
    """Return the first parts of the modules that a file imports, relative ones below the root."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()  # executing it will say what is wrong, and where
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and "/" not in path:
            # what is inside a package was taken with it
            names = [node.module] if node.module else [alias.name for alias in node.names]
            modules |= {name.partition(".")[0] for name in names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.partition(".")[0])
    return modules


def _beside(root: Path, module: str, files: Files, *, look: bool) -> list[str]:
    """Return the files of a module or package beside a user's file; none if it lies elsewhere."""
    if module in sys.stdlib_module_names or module == "gammastar":
        return []
    if not look:
        return [path for path in files if path == f"{module}.py" or path.startswith(f"{module}/")]
    folder = root / module
    if (folder / "__init__.py").is_file() or not (root / f"{module}.py").is_file():
        if not folder.is_dir() or not ((folder / "__init__.py").is_file() or not _elsewhere(module)):
            return []
        paths = sorted(path.relative_to(root).as_posix() for path in folder.rglob("*.py"))
        if len(paths) > MOST_FILES:
            msg = f"{folder}: imported by a file of the steering, has {len(paths)} Python files, more than "
            msg += f"the {MOST_FILES} that are sent to workers; install it as a package"
            raise SteeringError(msg)
        return paths
    return [f"{module}.py"]


def _elsewhere(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _package(root: str, files: Files) -> str:
    """Return the name of the package that holds the files of a root: another text or place, another name."""
    result = hashlib.sha256(root.encode())
    for path, source in sorted(files.items()):
        result.update(f"{path}:{len(source)};".encode() + source)
    return PREFIX + result.hexdigest()[:24]


def _modules(package: str, root: Path, files: Files) -> Modules:
    """Return path, source and whether it is a package, of every module by its full name."""
    modules = {package: (str(root / "__init__.py"), b"", True)}
    for path in files:  # folders without __init__.py are packages as well
        for parent in list(Path(path).parents)[:-1]:
            full = ".".join((package, *parent.parts))
            modules.setdefault(full, (str(root / parent / "__init__.py"), b"", True))
    for path, source in files.items():
        parts = Path(path).with_suffix("").parts
        inside = parts[-1] == "__init__" and len(parts) > 1
        full = ".".join((package, *(parts[:-1] if inside else parts)))
        modules[full] = (str(root / path), source, inside)
    return modules


def installed() -> dict[str, Modules]:
    """Return the frozen code that this process can import, to be installed in another."""
    return dict(_frozen)


def install(packages: Mapping[str, Modules]) -> None:
    """Make frozen code importable in this process, under names that its content gives."""
    _frozen.update({name: modules for name, modules in packages.items() if name not in _frozen})
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


class _Frozen(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads frozen modules, and nothing else."""

    def _module(self, name: str) -> tuple[str, bytes, bool]:
        return _frozen[name.partition(".")[0]][name]

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        if name not in _frozen.get(name.partition(".")[0], {}):
            return None
        path, _, package = self._module(name)
        spec = ModuleSpec(name, self, origin=path, is_package=package)
        spec.has_location = True  # __file__, so that code finds tables beside itself
        return spec

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        package = spec.name.partition(".")[0]
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _Import(package)}
        return module

    def get_source(self, name: str) -> str:
        return importlib.util.decode_source(self._module(name)[1])

    def get_code(self, name: str) -> types.CodeType:
        path, source, _ = self._module(name)
        try:
            return self.source_to_code(source, path)
        except (SyntaxError, ValueError) as error:  # of a zero byte comes no name
            said, line = getattr(error, "msg", str(error)), getattr(error, "lineno", None) or 1
            raise SyntaxError(said, (path, line, 0, None)) from error

    def is_package(self, name: str) -> bool:
        return self._module(name)[2]


_FINDER = _Frozen()


@dataclass(frozen=True)
class _Import:
    """``import`` as frozen code sees it: what lies beside it first, from its own package."""

    package: str

    def __call__(
        self, name: str, space: Any = None, inner: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        top = f"{self.package}.{name.partition('.')[0]}"
        if level or top not in _frozen.get(self.package, {}):
            return builtins.__import__(name, space, inner, fromlist, level)
        full = f"{self.package}.{name}"
        importlib.import_module(full)
        return builtins.__import__(full, space, inner, fromlist, 0) if fromlist else sys.modules[top]


@contextlib.contextmanager
def user_code_errors() -> Iterator[None]:
    """Turn what user code raises into an error with file, function and line; undo its changes of folder."""
    try:
        here = Path.cwd()
    except OSError:
        here = None
    try:
        yield
    except GammastarError:
        raise
    except (Exception, SystemExit) as error:
        said = _blame(error)
        if said is None:
            raise
        raise SteeringError(said) from error
    finally:
        if here is not None:
            with contextlib.suppress(OSError):
                os.chdir(here)


def _blame(error: BaseException) -> str | None:
    """Return what to say of an exception that user code raised, or let through; None if it did neither."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__", "")).startswith(PREFIX):
            code = frame.f_code
            inside = "" if code.co_name == "<module>" else f":{code.co_qualname}"
            place = f"{code.co_filename}{inside}, line {line}"
            break
    else:
        files = {path for modules in _frozen.values() for path, _, _ in modules.values()}
        if not isinstance(error, SyntaxError) or error.filename not in files:
            return None
        place = f"{error.filename}, line {error.lineno}"
    if isinstance(error, SystemExit):
        return f"{place}: calls sys.exit({error.code!r}), which would end the run; raise an error instead"
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return f"{place}: {said[:500]}{'…' if len(said) > 500 else ''}"
