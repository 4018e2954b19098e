"""Resolve a name or ``file.py:attribute`` to a Python object: the one way in for user code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from gammastar.core.errors import SteeringError

__all__ = ["resolve"]


def resolve(name: str, folder: Path) -> Any:
    """Import an attribute of a Python file.

    Parameters
    ----------
    name : str
        ``file.py:attribute``; the file is relative to `folder`.
    folder : Path
        Folder of the steering file.

    Raises
    ------
    SteeringError
        If the form is wrong, or the file or the attribute is missing.
    """
    file, _, attribute = name.partition(":")
    path = (folder / file).resolve()
    if not file.endswith(".py") or not attribute:
        msg = f"{name!r} is not of the form 'file.py:attribute'"
        raise SteeringError(msg)
    if not path.is_file():
        msg = f"{name!r}: there is no file {path}"
        raise SteeringError(msg)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        msg = f"{name!r}: {path} cannot be imported"
        raise SteeringError(msg)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code does
        msg = f"{name!r}: {path} fails when it is imported ({type(error).__name__}: {str(error)[:200]})"
        raise SteeringError(msg) from error
    if not hasattr(module, attribute):
        public = sorted(key for key in vars(module) if not key.startswith("_"))
        msg = f"{name!r}: {path} has no {attribute!r}; it has {', '.join(public)[:400] or 'nothing'}"
        raise SteeringError(msg)
    return getattr(module, attribute)
