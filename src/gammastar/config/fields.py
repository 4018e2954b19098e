"""What the sections of the steering file are made of."""

from __future__ import annotations

import ast
import functools
import inspect
import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from gammastar.core.files import UNFILLED, plain

MOST_BINS = 100_000  # of one axis
MOST_CELLS = 20_000  # of all axes together: their covariance is the square of that
TO_FILL = "is to be filled in"
HEAVIEST, HARDEST = 1e4, 1e6  # GeV: of a mass, of an energy or transverse momentum; grids follow from them
LARGEST = 1e100  # nothing that is measured is larger, or smaller than its inverse


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError("must be [low, high] with low < high")
    return value


def _above_zero(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] <= 0:
        raise ValueError("must be [low, high] with 0 < low")
    return value


def _increasing(value: tuple[float, ...]) -> tuple[float, ...]:
    if any(high <= low for low, high in pairwise(value)):
        raise ValueError(f"{list(value)[:10]} must increase")
    return value


def _below(value: tuple[float, ...], most: float) -> tuple[float, ...]:
    if value and value[-1] > most:
        raise ValueError(f"goes to {value[-1]:g} GeV; at most {most:g} GeV")
    return value


LIGHT = AfterValidator(functools.partial(_below, most=HEAVIEST))
SOFT = AfterValidator(functools.partial(_below, most=HARDEST))


def _printable(value: str) -> str:
    if plain(value, keep="") != value:
        raise ValueError("holds control characters, line breaks or marks of direction")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_rising)]
PositiveRange = Annotated[Range, AfterValidator(_above_zero)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
MassRange = Annotated[PositiveRange, LIGHT]
Masses = Annotated[tuple[Positive, ...], Field(max_length=10_000), AfterValidator(_increasing), LIGHT]
Count = Annotated[int, Field(gt=0, le=10**9)]
Title = Annotated[str, Field(max_length=300), AfterValidator(_printable)]


class Section(BaseModel):
    """A frozen table that refuses unknown keys, values of another type and numbers that cannot be meant."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _as_toml(cls, value: Any) -> Any:
        """Take lists for tuples and 1e6 for an integer; strict types refuse what is left."""
        if value == UNFILLED or (isinstance(value, list | tuple) and UNFILLED in value):
            raise ValueError(TO_FILL)
        return _taken(value)

    @field_validator("*", mode="after")
    @classmethod
    def _within_reason(cls, value: Any) -> Any:
        if not _reasonable(value):
            raise ValueError(f"is beyond {LARGEST:g} or below {1 / LARGEST:g}: no quantity here is")
        return value


def _taken(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_taken(item) for item in value)
    if isinstance(value, dict):
        return {key: _taken(item) for key, item in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _reasonable(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_reasonable, value))
    if isinstance(value, dict):
        return all(map(_reasonable, value.values()))
    return not isinstance(value, float) or value == 0.0 or 1.0 / LARGEST <= abs(value) <= LARGEST


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _edges(value: object) -> object:
    """Spell out ``{ bins = 36, low = 0.2, high = 1.1 }``; check that edges increase."""
    if isinstance(value, dict):
        value = _equidistant(value)
    if isinstance(value, list | tuple):
        if len(value) > MOST_BINS + 1:
            raise ValueError(f"{len(value)} edges; at most {MOST_BINS + 1}")
        if not all(map(_is_number, value)):
            raise ValueError("edges must be numbers")
        if any(high <= low for low, high in pairwise(value)):
            raise ValueError("edges must increase")
    return value


def _equidistant(value: dict[Any, Any]) -> tuple[float, ...]:
    known = set(value) == {"bins", "low", "high"} and all(map(_is_number, value.values()))
    if not known or not isinstance(value["bins"], int):
        raise ValueError("must be a list of edges or { bins = …, low = …, high = … }, three numbers")
    n, low, high = value["bins"], value["low"], value["high"]
    if not 1 <= n <= MOST_BINS:
        raise ValueError(f"must have from 1 to {MOST_BINS} bins")
    if not -LARGEST < low < high < LARGEST:
        raise ValueError("must have low < high, both finite")
    step = (high - low) / n
    return tuple(round(low + i * step, 12) for i in range(n + 1))


Edges = Annotated[tuple[float, ...], Field(min_length=2), BeforeValidator(_edges)]
MassEdges = Annotated[Edges, LIGHT]
Momenta = Annotated[Edges, SOFT]


def cells_problem(*axes: Sequence[float] | None, most: int = MOST_CELLS) -> str:
    """Return what is wrong with axes that have too many cells together, "" if nothing is."""
    cells = math.prod(len(edges) - 1 for edges in axes if edges is not None)
    if cells <= most:
        return ""
    return f"mass, pt, energy: {cells} cells; at most {most} can be worked with, so take fewer bins"


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    source = inspect.getsource(sys.modules[module])
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the strings below the fields of a model; pydantic would read them at every start."""
    body = _classes(model.__module__)[model.__name__].body
    texts = {}
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                texts[name] = " ".join(words.split())
    return texts
