"""Schema and cuts that a steering names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gammastar import config, read
from gammastar.core.errors import SteeringError
from gammastar.core.resolve import UserCode, resolve

if TYPE_CHECKING:
    from gammastar import select

__all__ = ["load_cuts", "load_schema"]


def load_schema(section: config.Read, where: Path | UserCode) -> read.Schema:
    """Return the schema of a file, of ``file.py:attribute``, or a shipped one by its name.

    Raises
    ------
    SteeringError
        If there is none, or it is wrong; the message names it.
    """
    name = section.schema_file
    base = where if isinstance(where, Path) else where.folder
    if name.endswith(".toml"):
        return read.load_schema(base / name)
    if ".py" not in name:
        return read.builtin(name)
    try:
        found = resolve(name, where)
        return found if isinstance(found, read.Schema) else read.Schema.from_mapping(found)
    except SteeringError as error:
        text = str(error)
        raise SteeringError(text if name in text else f"schema {name}: {text}") from error


def load_cuts(section: config.Select, where: Path | UserCode) -> select.Cuts:
    """Return the cuts of a section; functions come from frozen code, on workers as well."""
    from gammastar import select

    ghost = None
    if section.ghost_angle > 0 or section.ghost_excess > 0:
        ghost = select.GhostVeto(section.ghost_angle, section.ghost_excess)
    return select.Cuts(
        lepton=section.lepton,
        pair=section.pair,
        ghost=ghost,
        event_functions=tuple(resolve(name, where) for name in section.event_functions),
        pair_functions=tuple(resolve(name, where) for name in section.pair_functions),
    )
