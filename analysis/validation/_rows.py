"""What a row of the validation page holds."""

from __future__ import annotations

from pathlib import Path

from gammastar.store.manifest import digest


def row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    """Return a row: our number, the expected one, how far apart they may be, and where that one is from."""
    return {
        "quantity": quantity,
        "ours": float(ours),
        "expected": float(expected),
        "tolerance": float(tolerance),
        "source": source,
    }


def state_of_package() -> str:
    """Return the digest of the package's code, as the fault campaigns name it."""
    source = Path(__file__).resolve().parents[2] / "src" / "gammastar"
    texts = {str(path.relative_to(source)): path.read_text("utf-8") for path in source.rglob("*.py")}
    return digest(dict(sorted(texts.items())))[:8]
