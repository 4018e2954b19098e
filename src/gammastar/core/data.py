"""Where the shipped facts lie: ``gammastar/data`` in a wheel, ``data/`` in a checkout."""

from __future__ import annotations

import os
from pathlib import Path

from gammastar.core.errors import InputFileError

__all__ = ["analysis_path", "data_path", "folder_names", "is_file", "is_folder"]

_PACKAGE = Path(__file__).resolve().parents[1]


def data_path(name: str) -> Path:
    """Return the path of a shipped data file.

    Parameters
    ----------
    name : str
        Path relative to ``data/``, e.g. ``measurements/r_ratio.csv``.

    Raises
    ------
    InputFileError
        If there is no such file.
    """
    for root in (_PACKAGE / "data", _PACKAGE.parents[1] / "data"):
        if is_file(root / name):
            return root / name
    msg = f"{name}: no such file is shipped in data/"
    raise InputFileError(msg)


def folder_names(folder: str) -> tuple[str, ...]:
    """Return the stems of the TOML files in a folder of the shipped data, e.g. those of ``detectors``."""
    roots = (_PACKAGE / "data", _PACKAGE.parents[1] / "data")
    return tuple(sorted({path.stem for root in roots for path in (root / folder).glob("*.toml")}))


def is_file(path: Path) -> bool:
    """Return whether a file is there; a name that no file can have is none.

    Examples
    --------
    >>> is_file(Path("x" * 5000)), is_folder(Path("."))
    (False, True)
    """
    return os.path.isfile(path)  # noqa: PTH113 - that of Path raises where a name is too long


def is_folder(path: Path) -> bool:
    """Return whether a folder is there; a name that none can have is none."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def analysis_path(name: str) -> Path:
    """Return the steering file of a shipped analysis.

    Parameters
    ----------
    name : str
        Folder, or folder and file without suffix: ``na60_dimuon``, ``na60_dimuon/small``.

    Raises
    ------
    InputFileError
        If there is no such analysis.
    """
    folder, _, file = name.partition("/")
    for root in (_PACKAGE / "data" / "analysis", _PACKAGE.parents[1] / "analysis"):
        path = root / folder / f"{file or 'steering'}.toml"
        if is_file(path):
            return path
    msg = f"{name}: neither a steering file nor the name of a shipped analysis"
    raise InputFileError(msg)
