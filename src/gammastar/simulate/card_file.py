"""Read a card: TOML in which every number carries a tag and a source, or names a branching fraction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gammastar.core.constants import BRANCHING, EDITION, branching
from gammastar.core.documents import from_toml, sources_of
from gammastar.core.errors import InputFileError, PhysicsError, SteeringError
from gammastar.simulate.card import Card, Provenance

__all__ = ["load_card"]

TAGS = ("published", "derived", "placeholder")
# identification codes and choices, not measurements
LABELS = frozenset({"pdg", "process", "index", "bit", "prescale", "muons", "sextants"})
FRACTIONS = frozenset({"branching", "branching_photon"})  # a decay's name stands for its number in the table


def _untag(node: Any, key: str, sources: Mapping[str, str], found: dict[str, Provenance], path: Path) -> Any:
    """Replace each {value, tag, source} by its value; record its provenance under its dotted key."""
    if isinstance(node, dict):
        if "value" in node:
            if set(node) != {"value", "tag", "source"}:
                msg = f"{path}: {key} has the keys {sorted(node)}; a number has exactly value, tag, source"
                raise SteeringError(msg)
            if not isinstance(node["tag"], str) or node["tag"] not in TAGS:
                msg = f"{path}: {key}.tag = {node['tag']!r} is not one of {list(TAGS)}"
                raise SteeringError(msg)
            if not isinstance(node["source"], str) or node["source"] not in sources:
                msg = f"{path}: {key}.source = {node['source']!r} is not in [sources]: {sorted(sources)}"
                raise SteeringError(msg)
            found[key] = Provenance(node["tag"], sources[node["source"]])
            return node["value"]
        return {
            name: _untag(value, f"{key}.{name}" if key else name, sources, found, path)
            for name, value in node.items()
        }
    if isinstance(node, str) and key.rpartition(".")[2] in FRACTIONS:
        return _looked_up(node, key, found, path)
    if isinstance(node, int | float) and not isinstance(node, bool) and key.rpartition(".")[2] not in LABELS:
        msg = f"{path}: {key} = {node!r} has no source; write {{ value = …, tag = …, source = … }}"
        raise SteeringError(msg)
    return node


def _looked_up(decay: str, key: str, found: dict[str, Provenance], path: Path) -> float:
    """Return the branching fraction of a decay from `core.constants`, and record where it comes from."""
    try:
        value = branching(decay)
    except PhysicsError as error:
        msg = f"{path}: {key}: {error}"
        raise SteeringError(msg) from error
    found[key] = Provenance("published", f"{EDITION}, {BRANCHING[decay].source}: {decay}")
    return value


def load_card(path: str | Path) -> Card:
    """Read and check a card.

    Parameters
    ----------
    path : str or Path
        TOML file; every number is a table ``{ value, tag, source }`` with the tag "published", "derived"
        or "placeholder" and a key of the section ``[sources]``. A branching fraction may be the name of a
        decay in `core.constants.BRANCHING`.

    Returns
    -------
    Card

    Raises
    ------
    InputFileError
        If the file is missing or not TOML.
    SteeringError
        If a key is unknown, missing, out of range, or a number has no source; the message names the key.
    """
    path = Path(path)
    try:
        raw = from_toml(path)
        sources = sources_of(raw)
    except OSError as error:
        msg = f"card {path}: cannot be read ({error.strerror}); give the path of a card (TOML)"
        raise InputFileError(msg) from error
    except ValueError as error:
        msg = f"card {path}: not valid TOML: {error}"
        raise InputFileError(msg) from error
    raw.pop("sources", None)
    found: dict[str, Provenance] = {}
    values = _untag(raw, "", sources, found, path)
    try:
        return Card(**values, provenance=found)
    except (ValidationError, TypeError) as error:
        msg = f"card {path}: {_describe(error)}"
        raise SteeringError(msg) from error


def _describe(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return f"{error}"
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        reason = "unknown key" if item["type"] == "extra_forbidden" else item["msg"]
        parts.append(f"{key}: {reason}" if key else reason)
    return "; ".join(parts)
