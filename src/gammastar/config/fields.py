"""What the sections of the steering file are made of."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "Edges",
    "Fraction",
    "Masses",
    "Positive",
    "PositiveRange",
    "Range",
    "Section",
]


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        msg = "must be [low, high] with low < high"
        raise ValueError(msg)
    return value


def _above_zero(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] <= 0:
        msg = "must be [low, high] with 0 < low"
        raise ValueError(msg)
    return value


def _increasing(value: tuple[float, ...]) -> tuple[float, ...]:
    if any(high <= low for low, high in pairwise(value)):
        msg = f"{list(value)[:10]} must increase"
        raise ValueError(msg)
    return value


Range = Annotated[tuple[float, float], AfterValidator(_rising)]
PositiveRange = Annotated[Range, AfterValidator(_above_zero)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Masses = Annotated[tuple[Positive, ...], AfterValidator(_increasing)]


class Section(BaseModel):
    """A frozen table that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


MOST_BINS = 100_000


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _edges(value: object) -> object:
    """Spell out ``{ bins = 36, low = 0.2, high = 1.1 }``; check that edges increase."""
    if isinstance(value, dict):
        known = set(value) == {"bins", "low", "high"} and all(map(_is_number, value.values()))
        if not known or not isinstance(value["bins"], int) or not 1 <= value["bins"] <= MOST_BINS:
            msg = "must be a list of edges or { bins = …, low = …, high = … }, three numbers"
            raise ValueError(msg)
        step = (value["high"] - value["low"]) / value["bins"]
        value = [round(value["low"] + i * step, 12) for i in range(value["bins"] + 1)]
    if isinstance(value, list | tuple) and not all(map(_is_number, value)):
        msg = "edges must be numbers"
        raise ValueError(msg)
    if isinstance(value, list | tuple) and any(high <= low for low, high in pairwise(value)):
        msg = "edges must increase"
        raise ValueError(msg)
    return value


Edges = Annotated[tuple[float, ...], Field(min_length=2), BeforeValidator(_edges)]
