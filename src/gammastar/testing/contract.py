"""Collect what is wrong and say it all at once."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Contract", "ContractError"]


class ContractError(AssertionError):
    """An extension that breaks the contract of its kind; the message lists every point."""


class Contract:
    """The points that one object has to meet.

    Parameters
    ----------
    kind : str
        What the object is, for the message.
    thing : object
    """

    def __init__(self, kind: str, thing: object) -> None:
        name = thing if isinstance(thing, str) else type(thing).__name__
        self._title = f"{kind} {name}"
        self._problems: list[str] = []

    def need(self, condition: bool | np.bool_, problem: str) -> bool:
        """Note a problem unless the condition holds; return the condition."""
        if not condition and problem not in self._problems:
            self._problems.append(problem)
        return bool(condition)

    def close(
        self, found: Any, expected: Any, problem: str, *, rtol: float = 1e-9, atol: float = 0.0
    ) -> bool:
        """Note a problem unless two arrays agree in shape and value (nan equals nan)."""
        a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        same = a.shape == b.shape and np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
        return self.need(same, problem)

    def settle(self) -> None:
        """Raise if a problem was noted.

        Raises
        ------
        ContractError
        """
        if self._problems:
            lines = "".join(f"\n  - {problem}" for problem in self._problems)
            msg = f"{self._title} breaks its contract:{lines}"
            raise ContractError(msg)
