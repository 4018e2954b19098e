"""Four-momenta as lines of text: the ``particle_list`` that BdNMC reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gammastar.core.errors import UserError
from gammastar.core.files import atomic
from gammastar.core.records import Sample

__all__ = ["unweighted", "write_particle_list"]


def unweighted(sample: Sample, n: int, rng: np.random.Generator) -> Sample:
    """Return `n` particles of equal weight, drawn systematically with the weights of a sample.

    Parameters
    ----------
    sample : Sample
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    Sample
        Its weights sum to those of the given one; a particle whose weight exceeds the n-th part of the sum
        appears more than once.

    Raises
    ------
    UserError
        If a weight is negative or their sum is zero.
    """
    weight = np.asarray(sample.weight, dtype=np.float64)
    total = float(weight.sum())
    if n < 1 or (weight < 0).any() or not (np.isfinite(total) and total > 0):
        msg = f"unweighted: {n} particles from weights that sum to {total!r}; they must not be negative"
        raise UserError(msg)
    steps = (np.arange(n) + rng.uniform()) / n
    index = np.searchsorted(np.cumsum(weight) / total, steps, side="right")
    index = rng.permutation(np.minimum(index, len(weight) - 1))
    return Sample(sample.p4[index], np.full(n, total / n), sample.origin[index], sample.in_domain[index])


def write_particle_list(path: Path, sample: Sample, n: int, rng: np.random.Generator, *, note: str) -> None:
    """Write unweighted particles as lines ``px py pz E x y z t`` (GeV, m, s), at once or not at all.

    Parameters
    ----------
    path : Path
    sample : Sample
        For χχ̄ from `predict.chi_pairs`: every particle becomes a line of its own.
    n : int
        Number of lines.
    rng : numpy.random.Generator
    note : str
        First line, behind a ``#``: what the particles are and to how many per proton on target they add up
        is written there too, as the format has no place for a weight.

    Notes
    -----
    BdNMC (arXiv:1609.01770) reads it with ``particle_list_position true``.
    """
    drawn = unweighted(sample, n, rng)
    p4 = drawn.p4
    columns = [p4.px, p4.py, p4.pz, p4.E, *drawn.origin.T, np.zeros(n)]
    table = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    lines = " ".join(note.splitlines())
    header = (
        f"{lines}; {drawn.weight.sum():.9g} per proton on target and squared coupling\npx py pz E x y z t"
    )
    with atomic(path) as temporary:
        np.savetxt(temporary, table, fmt="%.9g", header=header, comments="# ")
