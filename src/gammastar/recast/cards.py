"""Cards of searches: TOML, every number with its source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gammastar.core.documents import from_toml, sources_of
from gammastar.core.errors import InputFileError, SteeringError

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
    InputFileError
        If the file cannot be read or is not TOML.
    SteeringError
        If a number of the card is missing or has no source.
    """
    try:
        card = from_toml(file)
        sources = sources_of(card)
    except (OSError, ValueError) as error:
        msg = f"{file}: cannot be read as TOML ({error})"
        raise InputFileError(msg) from error
    card.pop("sources", None)
    without = sorted(set(card) - set(sources))
    if without:
        msg = f"{file}: no source is given for {', '.join(without)}"
        raise SteeringError(msg)
    try:
        return record(**card, sources=sources)
    except TypeError as error:
        msg = f"{file}: {error}"
        raise SteeringError(msg) from error
