"""Likelihoods that somebody published, tested signal by signal: the lines of ``gammastar scan``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gammastar import infer

__all__ = ["scan_lines"]


def scan_lines(
    path: Path,
    *,
    names: tuple[str, ...] = (),
    method: Any = "asymptotic",
    hs3: Path | None = None,
    **where: Any,
) -> Iterator[str]:
    """Yield a line per tested signal, and per HS3 document written.

    Parameters
    ----------
    path : Path
        As `infer.read_likelihood`, which takes `where` too.
    names : tuple of str
        Patches; all of them if empty.
    method : {"asymptotic", "exact", "auto"}
    hs3 : Path, optional
        Folder into which each tested signal is written as HS3.
    """
    likelihood = infer.read_likelihood(path, **where)
    for found in infer.scan(likelihood, names or None, method=method):
        values = " ".join(f"{value:g}" for value in found.values)
        expected = " ".join(f"{value:.4g}" for value in found.expected)
        error = f" +- {found.error:.2g}" if found.error > 0 else ""
        yield f"{found.name} {values} CLs {found.observed:.6g}{error} expected {expected} [{found.method}]"
    if hs3 is not None:
        yield from (f"wrote {path}" for path in infer.write_hs3(likelihood, hs3, names or None))
