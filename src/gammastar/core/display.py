"""How records look at a prompt and in a notebook: one line per field, never a page of numbers."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

__all__ = ["Shown", "Told", "described"]

LONGEST = 88  # characters of a value


class Shown:
    """Gives a dataclass a representation of one screen, as text and as HTML.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(repr=False)
    ... class Rate(Shown):
    ...     mass: object
    ...     unit: str
    >>> print(Rate(np.array([0.2, 0.4]), "GeV"))
    Rate
      mass  2 numbers, 0.2 to 0.4
      unit  'GeV'
    """

    __slots__ = ()

    def _lines(self) -> list[tuple[str, str]]:
        record: Any = self
        values = [(one.name, getattr(self, one.name)) for one in fields(record) if one.repr]
        return [(name, described(value)) for name, value in values if value is not None]

    def __repr__(self) -> str:
        lines = self._lines()
        width = max((len(name) for name, _ in lines), default=0)
        return "\n".join([type(self).__name__, *(f"  {name:{width}s}  {text}" for name, text in lines)])

    def _repr_html_(self) -> str:
        """Return the same as a table, for notebooks."""
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(text)}</td></tr>'
            for name, text in self._lines()
        )
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"


class Told(str):
    """A text that a prompt and a notebook show as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Return the text with its lines, for notebooks."""
        return f"<pre>{html.escape(self)}</pre>"


def described(value: Any) -> str:
    """Return a value in a line: arrays by size and range, histograms by axes, mappings by their keys."""
    if isinstance(value, np.ndarray):
        return _array(value)
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    if hasattr(value, "axes") and hasattr(value, "values"):
        text = "Hist, " + " × ".join(f"{len(axis)} bins of {axis.name}" for axis in value.axes)
    elif isinstance(value, Mapping):
        text = f"{len(value)}: {', '.join(map(str, value))}" if value else "none"
    elif hasattr(value, "names"):
        text = ", ".join(map(str, value.names)) or "none"
    elif isinstance(value, tuple) and value:
        named = [getattr(item, "name", None) or described(item) for item in value[:100]]
        text = f"{len(value)}: {', '.join(dict.fromkeys(map(str, named)))}"
    elif isinstance(value, Shown) or (is_dataclass(value) and len(text) > LONGEST):
        text = type(value).__name__
    return _cut(text)


def _array(value: np.ndarray[Any, Any]) -> str:
    size = " × ".join(map(str, value.shape)) or "1"
    if value.dtype == bool:
        return f"{size} flags, {int(value.sum())} true"
    if not np.issubdtype(value.dtype, np.number):
        return f"{size} of {value.dtype}"
    known = value[np.isfinite(value)]
    ends = f", {known.min():.4g} to {known.max():.4g}" if known.size else ""
    missing = f", {value.size - known.size} nan or inf" if known.size < value.size else ""
    return f"{size} numbers{ends}{missing}"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
