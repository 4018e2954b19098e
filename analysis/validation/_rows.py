"""What a row of the validation page holds."""

from __future__ import annotations


def row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    """Return a row: our number, the expected one, how far apart they may be, and where that one is from."""
    return {
        "quantity": quantity,
        "ours": float(ours),
        "expected": float(expected),
        "tolerance": float(tolerance),
        "source": source,
    }
