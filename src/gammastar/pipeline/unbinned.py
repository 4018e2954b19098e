"""OmniFold in a run: the pairs without bins, a histogram of the weights, replicas for its errors."""

from __future__ import annotations

from typing import Any

import numpy as np

from gammastar import unfold
from gammastar.core.axes import KINEMATICS
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import Response, Spectrum
from gammastar.core.rng import stream
from gammastar.core.stats import filled
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context

__all__ = ["unbinned_spectrum"]


def unbinned_spectrum(
    ctx: Context, known: MatchedPairs, response: Response, pairs: Pairs, subtraction: Arrays
) -> tuple[Spectrum, Arrays]:
    """Unfold the pairs without bins; the spectrum is a histogram of the weights, its errors of replicas."""
    section = ctx.steering.unfold
    if section is None or isinstance(section.n_iterations, str):
        msg = "[unfold] with n_iterations is needed for OmniFold"
        raise SteeringError(msg)
    use = np.flatnonzero(subtraction["posterior"] > 0)
    data = np.stack([getattr(pairs, name)[use] for name in KINEMATICS], axis=1)
    weight = subtraction["posterior"][use]
    options: dict[str, Any] = {"n_iterations": section.n_iterations, "stop": section.stop}
    ctx.tell("unfold", None, f"OmniFold of {len(use)} pairs")
    found = unfold.omnifold(data, known, rng=stream(ctx.seed, "omnifold"), data_weight=weight, **options)
    ctx.tell("unfold", None, f"OmniFold, {section.n_replicas} replicas")
    copies = unfold.omnifold_replicas(
        data,
        known,
        rng=stream(ctx.seed, "omnifold replicas"),
        n_replicas=section.n_replicas,
        data_event=pairs.event[use],
        data_weight=weight,
        **options,
    )
    cell = unfold.cells(known.true, response.true)
    inside, n = cell >= 0, response.efficiency.size
    values = np.bincount(cell[inside], found.weight[inside], n)
    scattered = np.array([np.bincount(cell[inside], copy[inside], n) for copy in copies])
    domain = response.efficiency >= section.efficiency_floor
    cov = np.where(np.outer(domain, domain), np.cov(scattered, rowvar=False).reshape(n, n), 0.0)
    shape = tuple(len(axis) for axis in response.true)
    hist = filled(response.true, np.where(domain, values, 0.0), np.diag(cov))
    spectrum = Spectrum(hist, cov, "counts", None, domain.reshape(shape))
    return spectrum, {
        "omnifold_weight": found.weight,
        "omnifold_change": found.change,
        "strength": np.array(float(len(found.history))),
    }
