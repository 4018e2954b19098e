"""Likelihoods that somebody published, tested signal by signal: the lines of ``gammastar scan``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gammastar import config, infer
from gammastar.core.errors import SteeringError

__all__ = ["scan_lines"]

AVERAGED = "marginalised"  # of [infer] method: exact, toys averaged over the nuisances


def scan_lines(
    path: Path,
    *,
    names: tuple[str, ...] = (),
    method: str | None = None,
    statistic: Any = None,
    auxiliary: Any = None,
    steering: Path | None = None,
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
    method : {"asymptotic", "exact", "marginalised", "auto"}, optional
        As in [infer]; that of `steering`, or "asymptotic".
    statistic : {"ratio", "qtilde"}, optional
        Of exact CLs; "ratio" if not given.
    auxiliary : {"fixed", "randomised", "averaged"}, optional
        What the toys of exact CLs do with nuisances and their measurements; that of the method if not given:
        "averaged" for "marginalised", else "fixed".
    steering : Path, optional
        Its [infer] gives `method` and ``asymptotic_from``.
    hs3 : Path, optional
        Folder into which each tested signal is written as HS3.

    Raises
    ------
    SteeringError
        If `steering` has no [infer], or "marginalised" meets another `auxiliary`.
    """
    method, options = _conventions(method, steering)
    if method == AVERAGED and auxiliary not in {None, "averaged"}:
        msg = f"scan: method = 'marginalised' averages over the nuisances; it cannot take {auxiliary!r} toys"
        raise SteeringError(msg)
    chosen: Any = auxiliary or ("averaged" if method == AVERAGED else "fixed")
    options |= {"convention": infer.Convention(statistic or "ratio", chosen)}
    likelihood = infer.read_likelihood(path, **where)
    engine: Any = "exact" if method == AVERAGED else method
    for found in infer.scan(likelihood, names or None, method=engine, **options):
        values = " ".join(f"{value:g}" for value in found.values)
        expected = " ".join(f"{value:.4g}" for value in found.expected)
        error = f" +- {found.error:.2g}" if found.error > 0 else ""
        yield f"{found.name} {values} CLs {found.observed:.6g}{error} expected {expected} [{found.method}]"
    if hs3 is not None:
        yield from (f"wrote {path}" for path in infer.write_hs3(likelihood, hs3, names or None))


def _conventions(method: str | None, steering: Path | None) -> tuple[str, dict[str, Any]]:
    """Return the method, and what else of [infer] a scan follows."""
    if steering is None:
        return method or "asymptotic", {}
    section = config.load(steering).infer
    if section is None:
        msg = f"{steering}: has no [infer], which says how limits are set; add it, or leave --steering out"
        raise SteeringError(msg)
    return method or section.method, {"asymptotic_from": section.asymptotic_from}
