"""Cards of searches: TOML, every number with its source."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gammastar.core.errors import SteeringError

__all__ = ["sourced"]

Record = TypeVar("Record")


def sourced(file: Path, record: Callable[..., Record]) -> Record:
    """Return the record of a card.

    Parameters
    ----------
    file : Path
    record : callable
        Takes the numbers of the card by name, and `sources`.

    Raises
    ------
    SteeringError
        If a number of the card is missing or has no source.
    """
    card: dict[str, Any] = tomllib.loads(file.read_text())
    sources = card.pop("sources", {})
    without = sorted(set(card) - set(sources))
    if without:
        msg = f"{file}: no source is given for {', '.join(without)}"
        raise SteeringError(msg)
    try:
        return record(**card, sources=sources)
    except TypeError as error:
        msg = f"{file}: {error}"
        raise SteeringError(msg) from error
